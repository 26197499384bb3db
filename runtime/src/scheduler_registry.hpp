// All schedulers of the process, and the slabs of control blocks that outlive them.
//
// A scheduler that was closed is destroyed when the last of its control blocks has been released; until then it waits
// here. Slabs are handed on to later schedulers.
// Invariant: a slab belongs to one open scheduler, or to one closed scheduler that waits here, or is spare.
#pragma once

#include <memory>
#include <mutex>

#include "culm/runtime/scheduler.hpp"
#include "culm/stack_pool.hpp"
#include "fiber_slab.hpp"
#include "flat_array.hpp"

namespace culm::runtime {

class SchedulerRegistry {
public:
    static SchedulerRegistry& get() noexcept;

    // Lists the scheduler and gives it a slab, owned by the calling thread. False: no memory.
    [[nodiscard]] bool enrol(Scheduler& scheduler) noexcept;
    // Takes back an enrolment that led to nothing.
    void withdraw(Scheduler& scheduler) noexcept;
    // The scheduler is closed and its thread owns the slab no longer. Destroys it, now or later.
    void retire(Scheduler& scheduler) noexcept;
    // After fork: the scheduler's thread is gone. It is listed no longer, and never destroyed.
    void drop(Scheduler& scheduler) noexcept;
    // Keeps the pool of a closed scheduler that has abandoned stacks: a pool must not be destroyed while stacks that
    // were taken from it are not back.
    void keep(std::unique_ptr<StackPool> pool) noexcept;
    // The settings of shrinking have changed: the calling thread's scheduler follows now, idle threads are woken for
    // it.
    void follow_settings() noexcept;
    // Held across fork, so that the child finds it free.
    void lock() noexcept { mutex_.lock(); }
    void unlock() noexcept { mutex_.unlock(); }
    // Any open scheduler but `except`; null when there is none.
    Scheduler* any_open_but(const Scheduler* except) noexcept;

private:
    SchedulerRegistry() = default;
    void unlist(Scheduler& scheduler) noexcept;
    void destroy_unreferenced() noexcept;

    std::mutex mutex_;
    FlatArray<Scheduler*> open_;
    FlatArray<Scheduler*> closed_;
    FlatArray<FiberSlab*> spare_;
    FlatArray<StackPool*> kept_pools_;
};

}  // namespace culm::runtime
