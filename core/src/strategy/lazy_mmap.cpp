// One lazily touched mapping per stack, with a page without access below it: the usual way, and boost's.
//
// Demand paging grows it as well as the arena. What it costs is mappings: two a stack, of which a process may have
// vm.max_map_count. Invariant: each stack is a mapping of its own, released as a whole.
#include "strategy/mapping_each.hpp"

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

class LazyMmap final : public strategy::MappingEach {
public:
    LazyMmap() noexcept : MappingEach(GuardPage::kBelow) {}

    const char* id() const noexcept override { return "mmap"; }
    const char* name() const noexcept override { return "mmap each + mprotect guard"; }
    const char* summary() const noexcept override {
        return "One lazily touched mmap per stack with a page without access below it; two mappings a stack.";
    }
    const StrategyTraits& traits() const noexcept override { return kTraits; }
};

}  // namespace

StackStrategy& strategy::lazy_mmap() noexcept {
    static LazyMmap only;
    return only;
}

}  // namespace culm
