// culm.StackOverflowError, and what a fiber's overflow means for the interpreter.
#pragma once

#include <Python.h>

#include "culm/runtime/embedder.hpp"

namespace culm::extension {

struct PyFiber;

bool add_stack_overflow(PyObject* module);

// The exception of an overflow of `self`, made outside it. New reference; null with an exception set.
PyObject* make_stack_overflow(PyFiber* self);

// For faulthandler, which is to come beneath the handler of overflows: see culm::remove_overflow_handler.
PyObject* remove_fault_handler(PyObject* module, PyObject* unused);
PyObject* install_fault_handler(PyObject* module, PyObject* unused);

// The roles of the embedding language that deal with overflows (culm/runtime/embedder.hpp).
runtime::Overflows overflow_roles() noexcept;
void trace_overflown(const runtime::Fiber& fiber);

}  // namespace culm::extension
