// The list of strategies, finding one by its name, and what they share.
//
// Invariant: the order here is the order in which tools and error messages show them; the first is the default.
#include "strategy/strategy.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "culm/strategy_pool.hpp"
#include "stack/discard.hpp"

namespace culm {

namespace {

constexpr std::size_t kAddressSpaceBytes = std::size_t{1} << 46;

const std::array<StackStrategy*, 4>& all() noexcept {
    static const std::array<StackStrategy*, 4> strategies = {&strategy::arena(), &strategy::lazy_mmap(),
                                                             &strategy::fault_handler(), &strategy::heap()};
    return strategies;
}

// `before`, then the names of all strategies with commas between them. Put together once; lives for ever.
class IdList {
public:
    explicit IdList(const char* before) noexcept {
        append(before);
        for (const StackStrategy* one : all()) {
            if (one != all().front()) append(", ");
            append(one->id());
        }
    }
    const char* text() const noexcept { return text_; }

private:
    void append(const char* more) noexcept { std::strncat(text_, more, sizeof(text_) - std::strlen(text_) - 1); }

    char text_[128] = {};
};

const char* advice_on_unknown() noexcept {
    static const IdList advice("use one of: ");
    return advice.text();
}

}  // namespace

std::span<StackStrategy* const> stack_strategies() noexcept { return all(); }

const char* stack_strategy_ids() noexcept {
    static const IdList ids("");
    return ids.text();
}

Result<StackStrategy*> stack_strategy(std::string_view id) noexcept {
    for (StackStrategy* one : all()) {
        if (id == one->id()) return one;
    }
    return Error{EINVAL, "find a stack strategy of that name", advice_on_unknown()};
}

Result<StrategyIndex> strategy_index(const StackStrategy& strategy) noexcept {
    const auto found = std::find(all().begin(), all().end(), &strategy);
    if (found == all().end()) {
        return Error{
            EINVAL, "run a fiber on a stack of that strategy",
            "take a strategy from stack_strategies(); others, such as those of the lab, are for measuring only"};
    }
    return static_cast<StrategyIndex>(found - all().begin());
}

Result<void> StackStrategy::create(std::size_t limit_bytes, std::span<StrategyStack> stacks) noexcept {
    const StrategyTraits& declared = traits();
    if (limit_bytes < declared.limit_bytes_min) {
        return Error{EINVAL, "make a stack", "the limit is below the smallest that this strategy can make"};
    }
    if (declared.limit_bytes_max != 0 && limit_bytes > declared.limit_bytes_max) {
        return Error{EINVAL, "make a stack", "the limit is above the largest that this strategy can make"};
    }
    if (limit_bytes > kAddressSpaceBytes) {
        return Error{EINVAL, "make a stack", "the limit is larger than the address space of a process"};
    }
    if (stacks.empty()) return {};
    return create_rounded(strategy::round_up(limit_bytes, kernel_features().page_bytes), stacks);
}

std::size_t strategy::discard_unused(std::span<const SuspendedStrategyStack> stacks) noexcept {
    stack::DiscardBatch batch;
    std::size_t ranges = 0;
    for (const SuspendedStrategyStack& suspended : stacks) {
        std::byte* end = discard_end(suspended);
        if (end == nullptr) continue;
        batch.add(suspended.stack->limit(), end);
        ++ranges;
    }
    return ranges;
}

std::byte* strategy::map_stack(std::size_t limit_bytes, std::size_t guard_bytes, int& error) noexcept {
    const std::size_t bytes = limit_bytes + guard_bytes;
    std::byte* start = os::reserve(bytes, os::Access::kReadWrite, error);
    if (start == nullptr) return nullptr;
    if (guard_bytes != 0) error = os::set_access({start, guard_bytes}, os::Access::kNone);
    if (error == 0) {
        os::forbid_huge_pages({start + guard_bytes, limit_bytes});
        return start + guard_bytes;
    }
    os::release({start, bytes});
    return nullptr;
}

}  // namespace culm
