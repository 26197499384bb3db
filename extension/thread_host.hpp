// What the module keeps for each OS thread that runs fibers: its scheduler, its interpreter record and the saved state
// of its own flow of control (the main fiber).
//
// Made by the first use on a thread, taken down when the thread ends (a capsule in the thread state's dict) or when the
// interpreter exits (atexit).
// Invariant: thread_host is set exactly while the thread's scheduler exists, and only its own thread touches it, with
// the GIL held, except inside the embedder's Idling functions, around an idle poll.
#pragma once

#include <Python.h>

#include <vector>

#include "culm/runtime/embedder.hpp"
#include "culm/runtime/scheduler.hpp"
#include "interpreter/interpreter.hpp"

namespace culm::extension {

struct PyFiber;

struct ThreadHost {
    interpreter::ThreadRecord record;
    interpreter::SavedState main_state;
    runtime::Scheduler* scheduler = nullptr;
    PyFiber* main = nullptr;             // strong; made with the host
    PyFiber* result_for_main = nullptr;  // borrowed: the fiber whose outcome the main fiber waits for, else null
    // References to drop on the side that continues after a switch. One in the common case.
    PyObject* drop_after_switch = nullptr;
    std::vector<PyObject*> drop_more;
    PyFiber* forking = nullptr;  // in a forked child without its main fiber: the fiber whose end is the child's
    bool closing = false;        // no new fibers: the thread or the interpreter is ending
};

inline constinit thread_local ThreadHost* thread_host = nullptr;

// The calling thread's host, made if need be. Null with an exception set (ImportError in a sub-interpreter, OSError).
ThreadHost* ensure_thread_host();

// Takes `object`'s reference over and drops it after the next switch away from the caller, or in flush_drops.
inline void drop_later(ThreadHost& host, PyObject* object) {
    if (host.drop_after_switch == nullptr) {
        host.drop_after_switch = object;
        return;
    }
    host.drop_more.push_back(object);
}

// Drops what drop_later collected. Runs Python.
void flush_drops_slow(ThreadHost& host);
inline void flush_drops(ThreadHost& host) {
    if (host.drop_after_switch != nullptr) flush_drops_slow(host);
}

// Where the interpreter state of a fiber with a stack of its own is saved, whatever thread looks.
inline interpreter::SavedState& saved_state(const runtime::Fiber& fiber) noexcept {
    return *reinterpret_cast<interpreter::SavedState*>(fiber.host_area_end() - sizeof(interpreter::SavedState));
}

// The same for any fiber of this thread, the main one included.
inline interpreter::SavedState& saved_state(ThreadHost& host, runtime::Fiber& fiber) noexcept {
    if (fiber.is_main()) return host.main_state;
    return saved_state(fiber);
}

// How a fiber is unwound when its thread or the interpreter ends: FiberExit is raised in it. Those that stand for
// threads are spared when the interpreter exits. When and how often, the runtime decides (culm/runtime/unwinding.hpp).
runtime::Unwinding unwinding_roles() noexcept;

// For atexit: unwinds the fibers of this thread, and reports exceptions that nobody took. Runs Python.
PyObject* shut_down(PyObject* module, PyObject* unused);

}  // namespace culm::extension
