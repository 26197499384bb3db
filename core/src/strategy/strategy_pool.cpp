// Shelves of stacks by strategy and size class.
//
// Invariant: the mappings of every stack that a pool has made are charged to the budget until it is destroyed.
#include "culm/strategy_pool.hpp"

#include <algorithm>
#include <cassert>
#include <cerrno>

#include "culm/check.hpp"
#include "culm/kernel.hpp"
#include "stack/capacity.hpp"
#include "stack/mapping_budget.hpp"
#include "strategy/strategy.hpp"

namespace culm {

namespace {

constexpr std::size_t kFreeMax = 64;   // unpromised free stacks of a shelf
constexpr std::size_t kWarmPages = 4;  // that a free stack keeps

StackStrategy& strategy_at(StrategyIndex index) noexcept {
    const auto all = stack_strategies();
    check(index < all.size(), "StrategyPool takes indexes that strategy_index() gave, and this is none of them");
    return *all[index];
}

Result<void> charge_mappings(const StackStrategy& strategy) noexcept {
    if (stack::charge_mappings(strategy.traits().mappings_per_stack)) return {};
    return Error{ENOMEM, "make a stack",
                 "each stack of this strategy takes two mappings, and stacks already have half of those that "
                 "vm.max_map_count left them: raise it, run fewer fibers at once, or use the arena"};
}

void refund_mappings(const StackStrategy& strategy, std::size_t stacks) noexcept {
    stack::refund_mappings(stacks * strategy.traits().mappings_per_stack);
}

}  // namespace

StackStrategy& default_stack_strategy() noexcept {
    return kernel_features().overcommit_mode == 2 ? strategy::fault_handler() : strategy::arena();
}

StrategyPool::~StrategyPool() {
    for (Shelf& shelf : shelves_) destroy_first(shelf, shelf.free.size());
}

StrategyPool::Shelf* StrategyPool::find(StrategyIndex strategy, StackClass size_class) noexcept {
    const auto found = std::find_if(shelves_.begin(), shelves_.end(), [&](const Shelf& shelf) {
        return shelf.strategy == strategy && shelf.size_class == size_class;
    });
    return found == shelves_.end() ? nullptr : &*found;
}

Result<void> StrategyPool::reserve(StrategyIndex strategy, StackClass size_class) noexcept {
    Shelf* shelf = find(strategy, size_class);
    if (shelf == nullptr) {
        if (!stack::ensure_capacity(shelves_, shelves_.size() + 1)) return strategy::no_stack(ENOMEM);
        shelf = &shelves_.emplace_back();
        shelf->strategy = strategy;
        shelf->size_class = size_class;
    }
    if (shelf->free.size() == shelf->reserved) {
        StackStrategy& maker = strategy_at(strategy);
        if (!stack::ensure_capacity(shelf->free, shelf->free.size() + shelf->taken + 1)) {
            return strategy::no_stack(ENOMEM);
        }
        if (Result<void> charged = charge_mappings(maker); !charged) return charged;
        StrategyStack made;
        const Result<void> created = maker.create(stack_limit_bytes(size_class), std::span(&made, 1));
        if (!created) {
            refund_mappings(maker, 1);
            return created;
        }
        assert(made.record == nullptr);
        shelf->free.push_back(made);
    }
    ++shelf->reserved;
    return {};
}

void StrategyPool::unreserve(StrategyIndex strategy, StackClass size_class) noexcept {
    Shelf* shelf = find(strategy, size_class);
    check(shelf != nullptr && shelf->reserved > 0,
          "StrategyPool::unreserve() without a promise: give back only what reserve() of this pool has promised");
    --shelf->reserved;
}

Stack StrategyPool::take(StrategyIndex strategy, StackClass size_class) noexcept {
    Shelf* shelf = find(strategy, size_class);
    check(shelf != nullptr && shelf->reserved > 0,
          "StrategyPool::take() without a promise: call reserve() first, once for each take()");
    const StrategyStack taken = shelf->free.back();
    shelf->free.pop_back();
    --shelf->reserved;
    ++shelf->taken;
    return {taken.base, size_class};
}

void StrategyPool::put(StrategyIndex strategy, Stack stack) noexcept {
    Shelf* shelf = find(strategy, stack.size_class);
    check(
        shelf != nullptr && shelf->taken > 0,
        "StrategyPool::put() of a stack that was not taken from this pool: a pool belongs to one thread, so put() each "
        "stack back once, on the thread that took it");
    assert(shelf->free.size() < shelf->free.capacity());
    --shelf->taken;
    StrategyStack& back = shelf->free.emplace_back();
    back = {stack.base, stack_limit_bytes(stack.size_class), nullptr};
    const SuspendedStrategyStack unused{&back, stack.base - kWarmPages * kernel_features().page_bytes};
    strategy_at(strategy).shrink(std::span(&unused, 1));
    if (shelf->free.size() - shelf->reserved > kFreeMax) destroy_first(*shelf, kFreeMax / 2);
}

void StrategyPool::destroy_first(Shelf& shelf, std::size_t count) noexcept {
    if (count == 0) return;
    StackStrategy& maker = strategy_at(shelf.strategy);
    maker.destroy(std::span(shelf.free).first(count));
    refund_mappings(maker, count);
    shelf.free.erase(shelf.free.begin(), shelf.free.begin() + static_cast<std::ptrdiff_t>(count));
}

void StrategyPool::trim() noexcept {
    for (Shelf& shelf : shelves_) destroy_first(shelf, shelf.free.size() - shelf.reserved);
}

}  // namespace culm
