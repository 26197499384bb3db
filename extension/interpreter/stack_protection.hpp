// 3.14 and later: the addresses between which the interpreter believes the C stack to be.
//
// The interpreter compares the stack pointer with three words of the thread state: below the soft limit it raises
// RecursionError, below the hard one it aborts, and near them it defers deallocation. They are set through a public
// function, but lie in a part of the thread state that moves between patch releases. They are found once, at import, by
// setting known limits and looking where they went; a switch then copies three words.
// Invariant: after calibrate() the words of the calling thread are what they were before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "interpreter/cpython_headers.hpp"

namespace culm::interpreter {

struct StackProtection {
    std::uintptr_t top = 0;
    std::uintptr_t soft_limit = 0;
    std::uintptr_t hard_limit = 0;
};

// Finds the words and how they follow from a stack's limits. False: an ImportError is set.
bool calibrate_stack_protection(PyThreadState* tstate);

// What the interpreter would set for the stack [limit, base).
StackProtection stack_protection_for(const std::byte* limit, const std::byte* base) noexcept;

// With less than this above the limit of its stack, the interpreter defers deallocating containers to a time when more
// stack is free, which for so small a stack never comes.
std::size_t deallocation_needs_bytes() noexcept;

// How much further than compiled the members of _PyThreadStateImpl after `base` lie, in bytes.
inline constinit std::ptrdiff_t thread_state_shift = 0;

inline _PyThreadStateImpl* shifted_thread_state(PyThreadState* tstate) noexcept {
    return reinterpret_cast<_PyThreadStateImpl*>(reinterpret_cast<char*>(tstate) + thread_state_shift);
}

static_assert(offsetof(_PyThreadStateImpl, c_stack_soft_limit) == offsetof(_PyThreadStateImpl, c_stack_top) + 8);
static_assert(offsetof(_PyThreadStateImpl, c_stack_hard_limit) == offsetof(_PyThreadStateImpl, c_stack_top) + 16);

[[gnu::always_inline]] inline void save_stack_protection(StackProtection& words,
                                                         const _PyThreadStateImpl* tstate) noexcept {
    std::memcpy(static_cast<void*>(&words), &tstate->c_stack_top, sizeof(words));
}

[[gnu::always_inline]] inline void load_stack_protection(const StackProtection& words,
                                                         _PyThreadStateImpl* tstate) noexcept {
    std::memcpy(&tstate->c_stack_top, &words, sizeof(words));
}

}  // namespace culm::interpreter
