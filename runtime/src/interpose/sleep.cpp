// nanosleep, clock_nanosleep, usleep, sleep: a timer of the scheduler. A sleep of no time lets the other fibers run
// once.
//
// A point on CLOCK_REALTIME is converted when the call is made: setting the clock meanwhile does not move the end of
// the sleep. Clocks other than real time, monotonic and boot time, and bad arguments, are left to libc.
#include <algorithm>

#include "gate.hpp"
#include "hooks.hpp"

namespace culm::runtime::interpose {

namespace {

// 0, EINTR or ECANCELED; then `remaining` (may be null) is what was left.
int sleep_for(Scheduler& scheduler, std::int64_t duration_ns, timespec* remaining) noexcept {
    const std::int64_t deadline = deadline_in(scheduler, duration_ns);
    int failure = 0;
    if (duration_ns == 0) {
        Parking parking(scheduler);
        scheduler.yield_now();
    } else {
        failure = sleep_parked(scheduler, deadline);
    }
    if (failure != 0 && remaining) {
        const std::int64_t left = std::max<std::int64_t>(deadline - scheduler.clock().now_ns(), 0);
        *remaining = {left / kNanosecondsPerSecond, left % kNanosecondsPerSecond};
    }
    return failure;
}

bool runs_like_the_scheduler(clockid_t clock) noexcept {
    return clock == CLOCK_REALTIME || clock == CLOCK_MONOTONIC || clock == CLOCK_BOOTTIME;
}

}  // namespace

namespace hooks {

int clock_nanosleep(clockid_t clock, int flags, const timespec* time, timespec* remaining) noexcept {
    Scheduler* scheduler = gate();
    if (!scheduler || !time || !valid(*time) || !runs_like_the_scheduler(clock)) {
        return real.clock_nanosleep(clock, flags, time, remaining);
    }
    const int errno_before = errno;  // this call returns its error and leaves errno alone
    int failure = 0;
    if ((flags & TIMER_ABSTIME) != 0) {
        const std::int64_t deadline = deadline_at(*scheduler, clock, *time);
        const bool past = deadline <= scheduler->clock().now_ns();
        failure = past ? sleep_for(*scheduler, 0, nullptr) : sleep_parked(*scheduler, deadline);
    } else {
        failure = sleep_for(*scheduler, nanoseconds(*time), remaining);
    }
    errno = errno_before;
    return failure;
}

int nanosleep(const timespec* duration, timespec* remaining) noexcept {
    Scheduler* scheduler = gate();
    if (!scheduler || !duration || !valid(*duration)) return real.nanosleep(duration, remaining);
    const int errno_before = errno;
    const int failure = sleep_for(*scheduler, nanoseconds(*duration), remaining);
    errno = failure == 0 ? errno_before : failure;
    return failure == 0 ? 0 : -1;
}

int usleep(useconds_t microseconds) noexcept {
    Scheduler* scheduler = gate();
    if (!scheduler) return real.usleep(microseconds);
    const timespec duration{microseconds / 1'000'000, static_cast<long>(microseconds % 1'000'000) * 1'000};
    return hooks::nanosleep(&duration, nullptr);
}

unsigned sleep(unsigned seconds) noexcept {
    Scheduler* scheduler = gate();
    if (!scheduler) return real.sleep(seconds);
    const timespec duration{static_cast<time_t>(seconds), 0};
    timespec remaining{};
    if (hooks::nanosleep(&duration, &remaining) == 0) return 0;
    return static_cast<unsigned>(remaining.tv_sec) + (remaining.tv_nsec >= kNanosecondsPerSecond / 2 ? 1 : 0);
}

}  // namespace hooks

}  // namespace culm::runtime::interpose
