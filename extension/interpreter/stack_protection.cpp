// Calibration of the C-stack limits against the running interpreter. See stack_protection.hpp.
#include "interpreter/stack_protection.hpp"

#include <array>
#include <cassert>
#include <cstring>

#include "interpreter/runtime_layout.hpp"

// 3.14.0 lacks it: then the address is null, which calibration reports, instead of the module failing to load.
#pragma weak PyUnstable_ThreadState_SetStackProtection

namespace culm::interpreter {

namespace {

// The members after `base` have moved by one word so far; this many words each way are looked at. All of them lie
// inside the thread state, whose tail is longer.
constexpr std::ptrdiff_t kShiftWordsMax = 6;
constexpr std::size_t kTrialBytes[2] = {std::size_t{1} << 20, std::size_t{2} << 20};

std::size_t margin_bytes_ = 0;
bool skips_half_ = false;  // an interpreter built with ThreadSanitizer leaves the lower half of a stack unused

_PyThreadStateImpl* shifted(PyThreadState* tstate, std::ptrdiff_t words) {
    return reinterpret_cast<_PyThreadStateImpl*>(reinterpret_cast<char*>(tstate) +
                                                 words * static_cast<std::ptrdiff_t>(sizeof(std::uintptr_t)));
}

// A stack that holds the caller's frame, so that checks of the stack pointer made meanwhile hold.
struct Trial {
    std::uintptr_t limit;
    std::size_t bytes;
    StackProtection set{};
};

bool apply(PyThreadState* tstate, Trial& trial) {
    if (PyUnstable_ThreadState_SetStackProtection(tstate, reinterpret_cast<void*>(trial.limit), trial.bytes) != 0)
        return false;
    save_stack_protection(trial.set, shifted_thread_state(tstate));
    return true;
}

// The shift at which the top of the stack that was just set is found, with limits inside that stack. kShiftWordsMax + 1
// if there is none.
std::ptrdiff_t search(PyThreadState* tstate, const Trial& trial) {
    for (std::ptrdiff_t shift = -kShiftWordsMax; shift <= kShiftWordsMax; ++shift) {
        StackProtection words;
        save_stack_protection(words, shifted(tstate, shift));
        const bool ordered = trial.limit < words.hard_limit && words.hard_limit < words.soft_limit;
        if (words.top == trial.limit + trial.bytes && ordered && words.soft_limit < words.top) return shift;
    }
    return kShiftWordsMax + 1;
}

bool derive_rule(const Trial& small, const Trial& large) {
    const std::size_t hard[2] = {small.set.hard_limit - small.limit, large.set.hard_limit - large.limit};
    margin_bytes_ = small.set.soft_limit - small.set.hard_limit;
    skips_half_ = hard[0] != hard[1];
    for (int i = 0; i < 2; ++i) {
        const std::size_t skipped = skips_half_ ? kTrialBytes[i] / 2 : 0;
        if (hard[i] != skipped + margin_bytes_) return false;
    }
    return large.set.soft_limit - large.set.hard_limit == margin_bytes_;
}

bool run_trials(PyThreadState* tstate) {
    const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0)) & ~std::uintptr_t{4095};
    Trial trials[2] = {{here - kTrialBytes[0] * 3 / 4, kTrialBytes[0]},
                       {here - kTrialBytes[1] * 3 / 4, kTrialBytes[1]}};
    if (!apply(tstate, trials[0])) return false;
    const std::ptrdiff_t shift = search(tstate, trials[0]);
    if (shift > kShiftWordsMax) return false;
    thread_state_shift = shift * static_cast<std::ptrdiff_t>(sizeof(std::uintptr_t));
    return apply(tstate, trials[0]) && apply(tstate, trials[1]) && derive_rule(trials[0], trials[1]);
}

}  // namespace

bool calibrate_stack_protection(PyThreadState* tstate) {
    if (PyUnstable_ThreadState_SetStackProtection == nullptr) {
        PyErr_Format(PyExc_ImportError, "culm needs CPython 3.14.1 or later; this is %s", Py_GetVersion());
        return false;
    }
    constexpr std::ptrdiff_t kWord = sizeof(std::uintptr_t);
    std::array<char, (2 * kShiftWordsMax + 3) * kWord> before;
    char* window = reinterpret_cast<char*>(&shifted(tstate, -kShiftWordsMax)->c_stack_top);
    std::memcpy(before.data(), window, before.size());
    const bool found = run_trials(tstate);
    std::memcpy(window, before.data(), before.size());
    if (!found) PyErr_Clear();
    return check_fields({{"the C stack's limits", found}});
}

// The interpreter looks at two margins below its soft limit and ends the process below its hard one. A fiber has a
// yellow zone and a guard for that: its hard limit lies where the interpreter no longer looks, with room for the
// function that compares, which runs a little below the one that looked.
StackProtection stack_protection_for(const std::byte* limit, const std::byte* base) noexcept {
    const auto top = reinterpret_cast<std::uintptr_t>(base);
    auto lowest = reinterpret_cast<std::uintptr_t>(limit);
    if (skips_half_) lowest += (top - lowest) / 2;
    const std::size_t size = top - lowest;
    const std::uintptr_t soft = size < deallocation_needs_bytes() ? lowest + size / 4 : lowest + 2 * margin_bytes_;
    return {top, soft, soft - 3 * margin_bytes_};
}

// The interpreter destroys what it deferred only with four margins left above the soft limit; one for the caller. With
// less than two left, `except (A, B)` does not match either: on a stack of 64 KB that is everywhere, so stacks below
// this size keep a quarter as reserve, not two margins.
std::size_t deallocation_needs_bytes() noexcept { return 7 * margin_bytes_; }

}  // namespace culm::interpreter
