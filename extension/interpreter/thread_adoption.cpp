// Taking an OS thread over for fibers: the same on every version.
//
// Invariant: of all ThreadRecords only the main OS thread's points at _PyRuntime.main_thread; the identity that the
// interpreter notes in its own structures is always the one that pthread_self() gives it.
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
    thread.main_thread_slot = thread.thread_id_slot = &thread.dummy_slot;
    return true;
}

void show_fiber_identities(ThreadRecord& thread, unsigned long running_identity) noexcept {
    if (thread.is_main_thread) thread.main_thread_slot = main_thread_slot();
    thread.thread_id_slot = &thread.tstate->thread_id;
    *thread.main_thread_slot = *thread.thread_id_slot = running_identity;
}

void hide_fiber_identities(ThreadRecord& thread) noexcept {
    thread.main_thread_slot = thread.thread_id_slot = &thread.dummy_slot;
}

void adopt_thread_after_fork(ThreadRecord& thread) noexcept { thread.is_main_thread = true; }

bool has_context(const ThreadRecord& thread) noexcept { return thread.tstate->context != nullptr; }

}  // namespace culm::interpreter
