// One lazily touched mapping per stack and nothing below it: the naive baseline.
//
// Neighbours merge into one mapping, so there is no ceiling; and an overflow runs on into the neighbour.
#include "strategies/strategies.hpp"
#include "strategy/mapping_each.hpp"

namespace culm::lab::strategies {

namespace {

constexpr StrategyTraits kTraits{
    .grows = true,
    .shrinks = true,
    .guard = GuardMeans::kNone,
    .kernel_may_write = KernelWrites::kYes,
    .mappings_per_stack = 0,
    .strict_overcommit = StrictOvercommit::kCharged,
};

class BareMmap final : public strategy::MappingEach {
public:
    BareMmap() noexcept : MappingEach(GuardPage::kNone) {}

    const char* id() const noexcept override { return "bare-mmap"; }
    const char* name() const noexcept override { return "mmap each, no guard"; }
    const char* summary() const noexcept override {
        return "One lazily touched mmap per stack without a guard: cheap, merges with its neighbours, and overflows "
               "into them.";
    }
    const StrategyTraits& traits() const noexcept override { return kTraits; }
};

}  // namespace

StackStrategy& bare_mmap() noexcept {
    static BareMmap only;
    return only;
}

}  // namespace culm::lab::strategies
