// Where stacks come from: large reservations, carved into slots of one stride, each with a guard below it.
//
//   chunk: | pad | guard 0 | slot 0 | guard 1 | slot 1 | guard 2 | slot 2 | ...
//                 <---- stride ---->
//
// What is called guard here includes the yellow zone, its upper end, which is closed by the same call and can be opened
// by itself. The stride is limit + guard rounded up to an odd number of pages (the rounding goes below), so that bases
// fall on a 2 MB boundary at most once in 512 slots: a guard shares its page-table page with the stack below it, and
// the stack bases spread over the TLB and cache sets. One arena per size class, shared by all OS threads, guarded by a
// mutex; the pools in front of it are per thread. Invariant: a slot that was handed out or lies on the free list has
// its guard; only yellow zones are ever opened.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "culm/result.hpp"
#include "culm/stack.hpp"

namespace culm {

struct ArenaStatistics {
    std::size_t reserved_bytes = 0;  // address space
    std::size_t chunks = 0;
    std::size_t slots_carved = 0;  // slots that have a guard
    std::size_t slots_free = 0;    // carved and neither in use nor in a pool
    std::size_t stride_bytes = 0;
    std::size_t guard_bytes = 0;   // below each stack, its yellow zone included
    std::size_t yellow_bytes = 0;  // of these, next to the stack
};

class StackArena {
public:
    // The process-wide arena of a class. Thread-safe.
    static StackArena& of(StackClass size_class) noexcept;

    // Fills `out` with guarded stacks, from the free list first, carving (and reserving) more when it is empty.
    // All or nothing: on error none is taken. ENOMEM when address space or mappings run out. Thread-safe.
    Result<void> take(std::span<Stack> out) noexcept;

    // Takes stacks back. Their memory should already have been discarded. Thread-safe, never fails.
    void give_back(std::span<const Stack> stacks) noexcept;

    ArenaStatistics statistics() const noexcept;

    StackArena(const StackArena&) = delete;
    StackArena& operator=(const StackArena&) = delete;

private:
    StackArena() = default;
    struct State;
    struct All;
    State* state_ = nullptr;
};

// If `address` lies in the guard or the yellow zone of some stack, that stack; otherwise an empty one.
// Async-signal-safe.
Stack stack_of_guard_address(const void* address) noexcept;
// If `address` lies in a stack, that stack; otherwise an empty one. Async-signal-safe.
Stack stack_of_address(const void* address) noexcept;

}  // namespace culm
