// culm.configure(): the settings of shrinking, read and replaced as a whole. The Python side checks them.
#pragma once

#include <Python.h>

namespace culm::extension {

PyObject* shrink_settings(PyObject* module, PyObject* unused);
PyObject* set_shrink_settings(PyObject* module, PyObject* arguments);
PyObject* pressure_sources(PyObject* module, PyObject* unused);

}  // namespace culm::extension
