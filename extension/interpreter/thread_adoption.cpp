// Taking an OS thread over for fibers: the same on every version.
//
// Invariant: of all ThreadRecords only the main OS thread's points at _PyRuntime.main_thread.
// The internal headers must come before Python.h.
#include "interpreter/cpython_headers.hpp"

#include "interpreter/interpreter.hpp"
#include "interpreter/runtime_layout.hpp"

namespace culm::interpreter {

bool adopt_thread(ThreadRecord& thread) {
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_ImportError, "culm does not run in a sub-interpreter: import it in the main interpreter");
        return false;
    }
    thread.tstate = PyThreadState_Get();
    thread.identity = PyThread_get_thread_ident();
    thread.main_thread_slot = *main_thread_slot() == thread.identity ? main_thread_slot() : &thread.dummy_slot;
    return true;
}

void adopt_thread_after_fork(ThreadRecord& thread) noexcept { thread.main_thread_slot = main_thread_slot(); }

bool has_context(const ThreadRecord& thread) noexcept { return thread.tstate->context != nullptr; }

}  // namespace culm::interpreter
