// connect, accept and accept4.
//
// connect on a blocking descriptor: O_NONBLOCK is set for the duration of the system call only. The final call that
// collects the outcome is connect() again, as it leaves the socket in the state that a blocking connect leaves it in.
//
// accept: a listening socket may be shared with other threads and processes, which can take the connection between a
// poll and the call, and accept has no MSG_DONTWAIT. So the first fiber that accepts on a blocking listening socket
// makes it O_NONBLOCK for good, and the program is not told: fcntl(F_GETFL) hides the flag, F_SETFL and FIONBIO keep it
// until the program itself asks for non-blocking mode (closing.cpp), and accept on a thread without a scheduler waits
// in poll. A program that inherits the listening socket by exec does see the flag.
#include <fcntl.h>
#include <poll.h>

#include <algorithm>

#include "descriptors.hpp"
#include "gate.hpp"
#include "hooks.hpp"

namespace culm::runtime::interpose {

namespace {

// connect() that does not block, on a descriptor that does.
int connect_at_once(int fd, const sockaddr* address, socklen_t length) noexcept {
    const int flags = real.fcntl(fd, F_GETFL, 0);
    if (flags < 0) return -1;
    if ((flags & O_NONBLOCK) != 0) return real.connect(fd, address, length);
    real.fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    const int result = real.connect(fd, address, length);
    const int failure = errno;
    real.fcntl(fd, F_SETFL, flags);
    errno = failure;
    return result;
}

int connect_waiting(Scheduler& scheduler, int fd, const sockaddr* address, socklen_t length) noexcept {
    const int errno_before = errno;
    Patience patience(scheduler, fd, POLLOUT, Patience::Timeout::kSend);
    const std::int64_t timeout = descriptors::timeout_ns(fd, SO_SNDTIMEO);
    const std::int64_t deadline = timeout == kNever ? kNever : deadline_in(scheduler, timeout);
    BackOff back_off;
    bool in_progress = false;
    while (connect_at_once(fd, address, length) != 0) {
        if (in_progress && errno == EISCONN) break;
        int failure = 0;
        if (errno == EINPROGRESS || errno == EALREADY) {
            in_progress = true;
            failure = patience.wait();
            if (failure == EAGAIN) failure = EINPROGRESS;  // what Linux says after SO_SNDTIMEO
        } else if (errno == EAGAIN) {
            // The listener's backlog is full (AF_UNIX), which no readiness tells of.
            if (deadline != kNever && scheduler.clock().now_ns() >= deadline) return -1;
            failure = back_off.wait(scheduler, deadline);
        } else {
            return -1;
        }
        if (failure != 0) {
            errno = failure;
            return -1;
        }
    }
    errno = errno_before;
    return 0;
}

using Accept = int (*)(int fd, sockaddr* address, socklen_t* length, int flags);

int plain_accept(int fd, sockaddr* address, socklen_t* length, int) noexcept {
    return real.accept(fd, address, length);
}
int accept_with_flags(int fd, sockaddr* address, socklen_t* length, int flags) noexcept {
    return real.accept4(fd, address, length, flags);
}

// Without a scheduler: what blocks the thread is poll if the listener is non-blocking by our doing.
int accept_on_thread(int fd, sockaddr* address, socklen_t* length, int flags, Accept accept) noexcept {
    for (;;) {
        const int connection = accept(fd, address, length, flags);
        if (connection >= 0 || errno != EAGAIN || !descriptors::hides_nonblock(fd)) return connection;
        const std::int64_t timeout = descriptors::timeout_ns(fd, SO_RCVTIMEO);
        const int timeout_ms =
            timeout == kNever ? -1
                              : static_cast<int>(std::min<std::int64_t>((timeout + 999'999) / 1'000'000, INT32_MAX));
        pollfd listener{fd, POLLIN, 0};
        const int ready = real.poll(&listener, 1, timeout_ms);
        if (ready < 0) return -1;
        if (ready == 0) {
            errno = EAGAIN;
            return -1;
        }
    }
}

int accept_waiting(Scheduler& scheduler, int fd, sockaddr* address, socklen_t* length, int flags,
                   Accept accept) noexcept {
    const int errno_before = errno;
    if (!descriptors::hides_nonblock(fd)) {
        const int mode = real.fcntl(fd, F_GETFL, 0);
        if (mode < 0) return -1;
        if ((mode & O_NONBLOCK) != 0) return accept(fd, address, length, flags);
        int listens = 0;
        socklen_t listens_bytes = sizeof listens;
        const bool asked = ::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &listens_bytes) == 0;
        if (!asked || listens == 0) return accept(fd, address, length, flags);  // fails at once
        descriptors::hide_nonblock(fd, true);
        if (real.fcntl(fd, F_SETFL, mode | O_NONBLOCK) != 0) return -1;
    }
    errno = errno_before;
    Patience patience(scheduler, fd, POLLIN, Patience::Timeout::kReceive);
    const socklen_t room = length ? *length : 0;
    return static_cast<int>(with_patience(patience, [&]() noexcept -> ssize_t {
        if (length) *length = room;
        return accept(fd, address, length, flags);
    }));
}

int accept_either(int fd, sockaddr* address, socklen_t* length, int flags, Accept accept) noexcept {
    Scheduler* scheduler = gate();
    const int connection = scheduler ? accept_waiting(*scheduler, fd, address, length, flags, accept)
                                     : accept_on_thread(fd, address, length, flags, accept);
    if (connection >= 0) {
        descriptors::reset(connection);
        descriptors::note_socket(connection, true);
    }
    return connection;
}

}  // namespace

namespace hooks {

int connect(int fd, const sockaddr* address, socklen_t length) noexcept {
    Scheduler* scheduler = gate();
    if (!scheduler || !descriptors::blocks(fd)) return real.connect(fd, address, length);
    return connect_waiting(*scheduler, fd, address, length);
}

int accept(int fd, sockaddr* address, socklen_t* length) noexcept {
    return accept_either(fd, address, length, 0, plain_accept);
}

int accept4(int fd, sockaddr* address, socklen_t* length, int flags) noexcept {
    return accept_either(fd, address, length, flags, accept_with_flags);
}

}  // namespace hooks

}  // namespace culm::runtime::interpose
