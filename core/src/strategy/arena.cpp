// The default: slots of large reservations, grown by demand paging, guarded by kernel markers (stack_arena.hpp).
//
// The only strategy without a mapping per stack that still catches an overflow.
#include <algorithm>
#include <cstring>

#include "culm/stack_arena.hpp"
#include "stack/discard.hpp"
#include "strategy/strategy.hpp"

namespace culm {

namespace {

constexpr std::size_t kAtOnce = 64;

constexpr StrategyTraits kWithMarkers{
    .grows = true,
    .shrinks = true,
    .guard = GuardMeans::kKernelMarker,
    .catches_small_overflow = true,
    .catches_large_overflow = true,  // from 1 MB on, where guards are 64 KB
    .neighbour_safe = true,
    .kernel_may_write = KernelWrites::kYes,
    .mappings_per_stack = 0,
    .strict_overcommit = StrictOvercommit::kCharged,
    .survives_fork = true,
    .guard_survives_fork = true,
    .carries_python = true,
    .limit_bytes_max = stack_limit_bytes(StackClass::k1G),
};
// Where the kernel has no markers (before Linux 6.13).
constexpr StrategyTraits kWithMprotect = [] {
    StrategyTraits traits = kWithMarkers;
    traits.guard = GuardMeans::kMprotect;
    traits.mappings_per_stack = 2;
    return traits;
}();

class Arena final : public StackStrategy {
public:
    const char* id() const noexcept override { return "arena"; }
    const char* name() const noexcept override { return "arena with kernel guards"; }
    const char* summary() const noexcept override {
        return "Slots of large lazy reservations, an odd number of pages apart; guards are kernel markers that need no "
               "mapping (from 1 MB on they also catch a jump of 64 KB). culm's default.";
    }
    const StrategyTraits& traits() const noexcept override {
        return kernel_features().guard == GuardKind::kMadvise ? kWithMarkers : kWithMprotect;
    }

    void destroy(std::span<const StrategyStack> stacks) noexcept override {
        Stack batch[kAtOnce];
        while (!stacks.empty()) {
            const std::size_t count = std::min(stacks.size(), kAtOnce);
            {
                stack::DiscardBatch discards;
                for (std::size_t i = 0; i < count; ++i) discards.add(stacks[i].limit(), stacks[i].base);
            }
            for (std::size_t i = 0; i < count; ++i) {
                batch[i] = {stacks[i].base, class_of(stacks[i])};
                StackArena::of(batch[i].size_class).give_back(std::span(&batch[i], 1));
            }
            stacks = stacks.subspan(count);
        }
    }
    std::size_t shrink(std::span<const SuspendedStrategyStack> stacks) noexcept override {
        return strategy::discard_unused(stacks);
    }

private:
    static StackClass class_of(const StrategyStack& stack) noexcept {
        return stack_class_for(stack.limit_bytes).value();
    }

    Result<void> create_rounded(std::size_t limit_bytes, std::span<StrategyStack> stacks) noexcept override {
        const Result<StackClass> size_class = stack_class_for(limit_bytes);
        if (!size_class) return size_class.error();
        Stack batch[kAtOnce];
        for (std::size_t made = 0; made < stacks.size();) {
            const std::size_t count = std::min(stacks.size() - made, kAtOnce);
            const Result<void> taken = StackArena::of(size_class.value()).take(std::span(batch, count));
            if (!taken) {
                destroy(stacks.first(made));
                return taken;
            }
            for (std::size_t i = 0; i < count; ++i) {
                stacks[made + i] = {batch[i].base, stack_limit_bytes(size_class.value()), nullptr};
            }
            made += count;
        }
        return {};
    }
};

}  // namespace

StackStrategy& strategy::arena() noexcept {
    static Arena only;
    return only;
}

}  // namespace culm
