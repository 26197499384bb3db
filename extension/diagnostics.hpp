// What culm says about itself and the machine: statistics, kernel features, size classes, memory given back on request.
#pragma once

#include <Python.h>

namespace culm::extension {

PyObject* statistics(PyObject* module, PyObject* unused);
PyObject* trim(PyObject* module, PyObject* unused);
PyObject* kernel_features(PyObject* module, PyObject* unused);
PyObject* stack_classes(PyObject* module, PyObject* unused);
PyObject* context_implementation(PyObject* module, PyObject* unused);

}  // namespace culm::extension
