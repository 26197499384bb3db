// pthread mutexes and fibers. A mutex belongs to an OS thread, so libc cannot tell two fibers of a thread apart.
//
// The mutexes that the running fiber holds are counted. While there is one, its blocking calls block the OS thread,
// unless the caller has given the embedding language's lock up (Consent::kYes): then it expects others to run
// meanwhile, as a database driver does that guards a connection with a mutex across a query. Such a mutex may stay
// locked while its fiber is parked, and a second fiber that wants it parks until it is unlocked, where libc would lock
// the thread up or, if the mutex is recursive, let both in. The interpreter's own mutexes are not hooked (table.cpp). A
// mutex that one fiber locks and another unlocks leaves the first with a count too high: its calls then block the
// thread, which is slow but right. The count never goes below 0.
// Invariant: a fiber waits in the parking lot under a mutex's address only while it is parked for that mutex.
#include <unistd.h>

#include "gate.hpp"
#include "hooks.hpp"
#include "parking_lot.hpp"

namespace culm::runtime::interpose {

namespace {

// Fibers of this thread that are parked for a mutex: while there are none, unlocking need not look for them.
inline constinit thread_local unsigned waiting = 0;

inline constinit thread_local pid_t thread_id = 0;

// glibc writes the owner into every kind of mutex.
bool owned_by_this_thread(const pthread_mutex_t* mutex) noexcept {
    if (mutex->__data.__owner == 0) return false;
    if (thread_id == 0) thread_id = ::gettid();
    return mutex->__data.__owner == thread_id;
}

// Whether another fiber of this thread holds it. libc takes both for the same thread: it would let the second wait for
// ever or, if the mutex is recursive, not wait at all.
bool held_by_other_fiber(const pthread_mutex_t* mutex, Fiber& self) noexcept {
    if (!owned_by_this_thread(mutex)) return false;
    if (FiberNotes(self).held_mutexes() == 0) return true;
    // Perhaps `self` holds it, and locks it again. Only for a normal mutex it is right to wait then as well.
    constexpr int kKindMask = 3;
    return (mutex->__data.__kind & kKindMask) == PTHREAD_MUTEX_NORMAL;
}

// Parks until the mutex is not held by another fiber of this thread, or the deadline passes: 0 or ETIMEDOUT.
// A cancellation or signal meanwhile is kept for the fiber's next wait: a mutex has no such failure.
int wait_for_fiber(Scheduler& scheduler, const pthread_mutex_t* mutex, std::int64_t deadline_ns) noexcept {
    Fiber& self = scheduler.running();
    Parking parking(scheduler);
    bool cancelled = false;
    Wake wake = Wake::kNotified;
    ++waiting;
    while (held_by_other_fiber(mutex, self) && wake != Wake::kTimeout) {
        ParkingLot::get().link(scheduler.begin_wait(WaitKind::kLock, mutex, true), false);
        wake = scheduler.await(deadline_ns);
        cancelled = cancelled || wake == Wake::kCancelled;
    }
    --waiting;
    if (cancelled) Scheduler::cancel(self);
    return wake == Wake::kTimeout && held_by_other_fiber(mutex, self) ? ETIMEDOUT : 0;
}

Scheduler* scheduler_to_wait_in(const pthread_mutex_t* mutex) noexcept {
    Scheduler* scheduler = Scheduler::current();
    if (scheduler == nullptr || in_embedder || scheduler->at_work()) return nullptr;
    return held_by_other_fiber(mutex, scheduler->running()) ? scheduler : nullptr;
}

inline int count_taken(int result) noexcept {
    if (result != 0 && result != EOWNERDEAD) return result;
    Scheduler* scheduler = Scheduler::current();
    if (!scheduler) return result;
    FiberNotes(scheduler->running()).note_mutex_taken();
    return result;
}

}  // namespace

namespace hooks {

int pthread_mutex_lock(pthread_mutex_t* mutex) noexcept {
    if (Scheduler* scheduler = scheduler_to_wait_in(mutex)) wait_for_fiber(*scheduler, mutex, kNever);
    return count_taken(real.pthread_mutex_lock(mutex));
}

int pthread_mutex_trylock(pthread_mutex_t* mutex) noexcept {
    if (scheduler_to_wait_in(mutex)) return EBUSY;
    return count_taken(real.pthread_mutex_trylock(mutex));
}

int pthread_mutex_timedlock(pthread_mutex_t* mutex, const timespec* deadline) noexcept {
    return hooks::pthread_mutex_clocklock(mutex, CLOCK_REALTIME, deadline);
}

int pthread_mutex_clocklock(pthread_mutex_t* mutex, clockid_t clock, const timespec* deadline) noexcept {
    Scheduler* scheduler = scheduler_to_wait_in(mutex);
    if (scheduler && valid(*deadline)) {
        const int failure = wait_for_fiber(*scheduler, mutex, deadline_at(*scheduler, clock, *deadline));
        if (failure != 0) return failure;
    }
    if (clock == CLOCK_REALTIME) return count_taken(real.pthread_mutex_timedlock(mutex, deadline));
    return count_taken(real.pthread_mutex_clocklock(mutex, clock, deadline));
}

int pthread_mutex_unlock(pthread_mutex_t* mutex) noexcept {
    const int result = real.pthread_mutex_unlock(mutex);
    if (result != 0) return result;
    Scheduler* scheduler = Scheduler::current();
    if (!scheduler) return result;
    FiberNotes(scheduler->running()).note_mutex_released();
    if (waiting > 0 && !owned_by_this_thread(mutex)) ParkingLot::get().wake_one(mutex);
    return result;
}

}  // namespace hooks

}  // namespace culm::runtime::interpose
