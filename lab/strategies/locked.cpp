// MLOCK_ONFAULT on top of another strategy: each page of a stack stays in memory from its first touch on.
//
// On locked memory the kernel refuses MADV_DONTNEED and MADV_GUARD_INSTALL (EINVAL), so guards come first and shrinking
// goes by MADV_DONTNEED_LOCKED. The whole limit counts against RLIMIT_MEMLOCK. Invariant: what is locked is what
// create() of the strategy below made.
#include <algorithm>
#include <deque>

#include "culm/check.hpp"
#include "strategies/growth.hpp"
#include "strategies/strategies.hpp"
#include "strategy/strategy.hpp"

namespace culm::lab::strategies {

namespace {

// Where neighbours otherwise share a mapping, a locked stack takes two: itself, and what lies between it and the next
// one, which is not locked.
StrategyTraits locked_traits(const StackStrategy& strategy) noexcept {
    StrategyTraits traits = strategy.traits();
    const bool has_something_between = traits.guard == GuardMeans::kKernelMarker || &strategy == &strategy::heap();
    if (traits.mappings_per_stack == 0 && has_something_between && traits.pointers_stay_valid) {
        traits.mappings_per_stack = 2;
    }
    if (traits.kernel_may_write == KernelWrites::kThroughFunction) traits.mappings_per_stack += 1;
    traits.carries_python = false;
    return traits;
}

class Locked final : public StackStrategy {
public:
    explicit Locked(StackStrategy& strategy) noexcept : strategy_(&strategy), traits_(locked_traits(strategy)) {}

    const char* id() const noexcept override { return strategy_->id(); }
    const char* name() const noexcept override { return strategy_->name(); }
    const char* summary() const noexcept override { return strategy_->summary(); }
    const StrategyTraits& traits() const noexcept override { return traits_; }
    const char* why_unavailable() const noexcept override { return strategy_->why_unavailable(); }

    void destroy(std::span<const StrategyStack> stacks) noexcept override {
        for (const StrategyStack& stack : stacks) unlock_memory(lockable(stack));
        strategy_->destroy(stacks);
    }
    std::size_t shrink(std::span<const SuspendedStrategyStack> stacks) noexcept override {
        if (!traits_.pointers_stay_valid) return strategy_->shrink(stacks);
        std::size_t ranges = 0;
        for (const SuspendedStrategyStack& suspended : stacks) {
            std::byte* end = strategy::discard_end(suspended);
            if (end == nullptr || !traits_.shrinks) continue;
            auto* start = const_cast<std::byte*>(strategy_->committed_limit(*suspended.stack));
            if (start >= end) continue;
            if (discard_locked({start, static_cast<std::size_t>(end - start)}) == 0) ++ranges;
        }
        return ranges;
    }

    Result<void> prepare_thread() noexcept override { return strategy_->prepare_thread(); }
    Result<void> suspended(StrategyStack& stack, const void* sp) noexcept override {
        return strategy_->suspended(stack, sp);
    }
    void resuming(StrategyStack& stack) noexcept override { strategy_->resuming(stack); }
    bool commit_on_fault(void* address) noexcept override { return strategy_->commit_on_fault(address); }
    const std::byte* committed_limit(const StrategyStack& stack) const noexcept override {
        return strategy_->committed_limit(stack);
    }
    std::uint64_t faults_handled() const noexcept override { return strategy_->faults_handled(); }

private:
    // A mapping that grows down is one page at first, and takes its lock along.
    os::Range lockable(const StrategyStack& stack) const noexcept {
        const std::size_t bytes = traits_.guard == GuardMeans::kGap ? kernel_features().page_bytes : stack.limit_bytes;
        return {stack.base - bytes, bytes};
    }

    Result<void> create_rounded(std::size_t limit_bytes, std::span<StrategyStack> stacks) noexcept override {
        if (Result<void> made = strategy_->create(limit_bytes, stacks); !made) return made;
        for (std::size_t i = 0; i < stacks.size(); ++i) {
            const int error = lock_on_fault(lockable(stacks[i]));
            if (error == 0) continue;
            for (const StrategyStack& stack : stacks.first(i)) unlock_memory(lockable(stack));
            strategy_->destroy(stacks);
            return Error{error, "lock a stack in memory",
                         "the whole limit of each stack counts against RLIMIT_MEMLOCK: raise it (ulimit -l), use a "
                         "smaller limit or fewer stacks"};
        }
        return {};
    }

    StackStrategy* strategy_;
    StrategyTraits traits_;
};

// One for each strategy, in their order.
std::deque<Locked>& all_locked() {
    static std::deque<Locked>* const locked = [] {
        auto* made = new std::deque<Locked>;
        for (StackStrategy* strategy : all()) made->emplace_back(*strategy);
        return made;
    }();
    return *locked;
}

}  // namespace

StackStrategy& locked_on_fault(StackStrategy& strategy) noexcept {
    const auto strategies = all();
    const auto place = std::find(strategies.begin(), strategies.end(), &strategy) - strategies.begin();
    check(static_cast<std::size_t>(place) < strategies.size(),
          "locked_on_fault() takes a strategy of the lab's list, which is not locked itself: find it by its name");
    return all_locked()[static_cast<std::size_t>(place)];
}

}  // namespace culm::lab::strategies
