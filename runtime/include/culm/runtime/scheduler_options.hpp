// What a scheduler is made with, and what it counts.
//
// Apart from the scheduler itself so that tools can pass the numbers on without seeing it.
// Invariant: plain values; a statistic counts from the scheduler's creation or says how many there are now.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "culm/runtime/clock.hpp"
#include "culm/runtime/reactor.hpp"
#include "culm/runtime/shrink.hpp"

namespace culm::runtime {

struct SchedulerOptions {
    std::unique_ptr<Clock> clock;      // null: monotonic
    std::unique_ptr<Reactor> reactor;  // null: epoll
    std::uint64_t seed = 0;            // not 0: runnable fibers run in an order drawn from this seed
};

struct SchedulerStatistics {
    std::uint64_t switches = 0;
    std::uint64_t spawned = 0;
    std::uint64_t finished = 0;
    std::uint64_t polls = 0;         // reactor polls
    std::uint64_t idle_polls = 0;    // of these, with nothing runnable
    std::uint64_t remote_calls = 0;  // calls posted by other threads
    std::size_t fibers = 0;          // started and unfinished, without the main fiber
    std::size_t ready = 0;
    std::size_t timers = 0;
    std::size_t fd_waits = 0;
    ShrinkStatistics shrink;
};

}  // namespace culm::runtime
