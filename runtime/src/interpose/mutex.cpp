// Counts the pthread mutexes that the running fiber holds: while there is one, its blocking calls block the OS thread,
// because a parked fiber that holds a mutex would let another fiber of the thread lock it a second time, or unlock it.
//
// The interpreter's own mutexes are not counted (table.cpp). A mutex that one fiber locks and another unlocks leaves
// the first with a count too high: its calls then block the thread, which is slow but right. The count never goes below
// 0.
#include <limits>

#include "gate.hpp"
#include "hooks.hpp"

namespace culm::runtime::interpose {

namespace {

inline int count_taken(int result) noexcept {
    if (result != 0 && result != EOWNERDEAD) return result;
    Scheduler* scheduler = Scheduler::current();
    if (!scheduler) return result;
    Fiber& fiber = scheduler->running();
    if (fiber.held_mutexes < std::numeric_limits<decltype(fiber.held_mutexes)>::max()) ++fiber.held_mutexes;
    return result;
}

}  // namespace

namespace hooks {

int pthread_mutex_lock(pthread_mutex_t* mutex) noexcept { return count_taken(real.pthread_mutex_lock(mutex)); }
int pthread_mutex_trylock(pthread_mutex_t* mutex) noexcept { return count_taken(real.pthread_mutex_trylock(mutex)); }
int pthread_mutex_timedlock(pthread_mutex_t* mutex, const timespec* deadline) noexcept {
    return count_taken(real.pthread_mutex_timedlock(mutex, deadline));
}
int pthread_mutex_clocklock(pthread_mutex_t* mutex, clockid_t clock, const timespec* deadline) noexcept {
    return count_taken(real.pthread_mutex_clocklock(mutex, clock, deadline));
}

int pthread_mutex_unlock(pthread_mutex_t* mutex) noexcept {
    const int result = real.pthread_mutex_unlock(mutex);
    if (result != 0) return result;
    Scheduler* scheduler = Scheduler::current();
    if (scheduler && scheduler->running().held_mutexes > 0) --scheduler->running().held_mutexes;
    return result;
}

}  // namespace hooks

}  // namespace culm::runtime::interpose
