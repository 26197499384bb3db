// How much of a stack is in memory, and giving back what is not needed.
//
// Reads /proc/self/pagemap (PAGEMAP_SCAN where the kernel has it, mincore where /proc is missing) and discards with
// MADV_DONTNEED, in vectors where the kernel takes them. The pagemap descriptor is opened again after fork, because it
// stays bound to the memory of the process that opened it.
// Invariant: nothing at or above sp - kRedZoneBytes of a suspended stack is ever discarded.
#pragma once

#include <cstddef>
#include <span>

#include "culm/result.hpp"
#include "culm/stack.hpp"

namespace culm {

inline constexpr std::size_t kRedZoneBytes = 128;

struct Residency {
    std::size_t resident_bytes = 0;  // pages present in [limit, base)
    std::size_t depth_bytes =
        0;  // base minus the lowest present page: how deep the stack has been since its last discard
};

Result<Residency> stack_residency(const Stack& stack) noexcept;

// Calls visit(context, start, bytes) for each run of present pages, in address order. Neighbouring runs may come in
// pieces. After an error what was visited is incomplete. `visit` must not touch the stack.
using VisitPresent = void (*)(void* context, const std::byte* start, std::size_t bytes);
Result<void> visit_present(const Stack& stack, VisitPresent visit, void* context) noexcept;

// A suspended stack and where it is suspended.
struct SuspendedStack {
    Stack stack;
    const void* sp = nullptr;
    std::size_t depth_bytes = 0;  // nothing deeper is present; 0: not known
};

struct SuspendedUse {
    Residency residency;
    std::size_t excess_bytes =
        0;  // present, and not needed where the stack is suspended: what discard_below gives back
};

// Fills uses[i] for stacks[i], which are in address order: neighbours in the arena share a system call. Touches none.
// On an error (no /proc and no mincore) the uses say nothing.
Result<void> measure_suspended(std::span<const SuspendedStack> stacks, std::span<SuspendedUse> uses) noexcept;

struct Discarded {
    std::size_t ranges = 0;   // given to the kernel
    std::size_t refused = 0;  // of these, kept by it: locked memory
};

// Discards, for each stack, the pages below sp - kRedZoneBytes - one spare page. Never fails.
Discarded discard_below(std::span<const SuspendedStack> stacks) noexcept;

// Where such a discard ends: the lowest byte that is kept. `limit` when there is nothing to discard.
std::byte* discard_end(const SuspendedStack& suspended) noexcept;

}  // namespace culm
