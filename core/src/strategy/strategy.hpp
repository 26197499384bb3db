// What the ways of allocating a stack have in common: errors, rounding, mapping and discarding.
//
// Each strategy is one file; it defines a final class in an unnamed namespace, with its traits as a constant, and one
// function that returns the only object. Those that a fiber may run on are here; the others, which are there to be
// measured, are in lab/strategies and use this header too. Invariant: those objects are never destroyed.
#pragma once

#include <cstddef>
#include <span>

#include "culm/kernel.hpp"
#include "culm/residency.hpp"
#include "culm/stack_strategy.hpp"
#include "os/os.hpp"

namespace culm::strategy {

StackStrategy& arena() noexcept;
StackStrategy& lazy_mmap() noexcept;
StackStrategy& fault_handler() noexcept;
StackStrategy& heap() noexcept;

inline std::size_t round_up(std::size_t bytes, std::size_t unit) noexcept { return (bytes + unit - 1) / unit * unit; }

inline std::byte* page_floor(const void* address) noexcept {
    const std::uintptr_t page_bytes = kernel_features().page_bytes;
    return reinterpret_cast<std::byte*>(reinterpret_cast<std::uintptr_t>(address) / page_bytes * page_bytes);
}

// The error of a strategy that could not make a stack. The kernel answers ENOMEM whether memory, addresses or mappings
// have run out, so the advice names all three.
inline Error no_stack(int error) noexcept {
    return {error, "make a stack",
            "use a smaller limit or fewer stacks, or raise what has run out: vm.max_map_count (mappings), ulimit -v "
            "(address space), or memory"};
}

// The end of what a suspended stack does not need: below its red zone and one spare page, which stays so that the next
// call does not fault. Null when nothing lies below that.
inline std::byte* discard_end(const SuspendedStrategyStack& suspended) noexcept {
    const auto* sp = static_cast<const std::byte*>(suspended.sp);
    const StrategyStack& stack = *suspended.stack;
    if (sp < stack.limit() || sp >= stack.base) return nullptr;
    std::byte* end = page_floor(sp - kRedZoneBytes) - kernel_features().page_bytes;
    return end > stack.limit() ? end : nullptr;
}

// Discards what suspended stacks do not use, many ranges at a time. Returns how many there were.
std::size_t discard_unused(std::span<const SuspendedStrategyStack> stacks) noexcept;

// A mapping per stack: a guard that may be empty, then the stack. Null on failure.
std::byte* map_stack(std::size_t limit_bytes, std::size_t guard_bytes, int& error) noexcept;

}  // namespace culm::strategy
