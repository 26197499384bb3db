// Whether MAP_GROWSDOWN does what its name says: how far such a mapping grows, and what it stops at.
//
// Three descents, page by page, each in a child: with nothing below; towards an ordinary mapping; towards another one
// that grows down. The child reports how deep it is; the last report before its end is the answer.
#include <sys/resource.h>

#include <algorithm>

#include "child.hpp"
#include "experiment.hpp"
#include "measure.hpp"
#include "raw_calls.hpp"

namespace culm::lab {

namespace {

constexpr std::size_t kFarBytes = std::size_t{64} << 20;
constexpr std::byte kPaint{0x5a};

struct Descent {
    bool was_made = false;
    std::int64_t grew_bytes = 0;
    const char* stopped_by = "";
};

// Touches a byte per page from the base down to `bytes` below it, telling the depth.
void go_down(const StrategyStack& stack, std::size_t bytes, const Tell& tell) {
    const std::size_t page = page_bytes();
    for (std::size_t depth = page; depth <= bytes; depth += page) {
        *const_cast<volatile std::byte*>(stack.base - depth) = std::byte{1};
        tell(static_cast<std::int64_t>(depth));
    }
}

Descent descend(StackStrategy& strategy, std::size_t limit_bytes, std::size_t bytes, std::size_t mapping_bytes_below) {
    const ChildEnd end = run_in_child([&](const Tell& tell) {
        Stacks stacks(strategy);
        if (!stacks.create(limit_bytes, 1)) return 1;
        const std::size_t page = page_bytes();
        if (mapping_bytes_below != 0 && raw_map_at(stacks[0].base - mapping_bytes_below, 16 * page) != 0) return 1;
        go_down(stacks[0], bytes, tell);
        return 0;
    });
    Descent descent;
    descent.was_made = end.was_made && end.exit_code != 1;
    descent.grew_bytes = std::max<std::int64_t>(0, end.last_word);
    descent.stopped_by = end.signal == 0 ? "nothing" : signal_name(end.signal);
    return descent;
}

// Makes two such stacks, one limit apart, and has code on the upper one run over its limit. The exit code says whether
// the pattern on the lower one is whole.
ChildEnd run_into_its_like(StackStrategy& strategy, std::size_t limit_bytes) {
    return run_in_child([&](const Tell& tell) {
        Stacks stacks(strategy);
        if (!stacks.create(limit_bytes, 2)) return 1;
        const bool second_is_lower = stacks[1].base < stacks[0].base;
        const StrategyStack& lower = stacks[second_is_lower ? 1 : 0];
        const StrategyStack& upper = stacks[second_is_lower ? 0 : 1];
        std::fill(lower.base - page_bytes(), lower.base, kPaint);
        go_down(upper, limit_bytes + page_bytes(), tell);
        const bool whole =
            std::all_of(lower.base - page_bytes(), lower.base, [](std::byte at) { return at == kPaint; });
        return whole ? 3 : 4;
    });
}

std::size_t soft_stack_limit() {
    rlimit limit{};
    getrlimit(RLIMIT_STACK, &limit);
    return limit.rlim_cur;
}

void set_soft_stack_limit(std::size_t bytes) {
    rlimit limit{};
    getrlimit(RLIMIT_STACK, &limit);
    limit.rlim_cur = std::min<rlim_t>(bytes, limit.rlim_max);
    setrlimit(RLIMIT_STACK, &limit);
}

}  // namespace

Answer growsdown(const Request& request) {
    if (request.strategy->traits().guard != GuardMeans::kGap)
        return unsupported("this is about --strategy growsdown alone");
    const std::size_t limit_bytes = std::min<std::size_t>(request.limit_bytes, std::size_t{4} << 20);
    const std::size_t wanted_limit = soft_stack_limit();
    set_soft_stack_limit(std::size_t{8} << 20);  // the usual one
    const Descent alone = descend(*request.strategy, limit_bytes, kFarBytes, 0);
    set_soft_stack_limit(wanted_limit);

    const std::size_t mapping_below = 2 * limit_bytes;
    const Descent towards_mapping = descend(*request.strategy, limit_bytes, mapping_below, mapping_below);
    const ChildEnd like = run_into_its_like(*request.strategy, limit_bytes);
    if (!alone.was_made || !towards_mapping.was_made || !like.was_made) {
        return unsupported("a child process or a mapping could not be made");
    }
    const std::size_t mapping_end_below = mapping_below - 16 * page_bytes();
    const bool at_rlimit = alone.grew_bytes <= (std::int64_t{8} << 20) && alone.grew_bytes > (std::int64_t{7} << 20);
    const std::string stopped_by = std::string(alone.stopped_by) + (at_rlimit ? " at RLIMIT_STACK (8 MB)" : "");
    Answer answer;
    answer.object.add("grew_bytes", alone.grew_bytes)
        .add("stopped_by", stopped_by)
        .add("rlimit_stack_bytes", std::size_t{8} << 20)
        .add("stack_guard_gap_bytes", static_cast<std::int64_t>(mapping_end_below) - towards_mapping.grew_bytes)
        .add("towards_mapping_stopped_by", towards_mapping.stopped_by)
        .add("neighbour_damaged", like.exit_code == 4)
        .add("towards_its_like_stopped_by", like.signal == 0 ? "nothing" : signal_name(like.signal))
        .add("limit_bytes", limit_bytes);
    return answer;
}

}  // namespace culm::lab
