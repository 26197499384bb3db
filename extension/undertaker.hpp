// culm.configure(on_overflow="end_fiber"): a fiber that runs out of stack in C code is ended alone, where that is
// possible. The runtime decides when (culm/runtime/undertaker.hpp); here is how Python is told.
//
// The undertaker is a fiber with a Fiber object, because it runs Python: what it gives to those that it buries, as
// their outcome, is a StackOverflowError.
#pragma once

#include <Python.h>

#include "thread_host.hpp"

namespace culm::extension {

// The setting. Switched on, it holds for the calling thread at once and for others from their next spawn().
PyObject* set_overflow_ends_fibers(PyObject* module, PyObject* truth);
PyObject* get_overflow_ends_fibers(PyObject* module, PyObject* unused);

// Overflows::make_undertaker (null: an exception is set), let_undertaker_go and bury.
runtime::Fiber* make_undertaker();
void let_undertaker_go(runtime::Fiber& fiber);
void bury(runtime::Fiber& fiber);

}  // namespace culm::extension
