// culm.lowlevel: park, unpark, the symmetric switch, waiting for descriptors.
#pragma once

#include <Python.h>

namespace culm::extension {

PyObject* park(PyObject* module, PyObject* const* args, Py_ssize_t count, PyObject* names);
PyObject* unpark(PyObject* module, PyObject* const* args, Py_ssize_t count);
PyObject* switch_to(PyObject* module, PyObject* const* args, Py_ssize_t count);
PyObject* wait_readable(PyObject* module, PyObject* const* args, Py_ssize_t count, PyObject* names);
PyObject* wait_writable(PyObject* module, PyObject* const* args, Py_ssize_t count, PyObject* names);

}  // namespace culm::extension
