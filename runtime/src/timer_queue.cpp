// Sifting: the hole moves, the entry is written once.
#include "timer_queue.hpp"

#include <cassert>

namespace culm::runtime {

namespace {
constexpr std::size_t kArity = 4;
}

void TimerQueue::add(Fiber& fiber, std::int64_t deadline_ns) noexcept {
    assert(!holds(fiber));
    const Entry entry{deadline_ns, arrivals_++, &fiber};
    entries_.push(entry);
    sift_up(entries_.size() - 1, entry);
}

void TimerQueue::remove(Fiber& fiber) noexcept {
    assert(holds(fiber));
    const std::size_t index = fiber.timer_index_;
    fiber.timer_index_ = kNotHeld;
    const Entry last = entries_.pop();
    if (index == entries_.size()) return;
    if (index > 0 && before(last, entries_[(index - 1) / kArity])) {
        sift_up(index, last);
    } else {
        sift_down(index, last);
    }
}

Fiber* TimerQueue::pop_due(std::int64_t now_ns) noexcept {
    if (next_deadline_ns() > now_ns || entries_.empty()) return nullptr;
    Fiber* fiber = entries_[0].fiber;
    remove(*fiber);
    return fiber;
}

void TimerQueue::place(std::size_t index, const Entry& entry) noexcept {
    entries_[index] = entry;
    entry.fiber->timer_index_ = static_cast<std::uint32_t>(index);
}

void TimerQueue::sift_up(std::size_t index, const Entry& entry) noexcept {
    while (index > 0) {
        const std::size_t parent = (index - 1) / kArity;
        if (!before(entry, entries_[parent])) break;
        place(index, entries_[parent]);
        index = parent;
    }
    place(index, entry);
}

void TimerQueue::sift_down(std::size_t index, const Entry& entry) noexcept {
    const std::size_t size = entries_.size();
    for (;;) {
        const std::size_t first = index * kArity + 1;
        if (first >= size) break;
        const std::size_t end = first + kArity < size ? first + kArity : size;
        std::size_t least = first;
        for (std::size_t child = first + 1; child < end; ++child) {
            if (before(entries_[child], entries_[least])) least = child;
        }
        if (!before(entries_[least], entry)) break;
        place(index, entries_[least]);
        index = least;
    }
    place(index, entry);
}

}  // namespace culm::runtime
