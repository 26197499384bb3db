// MLOCK_ONFAULT on a strategy: what its stacks occupy, and what the kernel answers when locked memory is to be
// discarded.
#include "experiment.hpp"
#include "measure.hpp"
#include "raw_calls.hpp"
#include "strategies/strategies.hpp"

namespace culm::lab {

Answer locked_memory(const Request& request) {
    StackStrategy& locked = request.locked ? *request.strategy : strategies::locked_on_fault(*request.strategy);
    if (!locked.traits().pointers_stay_valid)
        return unsupported("copying stacks are suspended in the heap, which this does not lock");
    constexpr std::size_t kPages = 8;
    const std::size_t page = page_bytes();
    if (request.limit_bytes < (kPages + 4) * page) return unsupported("the limit is too small for this experiment");
    Stacks stacks(locked);
    if (const Result<void> created = stacks.create(request.limit_bytes, 1); !created)
        return unsupported(created.error());
    StrategyStack& stack = stacks[0];
    const auto resident = [&] { return resident_bytes(stack.base - kPages * 2 * page, kPages * 2 * page); };
    touch_down(stack, kPages * page);
    const std::size_t touched = resident();
    std::byte* low = stack.base - kPages * page;

    const int discard = raw_discard(low, page);
    const int guard = raw_install_guard(low, page);
    const int discard_locked = raw_discard_locked(low, page);
    const SuspendedStrategyStack suspended{&stack, stack.base - 256};
    const std::size_t ranges = locked.shrink(std::span(&suspended, 1));
    Answer answer;
    answer.object.add("madv_dontneed", errno_name(discard))
        .add("madv_guard_install", errno_name(guard))
        .add("madv_dontneed_locked", errno_name(discard_locked))
        .add("touched_bytes", kPages * page)
        .add("rss_bytes", touched)
        .add("shrunk_ranges", ranges)
        .add("rss_bytes_after_shrink", resident());
    return answer;
}

}  // namespace culm::lab
