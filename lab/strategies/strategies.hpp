// The ways of allocating a stack that are there to be measured: those of core, which a program may spawn on, and those
// of the lab, which it may not.
//
// The lab's have a fault that a program cannot live with: no guard, a size that is fixed or fails, pointers that do not
// stay valid, a child of fork that cannot go on. They stand behind the same interface as core's, so that both are
// measured and tested alike. Invariant: these objects are never destroyed.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "culm/stack_strategy.hpp"

namespace culm::lab::strategies {

// Core's strategies, the default first, then the lab's.
std::span<StackStrategy* const> all() noexcept;
// The one of that name, or null.
StackStrategy* find(std::string_view id) noexcept;
// "arena, mmap, ...": the names of all, for messages.
std::string ids();

// The same strategy with the memory of its stacks locked as it arrives (MLOCK_ONFAULT): never swapped out.
// There is one such object for each of all().
StackStrategy& locked_on_fault(StackStrategy& strategy) noexcept;

StackStrategy& bare_mmap() noexcept;
StackStrategy& fault_thread() noexcept;
StackStrategy& growsdown() noexcept;
StackStrategy& one_block() noexcept;
StackStrategy& userfaultfd() noexcept;
StackStrategy& copying() noexcept;
StackStrategy& fixed_small() noexcept;

}  // namespace culm::lab::strategies
