// One lazily touched mapping per stack, with a page without access below it: the usual way, and boost's.
//
// Demand paging grows it as well as the arena. What it costs is mappings: two a stack, of which a process may have
// vm.max_map_count. Invariant: each stack is a mapping of its own, released as a whole.
#include "strategy/strategy.hpp"

namespace culm {

namespace {

constexpr StrategyTraits kTraits{
    .grows = true,
    .shrinks = true,
    .guard = GuardMeans::kMprotect,
    .catches_small_overflow = true,
    .catches_large_overflow = false,
    .neighbour_safe = true,
    .kernel_may_write = KernelWrites::kYes,
    .mappings_per_stack = 2,
    .strict_overcommit = StrictOvercommit::kCharged,
    .survives_fork = true,
    .guard_survives_fork = true,
    .carries_python = true,
};

class LazyMmap final : public StackStrategy {
public:
    const char* id() const noexcept override { return "mmap"; }
    const char* name() const noexcept override { return "mmap each + mprotect guard"; }
    const char* summary() const noexcept override {
        return "One lazily touched mmap per stack with a page without access below it; two mappings a stack.";
    }
    const StrategyTraits& traits() const noexcept override { return kTraits; }

    void destroy(std::span<const StrategyStack> stacks) noexcept override {
        const std::size_t guard_bytes = kernel_features().page_bytes;
        for (const StrategyStack& stack : stacks) {
            os::release({stack.limit() - guard_bytes, stack.limit_bytes + guard_bytes});
        }
    }
    std::size_t shrink(std::span<const SuspendedStrategyStack> stacks) noexcept override {
        return strategy::discard_unused(stacks);
    }

private:
    Result<void> create_rounded(std::size_t limit_bytes, std::span<StrategyStack> stacks) noexcept override {
        for (std::size_t made = 0; made < stacks.size(); ++made) {
            int error = 0;
            std::byte* limit = strategy::map_stack(limit_bytes, kernel_features().page_bytes, error);
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

StackStrategy& strategy::lazy_mmap() noexcept {
    static LazyMmap only;
    return only;
}

}  // namespace culm
