// Socket calls for C++ programs: try without blocking; if that would block, park until the descriptor is ready; again.
// Invariant: errno on return is the call's own, or ETIMEDOUT, ECANCELED, EINTR or EBADF for the way the wait ended.
#include "culm/runtime/io.hpp"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>

#include "closing_notices.hpp"
#include "culm/runtime/scheduler.hpp"

namespace culm::io {

namespace {

using runtime::FdRequest;
using runtime::Scheduler;
using runtime::Wake;

// Parks until fd is ready. False: errno says why not. Switches.
bool wait_ready(int fd, std::uint32_t wanted, std::int64_t deadline_ns) noexcept {
    auto scheduler = Scheduler::ensure();
    if (!scheduler) {
        errno = scheduler.error().code;
        return false;
    }
    FdRequest request{fd, wanted, 0};
    switch (scheduler.value()->wait_fd(request, deadline_ns)) {
        case Wake::kNotified:
            return true;
        case Wake::kTimeout:
            errno = ETIMEDOUT;
            return false;
        case Wake::kCancelled:
            errno = ECANCELED;
            return false;
        case Wake::kInterrupted:
            errno = EINTR;
            return false;
        case Wake::kClosed:
            errno = EBADF;
            return false;
    }
    return false;
}

bool would_block() noexcept { return errno == EAGAIN || errno == EWOULDBLOCK; }

bool readable_now(int fd) noexcept {
    pollfd request{fd, POLLIN, 0};
    return ::poll(&request, 1, 0) != 0;  // an error counts: accept will report it
}

// connect() has no flag for one call that does not block; the descriptor's mode is changed for its duration.
int connect_without_blocking(int fd, const sockaddr* address, socklen_t length) noexcept {
    const int flags = fcntl(fd, F_GETFL);
    if (flags < 0) return -1;
    const bool blocking = (flags & O_NONBLOCK) == 0;
    if (blocking && fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) return -1;
    const int result = ::connect(fd, address, length);
    const int error = errno;
    if (blocking) fcntl(fd, F_SETFL, flags);
    errno = error;
    return result;
}

}  // namespace

int accept(int fd, sockaddr* address, socklen_t* length, std::int64_t deadline_ns) noexcept {
    for (;;) {
        if (readable_now(fd)) {
            const int accepted = ::accept4(fd, address, length, SOCK_CLOEXEC);
            if (accepted >= 0 || !would_block()) return accepted;
        }
        if (!wait_ready(fd, runtime::kFdReadable, deadline_ns)) return -1;
    }
}

int connect(int fd, const sockaddr* address, socklen_t length, std::int64_t deadline_ns) noexcept {
    if (connect_without_blocking(fd, address, length) == 0) return 0;
    if (errno != EINPROGRESS) return -1;
    if (!wait_ready(fd, runtime::kFdWritable, deadline_ns)) return -1;
    int error = 0;
    socklen_t error_bytes = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &error_bytes) < 0) return -1;
    if (error == 0) return 0;
    errno = error;
    return -1;
}

ssize_t receive(int fd, void* buffer, std::size_t bytes, std::int64_t deadline_ns) noexcept {
    for (;;) {
        const ssize_t received = ::recv(fd, buffer, bytes, MSG_DONTWAIT);
        if (received >= 0 || !would_block()) return received;
        if (!wait_ready(fd, runtime::kFdReadable, deadline_ns)) return -1;
    }
}

ssize_t send_all(int fd, const void* buffer, std::size_t bytes, std::int64_t deadline_ns) noexcept {
    const char* rest = static_cast<const char*>(buffer);
    std::size_t left = bytes;
    do {
        const ssize_t sent = ::send(fd, rest, left, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent >= 0) {
            rest += sent;
            left -= static_cast<std::size_t>(sent);
        } else if (!would_block() || !wait_ready(fd, runtime::kFdWritable, deadline_ns)) {
            return -1;
        }
    } while (left > 0);
    return static_cast<ssize_t>(bytes);
}

int close(int fd) noexcept {
    if (Scheduler* scheduler = Scheduler::current()) scheduler->forget_fd(fd);
    runtime::ClosingNotices::announce(fd);
    return ::close(fd);
}

}  // namespace culm::io
