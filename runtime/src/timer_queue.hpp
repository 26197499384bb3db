// Deadlines of parked fibers: a 4-ary heap, each fiber knows its place in it.
//
// Four children a node: half the levels of a binary heap, and the children share one or two cache lines.
// Invariant: room for one entry per fiber is reserved when the fiber is made, so that add() cannot fail; equal
// deadlines come out in the order in which they went in.
#pragma once

#include <cstddef>
#include <cstdint>

#include "culm/runtime/fiber.hpp"
#include "flat_array.hpp"

namespace culm::runtime {

class TimerQueue {
public:
    [[nodiscard]] bool reserve(std::size_t fibers) noexcept { return entries_.reserve(fibers); }

    bool empty() const noexcept { return entries_.empty(); }
    std::size_t size() const noexcept { return entries_.size(); }
    // kNever when empty.
    std::int64_t next_deadline_ns() const noexcept { return entries_.empty() ? kNever : entries_[0].deadline_ns; }

    void add(Fiber& fiber, std::int64_t deadline_ns) noexcept;
    void remove(Fiber& fiber) noexcept;
    // The fiber with the earliest deadline if that is not after now, taken out; else null.
    Fiber* pop_due(std::int64_t now_ns) noexcept;

    static bool holds(const Fiber& fiber) noexcept { return fiber.timer_index_ != kNotHeld; }

private:
    static constexpr std::uint32_t kNotHeld = UINT32_MAX;
    struct Entry {
        std::int64_t deadline_ns;
        std::uint64_t arrival;  // breaks ties
        Fiber* fiber;
    };

    static bool before(const Entry& a, const Entry& b) noexcept {
        return a.deadline_ns != b.deadline_ns ? a.deadline_ns < b.deadline_ns : a.arrival < b.arrival;
    }
    void place(std::size_t index, const Entry& entry) noexcept;
    void sift_up(std::size_t index, const Entry& entry) noexcept;
    void sift_down(std::size_t index, const Entry& entry) noexcept;

    FlatArray<Entry> entries_;
    std::uint64_t arrivals_ = 0;
};

}  // namespace culm::runtime
