// Fibers of one scheduler that wait for the same thing, first come first served.
//
// Used by one OS thread only. Waiting allocates nothing: what is linked is the fiber's own record.
// Invariant: every record in the queue belongs to a fiber that is parked or about to park, and every way of waking it
// takes the record out.
#pragma once

#include <cstdint>

#include "culm/runtime/clock.hpp"
#include "culm/runtime/wait_ring.hpp"

namespace culm::runtime {

class Fiber;
class Scheduler;

class WaitQueue {
public:
    WaitQueue() = default;
    ~WaitQueue();  // asserts that nobody waits
    WaitQueue(const WaitQueue&) = delete;
    WaitQueue& operator=(const WaitQueue&) = delete;

    bool empty() const noexcept { return waits_.empty(); }

    // Parks the running fiber at the end of the queue (at its head if `front`) until it is notified, the deadline
    // passes, it is cancelled or a signal interrupts it. Switches.
    Wake wait(Scheduler& scheduler, WaitKind kind, std::int64_t deadline_ns = kNever, bool front = false) noexcept;

    Fiber* notify_one() noexcept;  // the fiber made ready, or null
    void notify_all() noexcept;

private:
    WaitRing waits_;
};

}  // namespace culm::runtime
