// Fibers of one scheduler that wait for the same thing, first come first served.
//
// Used by one OS thread only. The fiber is linked by its control block, so waiting allocates nothing.
// Invariant: a fiber in a WaitQueue is parked, and every way of waking it takes it out of the queue.
#pragma once

#include <cstdint>

#include "culm/runtime/clock.hpp"

namespace culm::runtime {

class Fiber;
class Scheduler;
enum class Wake : std::uint8_t;
enum class WaitKind : std::uint8_t;

class WaitQueue {
public:
    WaitQueue() = default;
    ~WaitQueue();  // asserts that nobody waits
    WaitQueue(const WaitQueue&) = delete;
    WaitQueue& operator=(const WaitQueue&) = delete;

    bool empty() const noexcept { return head_ == nullptr; }

    // Parks the running fiber at the end of the queue (at its head if `front`) until it is notified, the deadline
    // passes, it is cancelled or a signal interrupts it. Switches.
    Wake wait(Scheduler& scheduler, WaitKind kind, std::int64_t deadline_ns = kNever, bool front = false) noexcept;

    Fiber* notify_one() noexcept;  // the fiber made ready, or null
    void notify_all() noexcept;

private:
    friend class Scheduler;
    void link_back(Fiber& fiber) noexcept;
    void link_front(Fiber& fiber) noexcept;
    void unlink(Fiber& fiber) noexcept;

    Fiber* head_ = nullptr;
    Fiber* tail_ = nullptr;
};

}  // namespace culm::runtime
