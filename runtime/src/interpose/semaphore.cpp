// sem_wait, sem_timedwait, sem_clockwait, sem_post, sem_destroy, for the interpreter's locks.
//
// The count stays in the real semaphore, so OS threads and fibers may compete for it. A fiber that finds it empty waits
// in the parking lot under the semaphore's address; sem_post does the real post and then wakes the first fiber there.
// A fiber that was woken tries again, and waits in front of the others if somebody was faster. One that needs the wake
// no more, because it got the semaphore in the moment between linking and parking, passes it on.
// Invariant: whenever the semaphore's count is above zero, no fiber waits that has not been woken.
#include <atomic>

#include "gate.hpp"
#include "hooks.hpp"
#include "parking_lot.hpp"

namespace culm::runtime::interpose {

namespace {

bool try_take(sem_t* semaphore) noexcept { return real.sem_trywait(semaphore) == 0; }

// Whoever posts sees the linked record, or we see the post. sem_trywait begins with a relaxed load, which must not be
// made before the link is visible. ThreadSanitizer does not model fences, and GCC warns of that.
void order_before_looking() noexcept {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpragmas"
#pragma GCC diagnostic ignored "-Wtsan"
    std::atomic_thread_fence(std::memory_order_seq_cst);
#pragma GCC diagnostic pop
}

// The semaphore whose wait was cancelled last on this thread. One is enough: the fiber that waited runs on at once, and
// no other runs before it has raised that.
constinit thread_local const sem_t* cancelled_semaphore = nullptr;

// The semaphore is taken. If the wait for it was cancelled just before, the lock was handed over in the same moment.
// Then Cancelled must not be raised here, where no clean-up of the program would unlock the lock, but at the next wait.
void put_cancellation_off(Scheduler& scheduler, const sem_t* semaphore) noexcept {
    Fiber& self = scheduler.running();
    FiberNotes notes(self);
    if (!notes.is_lock_cancelled() || semaphore != cancelled_semaphore) [[likely]]
        return;
    notes.set_lock_cancelled(false);
    Scheduler::cancel(self);
}

// Waits until the semaphore is taken: 0, or the errno of the failure. With cancelled_meanwhile the fiber is to be
// cancelled again afterwards.
int take_waiting(Scheduler& scheduler, sem_t* semaphore, std::int64_t deadline_ns, bool& cancelled_meanwhile) noexcept {
    Parking parking(scheduler);
    ParkingLot& lot = ParkingLot::get();
    for (bool at_front = false;; at_front = true) {
        Wait& wait = scheduler.begin_wait(WaitKind::kLock, semaphore, true);
        lot.link(wait, at_front);
        order_before_looking();
        if (try_take(semaphore)) {
            if (scheduler.give_up_wait()) lot.wake_one(semaphore);
            return 0;
        }
        const Wake wake = scheduler.await(deadline_ns);
        if (wake == Wake::kClosed) return EINVAL;
        const bool gives_up = wake == Wake::kCancelled || wake == Wake::kInterrupted;
        if (!gives_up && try_take(semaphore)) return 0;
        if (wake == Wake::kNotified) continue;
        cancelled_semaphore = semaphore;
        const int outcome = parking.lock_outcome(wake);
        if (outcome != ECANCELED) return outcome;
        cancelled_meanwhile = true;
        if (try_take(semaphore)) return 0;
    }
}

int take(Scheduler& scheduler, sem_t* semaphore, std::int64_t deadline_ns, int errno_before) noexcept {
    bool cancelled_meanwhile = false;
    const int failure = take_waiting(scheduler, semaphore, deadline_ns, cancelled_meanwhile);
    errno = failure == 0 ? errno_before : failure;
    if (failure == 0) put_cancellation_off(scheduler, semaphore);
    if (cancelled_meanwhile) Scheduler::cancel(scheduler.running());
    return failure == 0 ? 0 : -1;
}

}  // namespace

namespace hooks {

int sem_wait(sem_t* semaphore) noexcept {
    Scheduler* scheduler = gate();
    if (!scheduler) return real.sem_wait(semaphore);
    const int errno_before = errno;
    if (try_take(semaphore)) {
        put_cancellation_off(*scheduler, semaphore);
        return 0;
    }
    return take(*scheduler, semaphore, kNever, errno_before);
}

int sem_clockwait(sem_t* semaphore, clockid_t clock, const timespec* deadline) noexcept {
    Scheduler* scheduler = gate();
    const bool known = clock == CLOCK_REALTIME || clock == CLOCK_MONOTONIC;
    if (!scheduler || !known || deadline->tv_nsec < 0 || deadline->tv_nsec >= kNanosecondsPerSecond) {
        return real.sem_clockwait(semaphore, clock, deadline);
    }
    const int errno_before = errno;
    if (try_take(semaphore)) {
        put_cancellation_off(*scheduler, semaphore);
        errno = errno_before;
        return 0;
    }
    if (!valid(*deadline)) {  // before the epoch
        errno = ETIMEDOUT;
        return -1;
    }
    return take(*scheduler, semaphore, deadline_at(*scheduler, clock, *deadline), errno_before);
}

int sem_timedwait(sem_t* semaphore, const timespec* deadline) noexcept {
    if (!gate()) return real.sem_timedwait(semaphore, deadline);
    if (deadline->tv_nsec < 0 || deadline->tv_nsec >= kNanosecondsPerSecond) {
        return real.sem_timedwait(semaphore, deadline);
    }
    return hooks::sem_clockwait(semaphore, CLOCK_REALTIME, deadline);
}

int sem_post(sem_t* semaphore) noexcept {
    const int result = real.sem_post(semaphore);
    // From here on the semaphore may be gone: only its address is used.
    if (result == 0) ParkingLot::get().wake_one(semaphore);
    return result;
}

// Destroying a semaphore that somebody waits for is undefined; its fibers fail with EINVAL rather than wait for ever.
int sem_destroy(sem_t* semaphore) noexcept {
    const int result = real.sem_destroy(semaphore);
    if (result == 0) ParkingLot::get().wake_all(semaphore, true);
    return result;
}

}  // namespace hooks

}  // namespace culm::runtime::interpose
