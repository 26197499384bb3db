// An exception that is to be raised in one fiber at the next check of the evaluation loop.
//
// It travels in the thread state's async_exc, as PyThreadState_SetAsyncExc does it, but belongs to one fiber: if that
// fiber is switched away before the exception is delivered, it is taken out of the thread state and put back when the
// fiber continues. Exceptions that others put there stay with the OS thread.
// Invariant: `exception` is a strong reference while a raise is wanted; when `taken`, a second reference, the thread
// state's, is held too.
#pragma once

#include "interpreter/cpython_headers.hpp"

namespace culm::interpreter {

struct PendingRaise {
    PyObject* exception = nullptr;  // what was put into async_exc: an exception class
    bool taken = false;             // not in the thread state: to be put back by after_switch
};

// async_exc has been emptied by us. The evaluation loop of 3.11 and 3.12 stops looking for an exception only when it
// finds one: until then every check takes its slow path, and in 3.11 a traced function never gets past its first check.
// Other threads ask again when they take the GIL.
inline void forget_raise_request([[maybe_unused]] PyThreadState* tstate) noexcept {
#if PY_VERSION_HEX < 0x030D0000
    auto& ceval = tstate->interp->ceval;
    ceval.pending.async_exc = 0;
    int others =
        _PyRuntime.ceval.signals_pending._value | ceval.gil_drop_request._value | ceval.pending.calls_to_do._value;
#if PY_VERSION_HEX >= 0x030C0000
    others |= ceval.gc_scheduled._value | _PyRuntime.ceval.pending_mainthread.calls_to_do._value;
#endif
    if (others == 0) ceval.eval_breaker._value = 0;
#endif
}

// In switch_state, for the fiber that is left.
inline void take_pending_raise(PyThreadState* tstate, PendingRaise& pending) noexcept {
    if (pending.exception == nullptr) [[likely]]
        return;
    if (pending.taken || tstate->async_exc != pending.exception) return;
    tstate->async_exc = nullptr;
    forget_raise_request(tstate);
    pending.taken = true;
}

// For the fiber that continues: arms again what was taken, forgets what was delivered.
void resume_pending_raise(PyThreadState* tstate, PendingRaise& pending) noexcept;

// For the running fiber. `exception` is a class or an instance (borrowed), null withdraws what is pending.
void set_pending_raise(PyThreadState* tstate, PendingRaise& pending, PyObject* exception) noexcept;

// For the running fiber: withdraws what is pending and returns it (a class, new reference); null if nothing was, or if
// it has been delivered.
PyObject* withdraw_pending_raise(PyThreadState* tstate, PendingRaise& pending) noexcept;

// For a suspended fiber that will never run again.
void drop_pending_raise(PendingRaise& pending) noexcept;

int visit_pending_raise(const PendingRaise& pending, visitproc visit, void* arg);

}  // namespace culm::interpreter
