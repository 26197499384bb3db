// sem_wait, sem_timedwait, sem_clockwait, sem_post, sem_destroy, for the interpreter's locks.
//
// The count stays in the real semaphore, so OS threads and fibers may compete for it. A fiber that finds it empty
// queues in a process-wide table keyed by the semaphore's address; sem_post does the real post and then, if anybody
// queues in that part of the table, wakes the first fiber of that address, by Scheduler::post if it lives on another
// thread.
//
// No wake-up is lost: a waiter queues, then tries again; a poster posts, then looks at the queue; both orders are
// sequentially consistent, so one of them sees the other. A fiber that was notified and leaves without the semaphore
// (timeout, cancellation, signal) passes the notification on; one that finds the semaphore taken queues at the front.
// Waiters live on the heap and are counted, because a call posted to another thread may arrive after its fiber has
// gone. Invariant: a shard's mutex is never held across a park. A sem_post from a signal handler that interrupts a
// holder is made up for when the holder lets go.
#include <array>
#include <atomic>
#include <mutex>
#include <new>

#include "gate.hpp"
#include "hooks.hpp"
#include "semaphore.hpp"

namespace culm::runtime::interpose {

namespace {

struct Waiter {
    Waiter* previous = nullptr;
    Waiter* next = nullptr;
    const sem_t* semaphore;
    Fiber* fiber;                       // retained: with it its scheduler exists, closed or not
    bool queued = false;                // under the shard's mutex
    std::atomic<bool> notified{false};  // written under the shard's mutex
    bool destroyed = false;             // under the shard's mutex: the semaphore is no more
    bool active = true;                 // owning thread only: the fiber still waits with this record
    std::atomic<unsigned> references{1};

