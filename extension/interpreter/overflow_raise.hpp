// The exception for a fiber that has run out of stack, armed by the fault handler.
//
// It travels in the thread state's async_exc like a PendingRaise, but is put there by code that may have interrupted
// anything, with or without the GIL: words are exchanged atomically and no reference is counted. The class that is
// delivered has references to spare for that, and is replenished when it is constructed.
// What waits in async_exc already, a cancellation say, is moved aside and put back when the class has been constructed.
// If that does not stop the code, because C calls C and the evaluation loop is not reached, the versions that count C
// recursion are told that nothing is left of it: what counts then fails by itself. Whichever of the two exceptions is
// constructed first withdraws the other.
// The fault may have interrupted code that was just counting. Such code then writes its own count over our zero: so
// before the units are given back it is checked that they had really been taken. Invariant: `aside` is a strong
// reference that was async_exc's.
#pragma once

#include "interpreter/cpython_headers.hpp"

namespace culm::interpreter {

struct OverflowRaise {
    PyObject* aside = nullptr;
    int units_taken = 0;      // of C recursion; given back when the stack has shrunk
    int units_at_bottom = 0;  // 3.12 and 3.13: what the fiber began with
    bool wanted = false;      // armed, and not known to be delivered
    bool carried = false;     // wanted, and not in the thread state because the fiber is suspended
    bool is_raised = false;   // it has been constructed, and the evaluation loop has not looked again since
    bool is_watched = false;  // the interpreter itself looks at the stack pointer in the yellow zone, too
};

// What is delivered; set once, with references to spare.
inline PyObject* overflow_class = nullptr;

// Makes the evaluation loop look at async_exc. Async-signal-safe, also without the GIL.
inline void request_raise(PyThreadState* tstate) noexcept {
#if PY_VERSION_HEX >= 0x030D0000
    _Py_set_eval_breaker_bit(tstate, _PY_ASYNC_EXCEPTION_BIT);
#else
    auto& ceval = tstate->interp->ceval;
    __atomic_store_n(&ceval.pending.async_exc, 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&ceval.eval_breaker._value, 1, __ATOMIC_SEQ_CST);
#endif
}

// Null where C recursion is bounded by the stack pointer.
inline int* c_recursion_left([[maybe_unused]] PyThreadState* tstate) noexcept {
#if PY_VERSION_HEX >= 0x030E0000
    return nullptr;
#elif PY_VERSION_HEX >= 0x030C0000
    return &tstate->c_recursion_remaining;
#else
    return &tstate->recursion_remaining;
#endif
}

// What c_recursion_left() is at the bottom of the stack. It differs between fibers from 3.12 on; up to 3.11
// sys.setrecursionlimit() changes it for all.
inline int c_recursion_at_bottom([[maybe_unused]] const PyThreadState* tstate,
                                 [[maybe_unused]] const OverflowRaise& raise) noexcept {
#if PY_VERSION_HEX >= 0x030C0000
    return raise.units_at_bottom;
#else
    return tstate->recursion_limit;
#endif
}

inline bool overflow_is_armed(const PyThreadState* tstate) noexcept {
    return __atomic_load_n(&tstate->async_exc, __ATOMIC_SEQ_CST) == overflow_class;
}
inline bool overflow_is_pending(const PyThreadState* tstate, const OverflowRaise& raise) noexcept {
    return raise.wanted && (raise.carried || overflow_is_armed(tstate));
}

// Takes all C recursion that is left, async-signal-safe; and gives it back.
void take_recursion(PyThreadState* tstate, OverflowRaise& raise) noexcept;
void give_back_recursion(PyThreadState* tstate, OverflowRaise& raise) noexcept;

// For the running fiber. The first is called by the fault handler.
void arm_overflow(PyThreadState* tstate, OverflowRaise& raise, bool again) noexcept;
// The evaluation loop has taken it out of the thread state and is constructing it: false if it was not that.
bool deliver_overflow(PyThreadState* tstate, OverflowRaise& raise) noexcept;
// What is pending leaves with the fiber and comes back with it; or is given up, at its end.
void carry_overflow(PyThreadState* tstate, OverflowRaise& raise) noexcept;
void return_overflow(PyThreadState* tstate, OverflowRaise& raise) noexcept;
void forget_overflow(PyThreadState* tstate, OverflowRaise& raise) noexcept;
// The stack has shrunk.
void end_overflow(PyThreadState* tstate, OverflowRaise& raise) noexcept;

}  // namespace culm::interpreter
