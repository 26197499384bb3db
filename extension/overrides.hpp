// Functions of the module that tests call to put something in the place of the machine.
#pragma once

#include <Python.h>

namespace culm::extension {

PyObject* override_pressure_sources(PyObject* module, PyObject* arguments);
PyObject* override_overcommit_mode(PyObject* module, PyObject* mode);

}  // namespace culm::extension
