// What happens below the limit: page by page as a runaway recursion does, or in one jump of 64 KB.
//
// Two stacks that lie as close as the strategy puts them; the lower one is filled with a pattern. Code on the upper one
// then writes below its own limit. If the process survives that, the pattern shows whether the neighbour was hurt.
#include <unistd.h>

#include <algorithm>

#include "child.hpp"
#include "experiment.hpp"
#include "measure.hpp"
#include "on_stack.hpp"

namespace culm::lab {

namespace {

constexpr std::size_t kNeighbours = 16;
constexpr std::size_t kJumpBytes = std::size_t{64} << 10;
constexpr std::size_t kStepsBelow = 16;  // pages
constexpr std::size_t kPaintedBytes = std::size_t{128} << 10;
constexpr std::byte kPaint{0x5a};

struct Overrun {
    std::byte* limit;
    bool jumps;
};

void overrun(OnStack&, void* argument) {
    const auto& wanted = *static_cast<const Overrun*>(argument);
    if (wanted.jumps) {
        *const_cast<volatile std::byte*>(wanted.limit - kJumpBytes) = std::byte{1};
        return;
    }
    const std::size_t page = page_bytes();
    for (std::size_t step = 0; step < kStepsBelow; ++step) {
        *const_cast<volatile std::byte*>(wanted.limit - step * page - 8) = std::byte{1};
    }
}

// Fills the stack with the pattern from its base down, in the order in which a stack is used.
void paint(const StrategyStack& stack, std::size_t bytes) {
    for (std::size_t i = 1; i <= bytes; ++i)
        const_cast<volatile std::byte*>(stack.base)[-static_cast<std::ptrdiff_t>(i)] = kPaint;
}

bool is_whole(const StrategyStack& stack, std::size_t bytes) {
    return std::all_of(stack.base - bytes, stack.base, [](std::byte at) { return at == kPaint; });
}

Answer run_over(const Request& request, bool jumps) {
    if (!request.strategy->traits().pointers_stay_valid) {
        // Copying stacks all run in one place, and below that lies no other stack.
        Stacks alone(*request.strategy);
        if (const Result<void> created = alone.create(request.limit_bytes, 1); !created)
            return unsupported(created.error());
        announce(jumps ? "write 64 KB below the limit" : "write page by page below the limit");
        Overrun wanted{alone[0].limit(), jumps};
        OnStack run(*request.strategy, alone[0], &overrun, &wanted);
        run.step_in();
        Answer answer;
        answer.object.add("neighbour_damaged", false).add("survived", true);
        return answer;
    }
    // Not destroyed at the end of this function: the overflow may have destroyed the allocator's own words.
    Stacks& stacks = *new Stacks(*request.strategy);
    if (const Result<void> created = stacks.create(request.limit_bytes, kNeighbours); !created) {
        return unsupported(created.error());
    }
    std::sort(stacks.begin(), stacks.end(), [](const auto& one, const auto& other) { return one.base < other.base; });
    // The one that is closest to the next below; the highest of those, so that there are more below.
    const auto distance = [&](std::size_t i) { return stacks[i].limit() - stacks[i - 1].base; };
    std::size_t upper = 1;
    for (std::size_t i = 2; i < stacks.size(); ++i) {
        if (distance(i) <= distance(upper)) upper = i;
    }
    const std::size_t painted = std::min(kPaintedBytes, request.limit_bytes);
    for (std::size_t i = 0; i < upper; ++i) paint(stacks[i], painted);
    announce(jumps ? "write 64 KB below the limit" : "write page by page below the limit");
    Overrun wanted{stacks[upper].limit(), jumps};
    OnStack run(*request.strategy, stacks[upper], &overrun, &wanted);
    run.step_in();

    const bool whole = std::all_of(stacks.begin(), stacks.begin() + static_cast<std::ptrdiff_t>(upper),
                                   [painted](const StrategyStack& stack) { return is_whole(stack, painted); });
    const ChildEnd giving_back = run_in_child([&](const Tell&) {
        close(STDERR_FILENO);  // glibc would write there that its heap is corrupted
        stacks.destroy();
        return 0;
    });
    Answer answer;
    answer.object.add("neighbour_damaged", !whole)
        .add("survived", true)
        .add("distance_bytes", static_cast<std::int64_t>(distance(upper)))
        .add("giving_back_signal", signal_name(giving_back.signal));
    return answer;
}

}  // namespace

Answer overflow_small(const Request& request) { return run_over(request, false); }

Answer overflow_large(const Request& request) { return run_over(request, true); }

}  // namespace culm::lab
