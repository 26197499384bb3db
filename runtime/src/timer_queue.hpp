// Deadlines of parked fibers and of cancel scopes: a 4-ary heap, each knows its place in it.
//
// Four children a node: half the levels of a binary heap, and the children share one or two cache lines.
// Invariant: room for one entry per fiber and per scope is reserved when it is made, so that add() cannot fail; equal
// deadlines come out in the order in which they went in.
#pragma once

#include <cstddef>
#include <cstdint>

#include "culm/runtime/fiber.hpp"
#include "culm/runtime/scope.hpp"
#include "flat_array.hpp"

namespace culm::runtime {

class TimerQueue {
public:
    // What is due: one of the two, or neither.
    struct Due {
        Fiber* fiber = nullptr;
        Scope* scope = nullptr;
        explicit operator bool() const noexcept { return fiber || scope; }
    };

    [[nodiscard]] bool reserve(std::size_t timers) noexcept { return entries_.reserve(timers); }

    bool empty() const noexcept { return entries_.empty(); }
    std::size_t size() const noexcept { return entries_.size(); }
    // kNever when empty.
    std::int64_t next_deadline_ns() const noexcept { return entries_.empty() ? kNever : entries_[0].deadline_ns; }

    void add(Fiber& fiber, std::int64_t deadline_ns) noexcept;
    void add(Scope& scope) noexcept;  // with its own deadline
    void remove(Fiber& fiber) noexcept;
    void remove(Scope& scope) noexcept;
    // The one with the earliest deadline if that is not after now, taken out.
    Due pop_due(std::int64_t now_ns) noexcept;

    // kNever for a fiber that is not held.
    std::int64_t deadline_of(const Fiber& fiber) const noexcept {
        return holds(fiber) ? entries_[fiber.timer_index_].deadline_ns : kNever;
    }
    static bool holds(const Fiber& fiber) noexcept { return fiber.timer_index_ != kNotHeld; }
    static bool holds(const Scope& scope) noexcept { return scope.timer_index_ != kNotHeld; }

private:
    static constexpr std::uint32_t kNotHeld = UINT32_MAX;
    struct Entry {
        std::int64_t deadline_ns;
        std::uint64_t arrival;  // breaks ties; the lowest bit says that the owner is a scope
        std::uint32_t* place;   // timer_index_ of the owner, a Fiber or a Scope
        bool is_scope() const noexcept { return (arrival & 1) != 0; }
    };

    static bool before(const Entry& a, const Entry& b) noexcept {
        return a.deadline_ns != b.deadline_ns ? a.deadline_ns < b.deadline_ns : a.arrival < b.arrival;
    }
    static Due due(const Entry& entry) noexcept;
    void insert(std::int64_t deadline_ns, bool is_scope, std::uint32_t& place) noexcept;
    void erase(std::uint32_t& place) noexcept;
    void place(std::size_t index, const Entry& entry) noexcept;
    void sift_up(std::size_t index, const Entry& entry) noexcept;
    void sift_down(std::size_t index, const Entry& entry) noexcept;

    FlatArray<Entry> entries_;
    std::uint64_t arrivals_ = 0;
};

}  // namespace culm::runtime
