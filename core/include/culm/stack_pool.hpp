// A per-thread LIFO of stacks in front of the arena: the stack used last is the warmest.
//
// A fiber reserves its stack when it is spawned and takes it when it starts, so that running out is an error of spawn,
// while fibers that start and finish one after the other all use the same warm stack.
// Used by one OS thread only; no locks.
// Invariant: free_ of each class holds at least as many stacks as are reserved and not yet taken.
#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include "culm/result.hpp"
#include "culm/stack.hpp"

namespace culm {

struct PoolStatistics {
    std::size_t stacks_free = 0;      // in the pool
    std::size_t stacks_reserved = 0;  // promised to fibers that have not started
    std::size_t stacks_taken = 0;     // in use
    std::size_t warm_bytes = 0;       // estimate of resident bytes on free stacks
};

class StackPool {
public:
    StackPool() = default;
    ~StackPool();  // discards and returns every free stack to the arena; asserts that none is taken
    StackPool(const StackPool&) = delete;
    StackPool& operator=(const StackPool&) = delete;

    // Promises one stack of the class. ENOMEM when none can be had; nothing has changed then.
    Result<void> reserve(StackClass size_class) noexcept;
    // Gives the promise back unused.
    void unreserve(StackClass size_class) noexcept;
    // Redeems a promise. Cannot fail. LIFO.
    Stack take(StackClass size_class) noexcept;
    // Takes the stack back. `touched_limit` is the lowest address that may have been used (nullptr: unknown).
    // Keeps at most kWarmPages below base per stack and at most warm_bytes_max in all; the rest is discarded in batches.
    void put(Stack stack, const std::byte* touched_limit) noexcept;
    // Discards the memory of all free stacks.
    void trim() noexcept;

    PoolStatistics statistics(StackClass size_class) const noexcept;

    std::size_t warm_bytes_max = std::size_t{64} << 20;

private:
    // (private members are the implementer's)
};

}  // namespace culm
