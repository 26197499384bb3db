// One `new` of N times the limit, cut into N stacks.
//
// What creates them together belongs together: the block is freed when the last of its stacks is destroyed. The
// kernel's heuristic refuses a block larger than memory and swap, lazily touched or not. Invariant: a block's count is
// the number of its stacks that exist.
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <new>

#include "strategies/strategies.hpp"
#include "strategy/strategy.hpp"

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

struct Block {
    std::atomic<std::size_t> stacks;
    std::byte* start;
};

class OneBlock final : public StackStrategy {
public:
    const char* id() const noexcept override { return "one-block"; }
    const char* name() const noexcept override { return "one new of N limits"; }
    const char* summary() const noexcept override {
        return "One operator new of N times the limit, cut into N stacks: refused as a whole when it is larger than "
               "memory, however little would be touched.";
    }
    const StrategyTraits& traits() const noexcept override { return kTraits; }

    void destroy(std::span<const StrategyStack> stacks) noexcept override {
        for (const StrategyStack& stack : stacks) {
            auto* block = static_cast<Block*>(stack.record);
            if (block->stacks.fetch_sub(1, std::memory_order_acq_rel) != 1) continue;
            operator delete(block->start, alignment());
            delete block;
        }
    }
    std::size_t shrink(std::span<const SuspendedStrategyStack> stacks) noexcept override {
        return strategy::discard_unused(stacks);
    }

private:
    static std::align_val_t alignment() noexcept { return std::align_val_t{kernel_features().page_bytes}; }

    Result<void> create_rounded(std::size_t limit_bytes, std::span<StrategyStack> stacks) noexcept override {
        if (stacks.size() > SIZE_MAX / limit_bytes) return strategy::no_stack(ENOMEM);
        auto* block = new (std::nothrow) Block{stacks.size(), nullptr};
        if (block == nullptr) return strategy::no_stack(ENOMEM);
        void* start = operator new(stacks.size() * limit_bytes, alignment(), std::nothrow);
        if (start == nullptr) {
            delete block;
            return strategy::no_stack(ENOMEM);
        }
        block->start = static_cast<std::byte*>(start);
        for (std::size_t i = 0; i < stacks.size(); ++i) {
            stacks[i] = {block->start + (i + 1) * limit_bytes, limit_bytes, block};
        }
        return {};
    }
};

}  // namespace

StackStrategy& one_block() noexcept {
    static OneBlock only;
    return only;
}

}  // namespace culm::lab::strategies
