// What a scheduler owns besides the few words that every switch touches.
// Invariant: the shrinker lists exactly the started, unfinished fibers other than the main one, and `fibers` is their
// number.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "closing_notices.hpp"
#include "culm/runtime/scheduler.hpp"
#include "culm/stack_pool.hpp"
#include "culm/strategy_pool.hpp"
#include "fiber_slab.hpp"
#include "flat_array.hpp"
#include "inbox.hpp"
#include "run_queue.hpp"
#include "shrinker.hpp"
#include "timer_queue.hpp"
#include "wait_pool.hpp"

namespace culm::runtime {

struct Scheduler::Parts {
    // Of the arena's pool or another strategy's.
    Result<void> promise_stack(StackClass size_class, StrategyIndex strategy) noexcept;
    void unpromise_stack(StackClass size_class, StrategyIndex strategy) noexcept;

    RunQueue run_queue;
    TimerQueue timers;
    WaitPool extra_waits;
    Inbox inbox;
    Shrinker shrinker;
    ClosingNotices* closings = nullptr;
    FiberSlab* slab = nullptr;
    std::unique_ptr<StackPool> stacks;
    StrategyPool strategy_stacks;  // of fibers that asked for another strategy than the arena
    unsigned long thread_identity = 0;

    std::size_t fibers = 0;
    std::size_t unstarted = 0;         // made, neither started nor discarded
    std::size_t scopes = 0;            // entered
    std::size_t stacks_abandoned = 0;  // never to be used again

    Fiber* undertaker = nullptr;     // a reference; see undertaker.hpp
    FlatArray<Fiber*> out_of_stack;  // references, for the undertaker

    std::uint64_t spawned = 0;
    std::uint64_t finished = 0;
    std::uint64_t polls = 0;
    std::uint64_t idle_polls = 0;
    std::uint64_t remote_calls = 0;

    // Housekeeping: shrinking after idleness, verifying registrations that have waited long.
    std::uint64_t switches_at_idle = 0;
    std::int64_t idle_since_ns = 0;
    bool recheck_wanted = false;     // a descriptor was waited for since the last recheck
    std::int64_t recheck_at_ns = 0;  // 0: not set yet
};

}  // namespace culm::runtime
