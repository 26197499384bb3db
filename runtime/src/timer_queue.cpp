// Sifting: the hole moves, the entry is written once.
#include "timer_queue.hpp"

#include <cassert>

namespace culm::runtime {

namespace {
constexpr std::size_t kArity = 4;
}

void TimerQueue::add(Fiber& fiber, std::int64_t deadline_ns) noexcept {
    assert(!holds(fiber));
    insert(deadline_ns, false, fiber.timer_index_);
}

void TimerQueue::add(Scope& scope) noexcept {
    assert(!holds(scope));
    insert(scope.deadline_ns_, true, scope.timer_index_);
}

void TimerQueue::remove(Fiber& fiber) noexcept { erase(fiber.timer_index_); }

void TimerQueue::remove(Scope& scope) noexcept { erase(scope.timer_index_); }

TimerQueue::Due TimerQueue::pop_due(std::int64_t now_ns) noexcept {
    if (next_deadline_ns() > now_ns || entries_.empty()) return {};
    const Entry first = entries_[0];
    erase(*first.place);
    return due(first);
}

TimerQueue::Due TimerQueue::due(const Entry& entry) noexcept {
    if (entry.is_scope()) return {nullptr, owner_of(entry.place, &Scope::timer_index_)};
    return {owner_of(entry.place, &Fiber::timer_index_), nullptr};
}

void TimerQueue::insert(std::int64_t deadline_ns, bool is_scope, std::uint32_t& place) noexcept {
    const Entry entry{deadline_ns, arrivals_ | (is_scope ? 1U : 0U), &place};
    arrivals_ += 2;
    entries_.push(entry);
    sift_up(entries_.size() - 1, entry);
}

// `place` is the owner's record of where its entry is.
void TimerQueue::erase(std::uint32_t& place) noexcept {
    assert(place != kNotHeld);
    const std::size_t index = place;
    place = kNotHeld;
    const Entry last = entries_.pop();
    if (index == entries_.size()) return;
    if (index > 0 && before(last, entries_[(index - 1) / kArity])) {
        sift_up(index, last);
    } else {
        sift_down(index, last);
    }
}

void TimerQueue::place(std::size_t index, const Entry& entry) noexcept {
    entries_[index] = entry;
    *entry.place = static_cast<std::uint32_t>(index);
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
