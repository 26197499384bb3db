// What a switch costs by the number of live stacks, by how it is done, and by how far apart the stacks lie.
//
// The stacks lie an odd number of pages apart (the arena) or a power of two, which puts all their bases into few cache
// and TLB sets. The next stack is read from the one that is resumed, so that misses do not overlap.
#include <algorithm>
#include <bit>
#include <cstdint>

#include "culm/stack_arena.hpp"
#include "experiment.hpp"
#include "measure.hpp"
#include "strategies/strategies.hpp"
#include "switches.hpp"

namespace culm::lab {

namespace {

constexpr int kRounds = 5;
constexpr std::size_t kSwitchesPerRound = 200'000;

// As culm's fibers begin: shifted by the page number, which differs between neighbours if strides are odd.
std::size_t colour_bytes(const std::byte* base) {
    return reinterpret_cast<std::uintptr_t>(base) / page_bytes() % 16 * 64;
}

}  // namespace

Answer switch_cost(const Request& request) {
    const auto kinds = switch_kinds();
    const auto kind =
        std::find_if(kinds.begin(), kinds.end(), [&](const SwitchKind& one) { return request.switch_id == one.id; });
    if (kind == kinds.end())
        return unsupported("unknown switch '" + request.switch_id + "'; there are: assembly, ucontext, boost");
    if (kind->why_not != nullptr) return unsupported(kind->why_not);
    const std::size_t count = request.count.value_or(1000);
    const bool odd = request.stride == Stride::kOdd;
    StackStrategy& strategy = odd ? *stack_strategies().front() : strategies::bare_mmap();
    const std::size_t limit_bytes = odd ? request.limit_bytes : std::bit_ceil(request.limit_bytes);
    Stacks stacks(strategy);
    if (const Result<void> created = stacks.create(limit_bytes, count); !created) return unsupported(created.error());
    std::sort(stacks.begin(), stacks.end(), [](const auto& one, const auto& other) { return one.base > other.base; });
    std::vector<Place> places;
    for (const StrategyStack& stack : stacks) places.push_back({stack.base - colour_bytes(stack.base), stack.limit()});

    std::vector<double> ns;
    const std::size_t laps = std::max<std::size_t>(2, kSwitchesPerRound / count);
    for (int round = 0; round < kRounds; ++round) ns.push_back(kind->round_trip(places, laps));
    const std::size_t stride = count > 1 ? static_cast<std::size_t>(stacks[0].base - stacks[1].base) : limit_bytes;
    Answer answer;
    answer.object.add("implementation", kind->implementation)
        .add("count", count)
        .add("stride", odd ? "odd" : "power-of-two")
        .add("stride_bytes", stride)
        .add("ns_per_switch", median(ns));
    return answer;
}

}  // namespace culm::lab
