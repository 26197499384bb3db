// Drawing from a seed: one of the first few, so that the walk is short.
#include "run_queue.hpp"

namespace culm::runtime {

namespace {
constexpr std::size_t kDrawnFrom = 8;
}

Fiber* RunQueue::pop_drawn() noexcept {
    // xorshift64*: a state that is not zero never becomes zero.
    random_ ^= random_ >> 12;
    random_ ^= random_ << 25;
    random_ ^= random_ >> 27;
    const std::uint64_t drawn = random_ * 0x2545F4914F6CDD1DULL >> 33;
    std::size_t place = drawn % (size_ < kDrawnFrom ? size_ : kDrawnFrom);
    Wait* drawn_record = fibers_.front();
    for (; place > 0; --place) drawn_record = fibers_.after(*drawn_record);
    Fiber& fiber = Fiber::of(*drawn_record);
    remove(fiber);
    return &fiber;
}

}  // namespace culm::runtime
