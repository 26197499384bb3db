// Stacks of strategies other than the arena, promised and reused as StackPool does for the arena's.
//
// Used by one OS thread only; no locks. Stacks are of the size classes, so that a Stack says all about one. Those that
// are mappings of their own share a budget with the guards of the arena on old kernels: together they take at most half
// of the mappings that the process had left when the first of them was made.
// Invariant: of each strategy and class at least as many stacks are free here as are promised and not yet taken.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "culm/result.hpp"
#include "culm/stack.hpp"
#include "culm/stack_strategy.hpp"

namespace culm {

// Which strategy a stack is of, in a byte: its place in stack_strategies(). 0 is the arena.
using StrategyIndex = std::uint8_t;
inline constexpr StrategyIndex kArenaIndex = 0;
// EINVAL for a strategy that is not in that list: no fiber can run on its stacks.
Result<StrategyIndex> strategy_index(const StackStrategy& strategy) noexcept;

// What fibers get that ask for no strategy: the arena, or under strict overcommit, where the arena cannot reserve, the
// one that is charged for what it uses only.
StackStrategy& default_stack_strategy() noexcept;

class StrategyPool {
public:
    StrategyPool() = default;
    ~StrategyPool();  // destroys the free stacks; those that are taken stay for good
    StrategyPool(const StrategyPool&) = delete;
    StrategyPool& operator=(const StrategyPool&) = delete;

    // As StackPool: promise, give the promise back, redeem it, return the stack.
    Result<void> reserve(StrategyIndex strategy, StackClass size_class) noexcept;
    void unreserve(StrategyIndex strategy, StackClass size_class) noexcept;
    Stack take(StrategyIndex strategy, StackClass size_class) noexcept;
    void put(StrategyIndex strategy, Stack stack) noexcept;
    // Destroys the free stacks that are not promised.
    void trim() noexcept;

private:
    struct Shelf {
        StrategyIndex strategy = kArenaIndex;
        StackClass size_class = kDefaultStackClass;
        std::size_t reserved = 0;
        std::size_t taken = 0;
        std::vector<StrategyStack> free;  // with room for all that are taken; the last is the warmest
    };

    Shelf* find(StrategyIndex strategy, StackClass size_class) noexcept;
    static void destroy_first(Shelf& shelf, std::size_t count) noexcept;

    std::vector<Shelf> shelves_;  // few: one for each pair that was ever used
};

}  // namespace culm
