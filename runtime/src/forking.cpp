// Handlers of fork (pthread_atfork(3)), registered with the first scheduler.
//
// The locks that the child will need are held across the fork, so that it finds them free; what belonged to threads
// that do not exist in the child is dropped without being looked at closely, because they were stopped anywhere.
// Invariant: in the child, when fork() returns, one scheduler at most is left, and its kernel objects are its own.
#include "forking.hpp"

#include <pthread.h>

#include <atomic>

#include "closing_notices.hpp"
#include "culm/runtime/forking.hpp"
#include "embedder.hpp"
#include "fiber_moves.hpp"
#include "parking_lot.hpp"
#include "scheduler_inside.hpp"
#include "scheduler_parts.hpp"
#include "scheduler_registry.hpp"

namespace culm::runtime {

namespace {

constinit std::atomic<bool> keeps_fibers{false};

}  // namespace

void keep_fibers_after_fork(bool keep) noexcept { keeps_fibers.store(keep, std::memory_order_relaxed); }

struct Forking {
    static void prepare() noexcept {
        SchedulerRegistry::get().lock();
        ParkingLot::get().before_fork();
    }
    static void go_on_in_parent() noexcept {
        ParkingLot::get().after_fork_in_parent();
        SchedulerRegistry::get().unlock();
    }
    static void go_on_in_child() noexcept {
        ParkingLot::get().after_fork_in_child();
        SchedulerRegistry& registry = SchedulerRegistry::get();
        registry.unlock();
        Scheduler* here = Scheduler::current();
        while (Scheduler* other = registry.any_open_but(here)) {
            other->parts_->inbox.reset_after_fork(false);
            other->parts_->inbox.close();
            other->reactor_->close_descriptors();
            other->lost_in_fork_ = true;
            registry.drop(*other);
        }
        ClosingNotices::after_fork_in_child();
        if (here) here->inside().go_on_in_child(keeps_fibers.load(std::memory_order_relaxed));
    }
};

void handle_forks() noexcept {
    static const bool registered = [] {
        return ::pthread_atfork(&Forking::prepare, &Forking::go_on_in_parent, &Forking::go_on_in_child) == 0;
    }();
    static_cast<void>(registered);
}

void Scheduler::Inside::go_on_in_child(bool keep_fibers) noexcept {
    Parts& parts = *parts_;
    parts.thread_identity = pthread_self();
    parts.inbox.reset_after_fork(keep_fibers);
    parts.shrinker.own_all_kept();
    if (!keep_fibers) abandon_all_but(*running_);
    // A reactor that cannot be rebuilt leaves waits for descriptors unserved; timers and fibers go on.
    static_cast<void>(reactor_->rebuild());
    if (detail::embedder.lives.forked) detail::embedder.lives.forked(*running_);
}

void Scheduler::Inside::abandon_all_but(Fiber& survivor) noexcept {
    Parts& parts = *parts_;
    const auto lost = detail::embedder.lives.lost_in_fork;
    parts.shrinker.for_each([&](Fiber& fiber) {
        if (&fiber == &survivor) return true;
        if (lost) lost(fiber);
        abandon(fiber);
        return true;
    });
    if (main_ == &survivor) return;
    Fiber& main = *main_;
    if (lost) lost(main);
    if (main.state_ == FiberState::kReady) parts.run_queue.remove(main);
    if (TimerQueue::holds(main)) parts.timers.remove(main);
    abort_records(main);
    main.move_to(FiberState::kFinished);
    tell_joiners(main);
    survivor.retain();
    main.release();
    main_ = &survivor;
}

}  // namespace culm::runtime
