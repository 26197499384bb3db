// One heap block per stack.
//
// Page aligned, so that its memory can be given back page by page. The allocator puts its own words right below the
// limit, where an overflow destroys them. Invariant: a stack is one block, freed as a whole.
#include <cerrno>
#include <cstdlib>

#include "strategy/strategy.hpp"

namespace culm {

namespace {

constexpr StrategyTraits kTraits{
    .grows = true,  // the C library maps large blocks, and mappings are lazy
    .shrinks = true,
    .guard = GuardMeans::kNone,
    .kernel_may_write = KernelWrites::kYes,
    .mappings_per_stack = 0,
    .strict_overcommit = StrictOvercommit::kCharged,
    .carries_python = true,
};

class Heap final : public StackStrategy {
public:
    const char* id() const noexcept override { return "malloc"; }
    const char* name() const noexcept override { return "malloc each"; }
    const char* summary() const noexcept override {
        return "One heap block per stack: portable, no guard, and an overflow destroys the allocator's own words.";
    }
    const StrategyTraits& traits() const noexcept override { return kTraits; }

    void destroy(std::span<const StrategyStack> stacks) noexcept override {
        for (const StrategyStack& stack : stacks) std::free(stack.limit());
    }
    std::size_t shrink(std::span<const SuspendedStrategyStack> stacks) noexcept override {
        return strategy::discard_unused(stacks);
    }

private:
    Result<void> create_rounded(std::size_t limit_bytes, std::span<StrategyStack> stacks) noexcept override {
        for (std::size_t made = 0; made < stacks.size(); ++made) {
            auto* limit = static_cast<std::byte*>(std::aligned_alloc(kernel_features().page_bytes, limit_bytes));
            if (limit == nullptr) {
                destroy(stacks.first(made));
                return strategy::no_stack(ENOMEM);
            }
            stacks[made] = {limit + limit_bytes, limit_bytes, nullptr};
        }
        return {};
    }
};

}  // namespace

StackStrategy& strategy::heap() noexcept {
    static Heap only;
    return only;
}

}  // namespace culm
