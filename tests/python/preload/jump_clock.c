// Preloaded by test_exit.py: lets a test make hours pass at once, as they do for a process that gets no processor.
//
// Only the monotonic clock jumps, by which culm and the interpreter measure how long something takes. Timeouts that
// the kernel counts are not affected. Invariant: without jump_clock() every clock is the real one.
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long jumped_seconds;

void jump_clock(long seconds) { __atomic_add_fetch(&jumped_seconds, seconds, __ATOMIC_RELAXED); }

int clock_gettime(clockid_t clock, struct timespec* now) {
    const int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && clock == CLOCK_MONOTONIC) now->tv_sec += __atomic_load_n(&jumped_seconds, __ATOMIC_RELAXED);
    return result;
}
