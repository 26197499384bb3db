// A small stack of one size, committed when it is made, as sigaltstack wants one.
//
// Nothing ever faults on it, so signal handlers may run there; and nothing of any depth can.
// Invariant: every page of it is present from creation to destruction.
#include "strategies/fixed_small.hpp"

#include <unistd.h>

#include <algorithm>
#include <atomic>

#include "strategies/strategies.hpp"
#include "strategy/mapping_each.hpp"

namespace culm::lab::strategies {

namespace {

constinit std::atomic<std::size_t> overriding_bytes{0};  // 0: as the C library says

std::size_t signal_stack_bytes() noexcept {
    const std::size_t overriding = overriding_bytes.load(std::memory_order_relaxed);
    if (overriding != 0) return overriding;
    constexpr long kOnceEnough = 8192;
    return static_cast<std::size_t>(std::max(kOnceEnough, sysconf(_SC_SIGSTKSZ)));
}

StrategyTraits declared() noexcept {
    StrategyTraits traits;
    traits.guard = GuardMeans::kMprotect;
    traits.catches_small_overflow = true;
    traits.neighbour_safe = true;
    traits.mappings_per_stack = 2;
    traits.strict_overcommit = StrictOvercommit::kCharged;
    traits.guard_survives_fork = true;
    traits.limit_bytes_max = strategy::round_up(signal_stack_bytes(), kernel_features().page_bytes);
    return traits;
}

class FixedSmall final : public strategy::MappingEach {
public:
    FixedSmall() noexcept : MappingEach(GuardPage::kBelow) {}

    const char* id() const noexcept override { return "fixed-small"; }
    const char* name() const noexcept override { return "fixed small stack"; }
    const char* summary() const noexcept override {
        return "SIGSTKSZ bytes, all of them committed at once, with a guard page: what sigaltstack is given.";
    }
    const StrategyTraits& traits() const noexcept override {
        static const StrategyTraits traits = declared();
        return traits;
    }

    std::size_t shrink(std::span<const SuspendedStrategyStack>) noexcept override { return 0; }

private:
    int mapped(os::Range stack) noexcept override {
        auto* const start = static_cast<volatile std::byte*>(stack.start);
        for (std::size_t at = 0; at < stack.bytes; at += kernel_features().page_bytes) start[at] = std::byte{0};
        return 0;
    }
};

}  // namespace

void override_signal_stack_bytes(std::size_t bytes) noexcept {
    overriding_bytes.store(bytes, std::memory_order_relaxed);
}

StackStrategy& fixed_small() noexcept {
    static FixedSmall only;
    return only;
}

}  // namespace culm::lab::strategies
