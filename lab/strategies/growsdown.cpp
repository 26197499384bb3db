// MAP_GROWSDOWN: one page per stack that the kernel extends downwards, as it does the main thread's stack.
//
// Nothing reserves the addresses it is to grow into: another mapping may land there. Towards another mapping that grows
// down the kernel keeps no gap, so an overflow runs on into the neighbour. And RLIMIT_STACK bounds it.
// Invariant: when a stack is made, the addresses from its limit to its base are its own.
#include <algorithm>
#include <cerrno>
#include <mutex>

#include "stack/discard.hpp"
#include "strategies/growth.hpp"
#include "strategies/strategies.hpp"
#include "strategy/strategy.hpp"

namespace culm::lab::strategies {

namespace {

constexpr std::size_t kStackGuardGapPages = 256;  // the kernel's default

constexpr StrategyTraits kTraits{
    .grows = true,
    .shrinks = true,
    .guard = GuardMeans::kGap,
    .catches_small_overflow = false,
    .catches_large_overflow = false,
    .neighbour_safe = false,
    .kernel_may_write = KernelWrites::kYes,
    .mappings_per_stack = 1,
    .strict_overcommit = StrictOvercommit::kWorks,
    .survives_fork = true,
    .guard_survives_fork = false,
};

class GrowsDown final : public StackStrategy {
public:
    const char* id() const noexcept override { return "growsdown"; }
    const char* name() const noexcept override { return "MAP_GROWSDOWN"; }
    const char* summary() const noexcept override {
        return "One page per stack, mapped with MAP_GROWSDOWN and MAP_STACK; bounded by RLIMIT_STACK, no gap towards a "
               "neighbour of the same kind.";
    }
    const StrategyTraits& traits() const noexcept override { return kTraits; }

    void destroy(std::span<const StrategyStack> stacks) noexcept override {
        release(stacks);
        const std::lock_guard lock(mutex_);
        live_ -= stacks.size();
    }

    // Only what it has grown into: below that may lie a mapping of somebody else.
    std::size_t shrink(std::span<const SuspendedStrategyStack> stacks) noexcept override {
        std::size_t ranges = 0;
        stack::DiscardBatch batch;
        for (const SuspendedStrategyStack& suspended : stacks) {
            std::byte* end = strategy::discard_end(suspended);
            auto* start = const_cast<std::byte*>(committed_limit(*suspended.stack));
            if (end == nullptr || start >= end) continue;
            batch.add(start, end);
            ++ranges;
        }
        return ranges;
    }

    // How far it has grown. Nothing tells but the mappings: those that follow one another below the base, without the
    // gap that the kernel keeps to others. Found by doubling, then halving.
    const std::byte* committed_limit(const StrategyStack& stack) const noexcept override {
        const std::size_t page_bytes = kernel_features().page_bytes;
        const std::size_t pages_max = stack.limit_bytes / page_bytes;
        const auto has = [&](std::size_t pages) {
            return is_mapped({stack.base - pages * page_bytes, pages * page_bytes});
        };
        std::size_t mapped = 1;
        std::size_t unmapped = 2;
        while (unmapped <= pages_max && has(unmapped)) {
            mapped = unmapped;
            unmapped *= 2;
        }
        unmapped = std::min(unmapped, pages_max + 1);
        while (unmapped - mapped > 1) {
            const std::size_t middle = mapped + (unmapped - mapped) / 2;
            (has(middle) ? mapped : unmapped) = middle;
        }
        return stack.base - mapped * page_bytes;
    }

private:
    Result<void> create_rounded(std::size_t limit_bytes, std::span<StrategyStack> stacks) noexcept override {
        if (limit_bytes > growing_down_bytes_max()) {
            return Error{EINVAL, "make a stack that grows down",
                         "the kernel lets none grow beyond RLIMIT_STACK: raise it (ulimit -s) or use a smaller limit"};
        }
        // A hole for all of them, next to each other as any allocator would place them, and far enough from what lies
        // below that the kernel lets the last one grow.
        const std::lock_guard lock(mutex_);
        const std::size_t bytes = limit_bytes * stacks.size();
        const std::size_t gap_bytes = kStackGuardGapPages * kernel_features().page_bytes;
        int error = 0;
        std::byte* wanted = live_ == 0 ? nullptr : lowest_ - gap_bytes - bytes;
        std::byte* hole = reserve_near(wanted, gap_bytes + bytes, error);
        if (hole == nullptr) return strategy::no_stack(error);
        os::release({hole, gap_bytes + bytes});
        std::byte* start = hole + gap_bytes;
        const std::size_t page_bytes = kernel_features().page_bytes;
        for (std::size_t made = 0; made < stacks.size(); ++made) {
            std::byte* base = start + (made + 1) * limit_bytes;
            error = map_growing_down({base - page_bytes, page_bytes});
            if (error != 0) {
                release(stacks.first(made));
                return strategy::no_stack(error);
            }
            stacks[made] = {base, limit_bytes, nullptr};
        }
        live_ += stacks.size();
        lowest_ = hole;
        return {};
    }

    void release(std::span<const StrategyStack> stacks) const noexcept {
        for (const StrategyStack& stack : stacks) {
            const std::byte* start = committed_limit(stack);
            os::release({const_cast<std::byte*>(start), static_cast<std::size_t>(stack.base - start)});
        }
    }

    std::mutex mutex_;             // guards what follows
    std::size_t live_ = 0;         // stacks that exist
    std::byte* lowest_ = nullptr;  // of the hole that was made last; the next goes below it, not into it
};

}  // namespace

StackStrategy& growsdown() noexcept {
    static GrowsDown only;
    return only;
}

}  // namespace culm::lab::strategies
