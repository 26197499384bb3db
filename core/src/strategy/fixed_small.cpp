// A small stack of one size, committed when it is made, as sigaltstack wants one.
//
// Nothing ever faults on it, so signal handlers may run there; and nothing of any depth can.
// Invariant: every page of it is present from creation to destruction.
#include <algorithm>

#include "os/growth.hpp"
#include "strategy/strategy.hpp"

namespace culm {

namespace {

StrategyTraits declared() noexcept {
    StrategyTraits traits;
    traits.guard = GuardMeans::kMprotect;
    traits.catches_small_overflow = true;
    traits.neighbour_safe = true;
    traits.mappings_per_stack = 2;
    traits.strict_overcommit = StrictOvercommit::kCharged;
    traits.guard_survives_fork = true;
    traits.limit_bytes_max = strategy::round_up(os::signal_stack_bytes_min(), kernel_features().page_bytes);
    return traits;
}

class FixedSmall final : public StackStrategy {
public:
    const char* id() const noexcept override { return "fixed-small"; }
    const char* name() const noexcept override { return "fixed small stack"; }
    const char* summary() const noexcept override {
        return "SIGSTKSZ bytes, all of them committed at once, with a guard page: what sigaltstack is given.";
    }
    const StrategyTraits& traits() const noexcept override {
        static const StrategyTraits traits = declared();
        return traits;
    }

    void destroy(std::span<const StrategyStack> stacks) noexcept override {
        const std::size_t guard_bytes = kernel_features().page_bytes;
        for (const StrategyStack& stack : stacks) {
            os::release({stack.limit() - guard_bytes, stack.limit_bytes + guard_bytes});
        }
    }
    std::size_t shrink(std::span<const SuspendedStrategyStack>) noexcept override { return 0; }

private:
    Result<void> create_rounded(std::size_t limit_bytes, std::span<StrategyStack> stacks) noexcept override {
        const std::size_t page_bytes = kernel_features().page_bytes;
        for (std::size_t made = 0; made < stacks.size(); ++made) {
            int error = 0;
            std::byte* limit = strategy::map_stack(limit_bytes, page_bytes, error);
            if (limit == nullptr) {
                destroy(stacks.first(made));
                return strategy::no_stack(error);
            }
            for (std::size_t at = 0; at < limit_bytes; at += page_bytes) {
                const_cast<volatile std::byte*>(limit)[at] = std::byte{0};
            }
            stacks[made] = {limit + limit_bytes, limit_bytes, nullptr};
        }
        return {};
    }
};

}  // namespace

StackStrategy& strategy::fixed_small() noexcept {
    static FixedSmall only;
    return only;
}

}  // namespace culm
