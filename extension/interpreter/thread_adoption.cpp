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
    thread.is_main_thread = *main_thread_slot() == thread.identity;
    thread.main_thread_slot = &thread.dummy_slot;
    return true;
}

void show_fiber_identities(ThreadRecord& thread, unsigned long running_identity) noexcept {
    if (!thread.is_main_thread) return;
    thread.main_thread_slot = main_thread_slot();
    *thread.main_thread_slot = running_identity;
}

void adopt_thread_after_fork(ThreadRecord& thread) noexcept { thread.is_main_thread = true; }

bool has_context(const ThreadRecord& thread) noexcept { return thread.tstate->context != nullptr; }

}  // namespace culm::interpreter
