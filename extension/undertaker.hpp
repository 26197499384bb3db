// culm.configure(on_overflow="end_fiber"): a fiber that runs out of stack in C code is ended alone, where that is
// possible.
//
// That is at an interposed call it makes from the lower half of its yellow zone, while it holds no pthread mutex. It is
// parked there and never continues: what its C frames own is lost. An undertaker, a fiber kept ready for that because a
// stack that has run out is no place to make one, gives it its outcome, a StackOverflowError.
#pragma once

#include <Python.h>

#include "thread_host.hpp"

namespace culm::extension {

// Whether it is so configured. Switched on, it holds for the calling thread at once and for others from their next
// spawn().
bool overflow_ends_fibers() noexcept;
PyObject* set_overflow_ends_fibers(PyObject* module, PyObject* truth);
PyObject* get_overflow_ends_fibers(PyObject* module, PyObject* unused);

// Makes the thread's undertaker if it is needed and there is none. False: an exception is set.
bool ensure_undertaker(ThreadHost& host);

// Overflows::ends_fiber.
bool hand_to_undertaker(runtime::Fiber& fiber);

}  // namespace culm::extension
