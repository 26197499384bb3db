// A thread, a pipe and a futex: what a fault handler that has its work done by another thread is made of.
//
// Invariant: what the handler calls (write_whole, wait_while_equal) is async-signal-safe.
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "os/fault_injection.hpp"
#include "strategies/growth.hpp"

namespace culm::lab::strategies {

static_assert(sizeof(std::atomic<int>) == sizeof(int));
static_assert(std::atomic<int>::is_always_lock_free);

int start_thread(void* (*run)(void*), void* argument) noexcept {
    if (const int error = os::injected_error()) return error;
    pthread_attr_t attributes;
    if (const int error = pthread_attr_init(&attributes)) return error;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    // The thread inherits the mask: signals are for the program's own threads.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    const int error = pthread_create(&thread, &attributes, run, argument);
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    pthread_attr_destroy(&attributes);
    return error;
}

int open_pipe(int (&ends)[2]) noexcept {
    if (const int error = os::injected_error()) return error;
    return pipe2(ends, O_CLOEXEC) == 0 ? 0 : errno;
}

bool write_whole(int fd, const void* content, std::size_t bytes) noexcept {
    for (;;) {
        const ssize_t written = write(fd, content, bytes);
        if (written < 0 && errno == EINTR) continue;
        return written == static_cast<ssize_t>(bytes);  // no more than PIPE_BUF: whole
    }
}

bool read_whole(int fd, void* content, std::size_t bytes) noexcept {
    for (;;) {
        const ssize_t got = read(fd, content, bytes);
        if (got < 0 && errno == EINTR) continue;
        return got == static_cast<ssize_t>(bytes);
    }
}

void wait_while_equal(std::atomic<int>& word, int old) noexcept {
    while (word.load(std::memory_order_acquire) == old) {
        syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, old, nullptr, nullptr, 0);
    }
}

void wake_waiters(std::atomic<int>& word) noexcept {
    syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

}  // namespace culm::lab::strategies
