// Preloaded by test_fault_injection.py: makes the n-th system call that culm's extension module asks for fail.
//
// Only calls whose return address lies in _culm count, so that the interpreter itself stays whole. Invariant: without
// fail_nth() every call goes through.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static long calls_left;
static int error_to_give;

// The n-th call from now on (1 is the next) fails with that errno; 0: none.
void fail_nth(long nth, int error) {
    calls_left = nth;
    error_to_give = error;
}

// Whether the failure is still to come.
int failure_pending(void) { return calls_left > 0; }

static int fails(const void* caller) {
    if (calls_left <= 0) return 0;
    Dl_info where;
    if (dladdr(caller, &where) == 0 || strstr(where.dli_fname, "/_culm.") == NULL) return 0;
    if (--calls_left > 0) return 0;
    errno = error_to_give;
    return 1;
}

#define CALLER __builtin_return_address(0)
#define REAL(type, name) ((type)dlsym(RTLD_NEXT, name))

void* mmap(void* address, size_t bytes, int access, int flags, int fd, off_t offset) {
    if (fails(CALLER)) return MAP_FAILED;
    return (void*)syscall(SYS_mmap, address, bytes, access, flags, fd, offset);
}

int mprotect(void* address, size_t bytes, int access) {
    if (fails(CALLER)) return -1;
    return (int)syscall(SYS_mprotect, address, bytes, access);
}

int madvise(void* address, size_t bytes, int advice) {
    if (fails(CALLER)) return -1;
    return (int)syscall(SYS_madvise, address, bytes, advice);
}

int sigaltstack(const stack_t* wanted, stack_t* previous) {
    if (wanted != NULL && fails(CALLER)) return -1;
    return (int)syscall(SYS_sigaltstack, wanted, previous);
}

int epoll_create1(int flags) {
    if (fails(CALLER)) return -1;
    return (int)syscall(SYS_epoll_create1, flags);
}

int eventfd(unsigned int value, int flags) {
    if (fails(CALLER)) return -1;
    return (int)syscall(SYS_eventfd2, value, flags);
}

// process_madvise and pidfd_open come this way.
long syscall(long number, ...) {
    va_list arguments;
    va_start(arguments, number);
    long a[6];
    for (int i = 0; i < 6; ++i) a[i] = va_arg(arguments, long);
    va_end(arguments);
    if (fails(CALLER)) return -1;
    static long (*real)(long, ...);
    if (real == NULL) real = REAL(long (*)(long, ...), "syscall");
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
