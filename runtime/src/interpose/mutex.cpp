// pthread mutexes and fibers. A mutex belongs to an OS thread, so libc cannot tell two fibers of a thread apart.
//
// The mutexes that the running fiber holds are counted. While there is one, its blocking calls block the OS thread,
// unless the caller has given the embedding language's lock up (Consent::kYes): then it expects others to run
// meanwhile, as a database driver does that guards a connection with a mutex across a query. Such a mutex may stay
// locked while its fiber is parked, and a second fiber that wants it parks until it is unlocked, where libc would lock
// the thread up or, if the mutex is recursive, let both in. The interpreter's own mutexes are not hooked (table.cpp). A
// mutex that one fiber locks and another unlocks leaves the first with a count too high: its calls then block the
// thread, which is slow but right. The count never goes below 0. Invariant: a fiber is in `waiting` only while it is
// parked for that mutex.
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "gate.hpp"
#include "hooks.hpp"

namespace culm::runtime::interpose {

namespace {

struct MutexWait {
    const pthread_mutex_t* mutex;
    Fiber* fiber;
};

// First come first served. On the heap because a thread-local object with a destructor could not be used at thread
// exit.
inline constinit thread_local std::vector<MutexWait>* waiting = nullptr;

inline constinit thread_local pid_t thread_id = 0;

// glibc writes the owner into every kind of mutex.
bool owned_by_this_thread(const pthread_mutex_t* mutex) noexcept {
    if (mutex->__data.__owner == 0) return false;
    if (thread_id == 0) thread_id = ::gettid();
    return mutex->__data.__owner == thread_id;
}

// Another fiber of this thread holds it: waiting in libc would be for ever, or not at all.
bool held_by_other_fiber(const pthread_mutex_t* mutex, const Fiber& self) noexcept {
    if (!owned_by_this_thread(mutex)) return false;
    if (self.held_mutexes == 0) return true;
    // It may be ours: only for a normal mutex is waiting the right answer to that as well.
    constexpr int kKindMask = 3;
    return (mutex->__data.__kind & kKindMask) == PTHREAD_MUTEX_NORMAL;
}

// Parks until the mutex is not held by another fiber of this thread, or the deadline passes: 0 or ETIMEDOUT.
// A cancellation or signal meanwhile is kept for the fiber's next wait: a mutex has no such failure.
int wait_for_fiber(Scheduler& scheduler, const pthread_mutex_t* mutex, std::int64_t deadline_ns) noexcept {
    Fiber& self = scheduler.running();
    Parking parking(scheduler);
    if (waiting == nullptr) waiting = new std::vector<MutexWait>;
    bool cancelled = false;
    Wake wake = Wake::kNotified;
    while (held_by_other_fiber(mutex, self) && wake != Wake::kTimeout) {
        waiting->push_back({mutex, &self});
        wake = scheduler.block(WaitKind::kLock, reinterpret_cast<std::uintptr_t>(mutex), deadline_ns);
        std::erase_if(*waiting, [&](const MutexWait& wait) { return wait.fiber == &self; });
        cancelled = cancelled || wake == Wake::kCancelled;
    }
    if (cancelled) scheduler.cancel(self);
    return wake == Wake::kTimeout && held_by_other_fiber(mutex, self) ? ETIMEDOUT : 0;
}

Scheduler* scheduler_to_wait_in(const pthread_mutex_t* mutex) noexcept {
    Scheduler* scheduler = Scheduler::current();
    if (scheduler == nullptr || in_switch_hook || scheduler->at_work()) return nullptr;
    return held_by_other_fiber(mutex, scheduler->running()) ? scheduler : nullptr;
}

inline int count_taken(int result) noexcept {
    if (result != 0 && result != EOWNERDEAD) return result;
    Scheduler* scheduler = Scheduler::current();
    if (!scheduler) return result;
    Fiber& fiber = scheduler->running();
    if (fiber.held_mutexes < std::numeric_limits<decltype(fiber.held_mutexes)>::max()) ++fiber.held_mutexes;
    return result;
}

void wake_first_waiter(Scheduler& scheduler, const pthread_mutex_t* mutex) noexcept {
    if (waiting == nullptr || waiting->empty() || owned_by_this_thread(mutex)) return;
    const auto first =
        std::find_if(waiting->begin(), waiting->end(), [&](const MutexWait& wait) { return wait.mutex == mutex; });
    if (first == waiting->end()) return;
    Fiber& fiber = *first->fiber;
    waiting->erase(first);
    scheduler.wake(fiber, Wake::kNotified);
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
    if (scheduler->running().held_mutexes > 0) --scheduler->running().held_mutexes;
    wake_first_waiter(*scheduler, mutex);
    return result;
}

}  // namespace hooks

}  // namespace culm::runtime::interpose
