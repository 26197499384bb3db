// The smallest fiber that exercises extension/interpreter: resume and park, like a coroutine, on core's contexts.
//
// Invariant: of all probes of a thread exactly one, or the thread's own flow of control, has its words in the thread
// state.
#pragma once

#include <Python.h>

#include "culm/context.hpp"
#include "culm/stack.hpp"
#include "interpreter/interpreter.hpp"

namespace culm::probe {

enum class Phase : unsigned char {
    kFresh,      // has no stack yet
    kSuspended,  // parked, or waits for one that it resumed
    kRunning,
    kFinished,
    kAbandoned,  // its stack is gone, its frames were not unwound
};

struct PyProbe {
    PyObject_HEAD Context context;
    Stack stack;
    interpreter::SavedState* state;
    PyProbe* resumer;  // continues when this one parks or ends; null: the main flow. Borrowed
    PyObject* function;
    PyObject* inherited;    // contextvars context to start with, or null
    PyObject* transferred;  // value handed over by the switch in progress
    PyObject* exception;    // to be raised where this one continues
    unsigned long identity;
    StackClass size_class;
    Phase phase;
    bool waits_for_resumed;  // suspended because it resumed another one
};

struct Host {
    interpreter::ThreadRecord record;
    interpreter::SavedState main_state;
    Context main_context;
    PyProbe* running = nullptr;  // null: the main flow
};

// The calling thread's, made at the first use and kept until the thread ends.
Host* host();

// Continues `self` with `value` until it parks or ends. Switches. Runs Python.
PyObject* resume(PyProbe* self, PyObject* value);
// Raises `exception` in `self`, starting it if need be. Switches. Runs Python.
PyObject* throw_into(PyProbe* self, PyObject* exception);
// Suspends the running probe; its resumer receives `value`. Switches. Runs Python.
PyObject* park(PyObject* value);
// Drops a suspended probe without unwinding it. Runs Python.
PyObject* abandon(PyProbe* self);

extern PyObject* ProbeExit;  // thrown into unreachable probes

}  // namespace culm::probe
