// Arming and withdrawing the exception of a stack that has overflown. See overflow_raise.hpp.
//
// Invariant: arm_overflow allocates nothing, counts no reference and takes no lock.
#include "interpreter/overflow_raise.hpp"

#include <cassert>

#include "interpreter/saved_words.hpp"

namespace culm::interpreter {

namespace {

void put_in(PyThreadState* tstate, OverflowRaise& raise) noexcept {
    PyObject* before = __atomic_exchange_n(&tstate->async_exc, overflow_class, __ATOMIC_SEQ_CST);
    if (before != overflow_class) raise.aside = before;
    request_raise(tstate);
}

// The opposite of put_in(), unless the exception has been delivered in the meantime.
void take_out(PyThreadState* tstate, OverflowRaise& raise) noexcept {
    PyObject* expected = overflow_class;
    PyObject* aside = raise.aside;
    if (!__atomic_compare_exchange_n(&tstate->async_exc, &expected, aside, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
        return;
    }
    raise.aside = nullptr;
    if (aside == nullptr) forget_raise_request(tstate);
}

}  // namespace

void give_back_recursion(PyThreadState* tstate, OverflowRaise& raise) noexcept {
    int* left = c_recursion_left(tstate);
    if (left == nullptr) return;
    // If that made more than the fiber began with, the interrupted code has overwritten our zero: nothing was taken.
    if (raise.units_taken <= c_recursion_at_bottom(tstate, raise) - *left) *left += raise.units_taken;
    raise.units_taken = 0;
}

void take_recursion(PyThreadState* tstate, OverflowRaise& raise) noexcept {
    int* left = c_recursion_left(tstate);
    if (left == nullptr) return;
    give_back_recursion(tstate, raise);  // of an earlier overflow that has not ended yet
    if (*left <= 0) return;
    raise.units_taken = *left;
    *left = 0;
}

void arm_overflow(PyThreadState* tstate, OverflowRaise& raise, bool again) noexcept {
    if (raise.is_watched) return;  // the interpreter raises an exception by itself: there must not be two
    if (raise.is_raised) return;   // it has been constructed, and what raises it needs this part of the zone
    const bool is_armed = overflow_is_armed(tstate);
    if (raise.wanted && !is_armed) return;  // it is about to be constructed
    raise.wanted = true;
    if (!is_armed) put_in(tstate, raise);
    if (again) take_recursion(tstate, raise);
}

bool deliver_overflow(PyThreadState* tstate, OverflowRaise& raise) noexcept {
    if (!raise.wanted || raise.carried || overflow_is_armed(tstate)) return false;
    raise.wanted = false;
    give_back_recursion(tstate, raise);
    raise.is_raised = true;
    Py_INCREF(overflow_class);  // replaces the reference that the evaluation loop is about to drop
    PyObject* aside = raise.aside;
    raise.aside = nullptr;
    if (aside == nullptr) return true;
    PyObject* none = nullptr;
    if (__atomic_compare_exchange_n(&tstate->async_exc, &none, aside, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
        request_raise(tstate);
    } else {
        Py_DECREF(aside);  // somebody has asked for another one since
    }
    return true;
}

void carry_overflow(PyThreadState* tstate, OverflowRaise& raise) noexcept {
    if (!overflow_is_pending(tstate, raise)) return;
    assert(!raise.carried);
    take_out(tstate, raise);
    raise.carried = true;
}

void return_overflow(PyThreadState* tstate, OverflowRaise& raise) noexcept {
    if (!raise.carried) return;
    raise.carried = false;
    put_in(tstate, raise);
}

void forget_overflow(PyThreadState* tstate, OverflowRaise& raise) noexcept {
    end_overflow(tstate, raise);
    if (!overflow_is_pending(tstate, raise)) return;  // delivered, but perhaps not constructed yet
    if (!raise.carried) take_out(tstate, raise);
    raise.wanted = false;
    raise.carried = false;
}

void end_overflow(PyThreadState* tstate, OverflowRaise& raise) noexcept {
    give_back_recursion(tstate, raise);
    raise.is_raised = false;
}

// --- what interpreter.hpp declares ---

namespace {

// More than can ever be used up. A reference is lost when an exception is delivered and never constructed, which only
// 3.11 does.
constexpr Py_ssize_t kSpareReferences = Py_ssize_t{1} << 24;

OverflowRaise& raise_of(SavedState& state) noexcept { return words_of<CommonWords>(state).overflow_raise; }

}  // namespace

void set_overflow_exception(PyObject* exception_class) noexcept {
    assert(overflow_class == nullptr);
    Py_SET_REFCNT(exception_class, Py_REFCNT(exception_class) + kSpareReferences);
    overflow_class = exception_class;
}

void overflow_soon(ThreadRecord& thread, SavedState& state, bool again) noexcept {
    arm_overflow(thread.tstate, raise_of(state), again);
}

bool overflow_delivered(ThreadRecord& thread, SavedState& state) noexcept {
    if (!deliver_overflow(thread.tstate, raise_of(state))) return false;
    resume_pending_raise(thread.tstate, words_of<CommonWords>(state).pending_raise);
    return true;
}

// An interpreter that looks at the stack pointer raises near the limit, and may come to the zone while it raises. That
// is no second overflow.
bool overflow_replaced(ThreadRecord& thread, SavedState& state, bool has_overflown) noexcept {
    OverflowRaise& raise = raise_of(state);
    const bool by_address = c_recursion_left(thread.tstate) == nullptr;
    const bool was_wanted = raise.units_taken > 0 || overflow_is_pending(thread.tstate, raise);
    if (by_address || was_wanted) raise.is_raised = true;
    if (!was_wanted) return has_overflown && raise.is_watched;
    give_back_recursion(thread.tstate, raise);
    if (overflow_is_pending(thread.tstate, raise)) take_out(thread.tstate, raise);
    raise.wanted = false;
    return true;
}

bool overflow_pending(const ThreadRecord& thread, SavedState& state) noexcept {
    return overflow_is_pending(thread.tstate, raise_of(state));
}

void overflow_leaves(ThreadRecord& thread, SavedState& state) noexcept {
    carry_overflow(thread.tstate, raise_of(state));
}

void overflow_returns(ThreadRecord& thread, SavedState& state) noexcept {
    return_overflow(thread.tstate, raise_of(state));
}

void overflow_ended(ThreadRecord& thread, SavedState& state) noexcept { end_overflow(thread.tstate, raise_of(state)); }

void overflow_raised(SavedState& state) noexcept { raise_of(state).is_raised = false; }

void overflow_given_up(ThreadRecord& thread, SavedState& state) noexcept {
    forget_overflow(thread.tstate, raise_of(state));
}

}  // namespace culm::interpreter
