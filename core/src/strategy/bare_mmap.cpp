// One lazily touched mapping per stack and nothing below it: the naive baseline.
//
// Neighbours merge into one mapping, so there is no ceiling; and an overflow runs on into the neighbour.
#include "strategy/strategy.hpp"

namespace culm {

namespace {

constexpr StrategyTraits kTraits{
    .grows = true,
    .shrinks = true,
    .guard = GuardMeans::kNone,
    .kernel_may_write = KernelWrites::kYes,
    .mappings_per_stack = 0,
    .strict_overcommit = StrictOvercommit::kCharged,
};

class BareMmap final : public StackStrategy {
public:
    const char* id() const noexcept override { return "bare-mmap"; }
    const char* name() const noexcept override { return "mmap each, no guard"; }
    const char* summary() const noexcept override {
        return "One lazily touched mmap per stack without a guard: cheap, merges with its neighbours, and overflows "
               "into them.";
    }
    const StrategyTraits& traits() const noexcept override { return kTraits; }

    void destroy(std::span<const StrategyStack> stacks) noexcept override {
        for (const StrategyStack& stack : stacks) os::release({stack.limit(), stack.limit_bytes});
    }
    std::size_t shrink(std::span<const SuspendedStrategyStack> stacks) noexcept override {
        return strategy::discard_unused(stacks);
    }

private:
    Result<void> create_rounded(std::size_t limit_bytes, std::span<StrategyStack> stacks) noexcept override {
        for (std::size_t made = 0; made < stacks.size(); ++made) {
            int error = 0;
            std::byte* limit = strategy::map_stack(limit_bytes, 0, error);
            if (limit == nullptr) {
                destroy(stacks.first(made));
                return strategy::no_stack(error);
            }
            stacks[made] = {limit + limit_bytes, limit_bytes, nullptr};
        }
        return {};
    }
};

}  // namespace

StackStrategy& strategy::bare_mmap() noexcept {
    static BareMmap only;
    return only;
}

}  // namespace culm