    void release() noexcept {
        if (references.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
    }
};

struct Shard {
    std::mutex mutex;
    Waiter* first = nullptr;
    Waiter* last = nullptr;
    std::atomic<unsigned> waiting{0};  // records queued
};

constexpr unsigned kShards = 32;
std::array<Shard, kShards> shards;

// This thread holds a shard's mutex; a post from a signal handler arrived meanwhile.
constinit thread_local volatile sig_atomic_t holds_shard = 0;
constinit thread_local volatile sig_atomic_t missed_post = 0;

Shard& shard_of(const sem_t* semaphore) noexcept {
    const auto address = reinterpret_cast<std::uintptr_t>(semaphore);
    return shards[(address >> 5 ^ address >> 12) % kShards];
}

void notify_first(Shard& shard, const sem_t* semaphore) noexcept;

class ShardLock {
public:
    explicit ShardLock(Shard& shard) noexcept : shard_(shard) {
        holds_shard = 1;
        shard_.mutex.lock();
    }
    ~ShardLock() {
        shard_.mutex.unlock();
        holds_shard = 0;
        if (missed_post == 0) return;
        missed_post = 0;
        // Which semaphore it was is not known: wake everybody, those without a token queue again.
        for (Shard& each : shards) {
            ShardLock lock(each);
            while (each.first) notify_first(each, each.first->semaphore);
        }
    }
    ShardLock(const ShardLock&) = delete;
    ShardLock& operator=(const ShardLock&) = delete;

private:
    Shard& shard_;
};

// The three below: under the shard's mutex.
void enqueue(Shard& shard, Waiter& waiter, bool at_front) noexcept {
    waiter.queued = true;
    waiter.notified.store(false, std::memory_order_relaxed);
    waiter.previous = at_front ? nullptr : shard.last;
    waiter.next = at_front ? shard.first : nullptr;
    (waiter.previous ? waiter.previous->next : shard.first) = &waiter;
    (waiter.next ? waiter.next->previous : shard.last) = &waiter;
    shard.waiting.fetch_add(1, std::memory_order_seq_cst);
}

void dequeue(Shard& shard, Waiter& waiter) noexcept {
    (waiter.previous ? waiter.previous->next : shard.first) = waiter.next;
    (waiter.next ? waiter.next->previous : shard.last) = waiter.previous;
    waiter.previous = waiter.next = nullptr;
    waiter.queued = false;
    shard.waiting.fetch_sub(1, std::memory_order_seq_cst);
}

// Makes the waiter's fiber runnable. False: it will never run again.
bool rouse(Waiter& waiter) noexcept {
    Scheduler* here = Scheduler::current();
    if (here && &waiter.fiber->scheduler() == here && !here->at_work()) {
        if (waiter.fiber->state() == FiberState::kFinished) return false;  // given up after a fork
        here->wake(*waiter.fiber, Wake::kNotified);  // not parked yet: sees `notified` before it does
        return true;
    }
    waiter.references.fetch_add(1, std::memory_order_relaxed);
    const auto arrive = [](Scheduler& scheduler, void* argument) {
        auto* arrived = static_cast<Waiter*>(argument);
        if (arrived->active && arrived->notified.load(std::memory_order_relaxed)) {
            scheduler.wake(*arrived->fiber, Wake::kNotified);
        }
        arrived->release();
    };
    if (waiter.fiber->scheduler().post(arrive, &waiter)) return true;
    waiter.release();
    return false;
}

void notify_first(Shard& shard, const sem_t* semaphore) noexcept {
    for (Waiter* waiter = shard.first; waiter;) {
        Waiter* next = waiter->next;
        if (waiter->semaphore == semaphore) {
            dequeue(shard, *waiter);
            waiter->notified.store(true, std::memory_order_relaxed);
            if (rouse(*waiter)) return;
        }
        waiter = next;
    }
}

bool try_take(sem_t* semaphore) noexcept { return real.sem_trywait(semaphore) == 0; }

// The one whose wait was cancelled last on this thread; the fiber runs on at once, until it has raised that.
constinit thread_local const sem_t* cancelled_semaphore = nullptr;

// The semaphore is taken. Had its wait been cancelled just before, the lock was being handed over in the same moment:
// its holder must not be interrupted here, outside of any clean-up, but at its next wait.
void put_cancellation_off(Scheduler& scheduler, const sem_t* semaphore) noexcept {
    Fiber& self = scheduler.running();
    if (!self.lock_cancelled || semaphore != cancelled_semaphore) [[likely]]
        return;
    self.lock_cancelled = false;
    scheduler.cancel(self);
}

// Takes the record out of the table. With passes_on a notification that it was given goes to the next in line, because
// this fiber has the semaphore without it or gives up.
struct Departure {
    bool notified = false;
    bool destroyed = false;
};
Departure depart(Waiter& waiter, bool passes_on) noexcept {
    Shard& shard = shard_of(waiter.semaphore);
    ShardLock lock(shard);
    if (waiter.queued) dequeue(shard, waiter);
    const Departure result{waiter.notified.load(std::memory_order_relaxed), waiter.destroyed};
    if (result.notified && passes_on) notify_first(shard, waiter.semaphore);
    return result;
}

// Waits until the semaphore is taken: 0, or the errno of the failure. With cancelled_meanwhile the fiber is to be
// cancelled again afterwards.
int take_waiting(Scheduler& scheduler, sem_t* semaphore, std::int64_t deadline_ns, Waiter& waiter,
                 bool& cancelled_meanwhile) noexcept {
    Parking parking(scheduler);
    Shard& shard = shard_of(semaphore);
    for (bool at_front = false;; at_front = true) {
        {
            ShardLock lock(shard);
            if (waiter.destroyed) return EINVAL;
            enqueue(shard, waiter, at_front);
        }
        order_before_looking();
        if (try_take(semaphore)) {
            depart(waiter, true);
            return 0;
        }
        if (waiter.notified.load(std::memory_order_relaxed)) continue;
        const Wake wake = scheduler.block(WaitKind::kLock, reinterpret_cast<std::uintptr_t>(semaphore), deadline_ns);
        const bool gives_up = wake != Wake::kNotified;
        if (wake == Wake::kTimeout && try_take(semaphore)) {
            depart(waiter, true);
            return 0;
        }
        const Departure departure = depart(waiter, gives_up);
        if (departure.destroyed) return EINVAL;
        if (gives_up) {
            cancelled_semaphore = semaphore;
            const int outcome = parking.lock_outcome(wake);
            if (outcome != ECANCELED) return outcome;
            cancelled_meanwhile = true;
        }
        if (try_take(semaphore)) return 0;
    }
}

// Without memory for a record: looks from time to time.
int take_by_looking(Scheduler& scheduler, sem_t* semaphore, std::int64_t deadline_ns) noexcept {
    BackOff back_off;
    while (!try_take(semaphore)) {
        if (deadline_ns != kNever && scheduler.clock().now_ns() >= deadline_ns) return ETIMEDOUT;
        if (const int failure = back_off.wait(scheduler, deadline_ns); failure != 0) return failure;
    }
    return 0;
}

int take(Scheduler& scheduler, sem_t* semaphore, std::int64_t deadline_ns, int errno_before) noexcept {
    auto* waiter = new (std::nothrow) Waiter{.semaphore = semaphore, .fiber = &scheduler.running()};
    int failure = 0;
    bool cancelled_meanwhile = false;
    if (waiter) {
        waiter->fiber->retain();
        Fiber* fiber = waiter->fiber;
        failure = take_waiting(scheduler, semaphore, deadline_ns, *waiter, cancelled_meanwhile);
        waiter->active = false;
        waiter->release();
        fiber->release();
    } else {
        failure = take_by_looking(scheduler, semaphore, deadline_ns);
    }
    errno = failure == 0 ? errno_before : failure;
    if (failure == 0) put_cancellation_off(scheduler, semaphore);
    if (cancelled_meanwhile) scheduler.cancel(scheduler.running());
    return failure == 0 ? 0 : -1;
}

}  // namespace

namespace semaphores {

void before_fork() noexcept {
    for (Shard& shard : shards) shard.mutex.lock();
}

void after_fork_in_parent() noexcept {
    for (Shard& shard : shards) shard.mutex.unlock();
}

void after_fork_in_child() noexcept {
    const Scheduler* here = Scheduler::current();
    for (Shard& shard : shards) {
        for (Waiter* waiter = shard.first; waiter;) {
            Waiter* next = waiter->next;
            // Fibers of threads that do not exist here. Their records are leaked with their stacks.
            if (&waiter->fiber->scheduler() != here) dequeue(shard, *waiter);
            waiter = next;
        }
        shard.mutex.unlock();
    }
}

}  // namespace semaphores

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
    if (result != 0) return result;
    // From here on the semaphore may be gone: only its address is used.
    Shard& shard = shard_of(semaphore);
    if (shard.waiting.load(std::memory_order_seq_cst) == 0) return 0;
    if (holds_shard != 0) {
        missed_post = 1;
        return 0;
    }
    const int errno_before = errno;
    {
        ShardLock lock(shard);
        notify_first(shard, semaphore);
    }
    errno = errno_before;
    return 0;
}

// Destroying a semaphore that somebody waits for is undefined; its fibers fail with EINVAL rather than wait for ever.
int sem_destroy(sem_t* semaphore) noexcept {
    const int result = real.sem_destroy(semaphore);
    Shard& shard = shard_of(semaphore);
    if (result != 0 || shard.waiting.load(std::memory_order_seq_cst) == 0) return result;
    ShardLock lock(shard);
    for (Waiter* waiter = shard.first; waiter;) {
        Waiter* next = waiter->next;
        if (waiter->semaphore == semaphore) {
            waiter->destroyed = true;
            dequeue(shard, *waiter);
            waiter->notified.store(true, std::memory_order_relaxed);
            static_cast<void>(rouse(*waiter));
        }
        waiter = next;
    }
    return result;
}

}  // namespace hooks

}  // namespace culm::runtime::interpose
