// spawn, sleep, yield_now, current, fibers: what most programs use.
#pragma once

#include <Python.h>

namespace culm::extension {

PyObject* spawn(PyObject* module, PyObject* const* args, Py_ssize_t count, PyObject* names);
PyObject* sleep_for(PyObject* module, PyObject* seconds);
PyObject* yield_now(PyObject* module, PyObject* unused);
PyObject* current(PyObject* module, PyObject* unused);
PyObject* fibers(PyObject* module, PyObject* unused);

}  // namespace culm::extension
