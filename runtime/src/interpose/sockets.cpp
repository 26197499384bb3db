// recv, send and their relatives: tried with MSG_DONTWAIT; where that says EAGAIN and the caller's descriptor blocks,
// the fiber is parked until the socket is ready or its SO_RCVTIMEO or SO_SNDTIMEO has passed.
//
// A blocking stream socket sends everything: after a short count the fiber waits and goes on. An error after progress
// makes the count the result, as in the kernel, and is seen by the next call; so does an interrupt or a cancellation.
// MSG_WAITALL is emulated the same way. Known difference: SO_RCVLOWAT above 1 is not honoured, what is there is
// returned.
// Most fibers of a server wait in receive(): it keeps its frame small, and what is rare is out of line.
#include "sockets.hpp"

#include <poll.h>

#include <span>

#include "descriptors.hpp"
#include "hooks.hpp"
#include "vectors.hpp"

namespace culm::runtime::interpose {

namespace {

// Never block whatever the mode of the socket: the error queue, urgent data, the caller's own wish.
constexpr int kNeverBlocks = MSG_DONTWAIT | MSG_ERRQUEUE | MSG_OOB;

bool is_stream(int fd) noexcept {
    int type = 0;
    socklen_t length = sizeof type;
    return ::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0 && type == SOCK_STREAM;
}

// A peek leaves the bytes in the queue, so that the socket stays ready and readiness cannot tell when there are more.
// So the call is made again from time to time.
template <class Peek>
[[gnu::noinline]] ssize_t peek_all(Scheduler& scheduler, int fd, Patience& patience, std::size_t wanted,
                                   const Peek& peek) noexcept {
    BackOff back_off;
    for (;;) {
        const ssize_t seen = with_patience(patience, peek);
        if (seen <= 0 || static_cast<std::size_t>(seen) >= wanted || !patience.may_wait()) return seen;
        pollfd look{fd, POLLRDHUP, 0};
        if (real.poll(&look, 1, 0) > 0) return seen;  // no more will come
        if (back_off.wait(scheduler, kNever) != 0) return seen;
    }
}

// Goes on after `done` bytes of `vectors` by repeating transfer(message) for what is left of them. Returns the count.
template <class Transfer>
ssize_t transfer_rest(Patience& patience, std::span<const iovec> vectors, std::size_t done,
                      const Transfer& transfer) noexcept {
    const int errno_before = errno;
    VectorCursor cursor(vectors.data(), vectors.size());
    cursor.advance(done);
    while (!cursor.done()) {
        const ssize_t more = with_patience(patience, [&]() noexcept {
            iovec window[VectorCursor::kWindow];
            msghdr rest{};
            rest.msg_iov = window;
            rest.msg_iovlen = static_cast<std::size_t>(cursor.window(window));
            return transfer(rest);
        });
        if (more <= 0) break;
        cursor.advance(static_cast<std::size_t>(more));
        done += static_cast<std::size_t>(more);
    }
    errno = errno_before;
    return static_cast<ssize_t>(done);
}

// Goes on with MSG_WAITALL after `got` bytes of what was asked for.
[[gnu::noinline]] ssize_t receive_rest(int fd, Patience& patience, std::span<const iovec> wanted, int flags,
                                       std::size_t got) noexcept {
    return transfer_rest(patience, wanted, got,
                         [&](msghdr& rest) noexcept { return real.recvmsg(fd, &rest, flags | MSG_DONTWAIT); });
}

// Goes on after `sent` bytes were taken by a stream socket. No SIGPIPE: the kernel raises none after progress.
[[gnu::noinline]] ssize_t send_rest(int fd, Patience& patience, std::span<const iovec> given, int flags,
                                    std::size_t sent) noexcept {
    return transfer_rest(patience, given, sent, [&](msghdr& rest) noexcept {
        return real.sendmsg(fd, &rest, flags | MSG_DONTWAIT | MSG_NOSIGNAL);
    });
}

// A message may have brought descriptors: whatever was known of their numbers is void.
void note_arrivals(msghdr& message) noexcept {
    if (message.msg_controllen == 0) return;
    for (cmsghdr* part = CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
        const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        const int* fds = reinterpret_cast<const int*>(CMSG_DATA(part));
        for (std::size_t i = 0; i < count; ++i) descriptors::reset(fds[i]);
    }
}

}  // namespace

ssize_t receive_message(Scheduler& scheduler, int fd, msghdr& message, int flags) noexcept {
    Patience patience(scheduler, fd, POLLIN, Patience::Timeout::kReceive);
    // The kernel writes these even where it fails; each attempt starts from what the caller gave.
    const socklen_t name_bytes = message.msg_namelen;
    const std::size_t control_bytes = message.msg_controllen;
    const auto attempt = [&]() noexcept {
        message.msg_namelen = name_bytes;
        message.msg_controllen = control_bytes;
        return real.recvmsg(fd, &message, flags | MSG_DONTWAIT);
    };
    if ((flags & MSG_WAITALL) == 0) {
        const ssize_t got = with_patience(patience, attempt);
        if (got >= 0) note_arrivals(message);
        return got;
    }
    const std::size_t wanted = VectorCursor(message.msg_iov, message.msg_iovlen).total();
    if ((flags & MSG_PEEK) != 0 && is_stream(fd)) return peek_all(scheduler, fd, patience, wanted, attempt);
    const ssize_t got = with_patience(patience, attempt);
    if (got >= 0) note_arrivals(message);
    if (got <= 0 || static_cast<std::size_t>(got) >= wanted) return got;
    if (!is_stream(fd) || !patience.may_wait()) return got;
    return receive_rest(fd, patience, {message.msg_iov, message.msg_iovlen}, flags, static_cast<std::size_t>(got));
}

ssize_t receive(Scheduler& scheduler, int fd, void* buffer, std::size_t bytes, int flags, sockaddr* from,
                socklen_t* length) noexcept {
    Patience patience(scheduler, fd, POLLIN, Patience::Timeout::kReceive);
    const socklen_t room = length ? *length : 0;
    const auto attempt = [&]() noexcept {
        if (length) *length = room;
        return real.recvfrom(fd, buffer, bytes, flags | MSG_DONTWAIT, from, length);
    };
    if ((flags & MSG_WAITALL) != 0 && (flags & MSG_PEEK) != 0 && is_stream(fd)) {
        return peek_all(scheduler, fd, patience, bytes, attempt);
    }
    const bool plain = flags == 0 && bytes > 0 && descriptors::known_plain(fd);
    if (plain && descriptors::drained(fd)) {
        // The attempt would most likely say EAGAIN: a system call saved per request of a request-response connection.
        descriptors::note_drained(fd, false);
        if (const int failure = patience.wait(); failure != 0) {
            errno = failure;
            return -1;
        }
    }
    const ssize_t got = with_patience(patience, attempt);
    if (plain && got > 0 && static_cast<std::size_t>(got) < bytes) descriptors::note_drained(fd, true);
    if ((flags & MSG_WAITALL) == 0 || got <= 0 || static_cast<std::size_t>(got) >= bytes) return got;
    if (!is_stream(fd) || !patience.may_wait()) return got;
    const iovec whole{buffer, bytes};
    return receive_rest(fd, patience, {&whole, 1}, flags, static_cast<std::size_t>(got));
}

ssize_t send_message(Scheduler& scheduler, int fd, const msghdr& message, int flags) noexcept {
    Patience patience(scheduler, fd, POLLOUT, Patience::Timeout::kSend);
    const ssize_t sent =
        with_patience(patience, [&]() noexcept { return real.sendmsg(fd, &message, flags | MSG_DONTWAIT); });
    // Only a stream socket takes less than all.
    if (sent <= 0 || static_cast<std::size_t>(sent) >= VectorCursor(message.msg_iov, message.msg_iovlen).total()) {
        return sent;
    }
    if (!patience.may_wait()) return sent;
    return send_rest(fd, patience, {message.msg_iov, message.msg_iovlen}, flags, static_cast<std::size_t>(sent));
}

ssize_t send(Scheduler& scheduler, int fd, const void* buffer, std::size_t bytes, int flags, const sockaddr* to,
             socklen_t length) noexcept {
    Patience patience(scheduler, fd, POLLOUT, Patience::Timeout::kSend);
    const ssize_t sent = with_patience(
        patience, [&]() noexcept { return real.sendto(fd, buffer, bytes, flags | MSG_DONTWAIT, to, length); });
    if (sent <= 0 || static_cast<std::size_t>(sent) >= bytes || !patience.may_wait()) return sent;
    const iovec whole{const_cast<void*>(buffer), bytes};
    return send_rest(fd, patience, {&whole, 1}, flags, static_cast<std::size_t>(sent));
}

namespace hooks {

ssize_t recv(int fd, void* buffer, std::size_t bytes, int flags) noexcept {
    Scheduler* scheduler = gate();
    if (!scheduler || (flags & kNeverBlocks) != 0) return real.recv(fd, buffer, bytes, flags);
    return receive(*scheduler, fd, buffer, bytes, flags, nullptr, nullptr);
}

ssize_t recvfrom(int fd, void* buffer, std::size_t bytes, int flags, sockaddr* from, socklen_t* length) noexcept {
    Scheduler* scheduler = gate();
    if (!scheduler || (flags & kNeverBlocks) != 0) return real.recvfrom(fd, buffer, bytes, flags, from, length);
    return receive(*scheduler, fd, buffer, bytes, flags, from, from ? length : nullptr);
}

ssize_t recvmsg(int fd, msghdr* message, int flags) noexcept {
    Scheduler* scheduler = gate();
    if (!scheduler || !message || (flags & kNeverBlocks) != 0) {
        const ssize_t got = real.recvmsg(fd, message, flags);
        if (got >= 0) note_arrivals(*message);
        return got;
    }
    return receive_message(*scheduler, fd, *message, flags);
}

ssize_t send(int fd, const void* buffer, std::size_t bytes, int flags) noexcept {
    Scheduler* scheduler = gate();
    if (!scheduler || (flags & kNeverBlocks & ~MSG_OOB) != 0) return real.send(fd, buffer, bytes, flags);
    return interpose::send(*scheduler, fd, buffer, bytes, flags, nullptr, 0);
}

ssize_t sendto(int fd, const void* buffer, std::size_t bytes, int flags, const sockaddr* to,
               socklen_t length) noexcept {
    Scheduler* scheduler = gate();
    if (!scheduler || (flags & kNeverBlocks & ~MSG_OOB) != 0) return real.sendto(fd, buffer, bytes, flags, to, length);
    return interpose::send(*scheduler, fd, buffer, bytes, flags, to, length);
}

ssize_t sendmsg(int fd, const msghdr* message, int flags) noexcept {
    Scheduler* scheduler = gate();
    if (!scheduler || !message || (flags & kNeverBlocks & ~MSG_OOB) != 0) return real.sendmsg(fd, message, flags);
    return send_message(*scheduler, fd, *message, flags);
}

ssize_t recv_chk(int fd, void* buffer, std::size_t bytes, std::size_t room, int flags) noexcept {
    if (bytes > room) return real.recv_chk(fd, buffer, bytes, room, flags);  // reports the overflow and aborts
    return hooks::recv(fd, buffer, bytes, flags);
}

ssize_t recvfrom_chk(int fd, void* buffer, std::size_t bytes, std::size_t room, int flags, sockaddr* from,
                     socklen_t* length) noexcept {
    if (bytes > room) return real.recvfrom_chk(fd, buffer, bytes, room, flags, from, length);
    return hooks::recvfrom(fd, buffer, bytes, flags, from, length);
}

int socket(int domain, int type, int protocol) noexcept {
    const int fd = real.socket(domain, type, protocol);
    if (fd >= 0) descriptors::reset(fd);
    return fd;
}

int socketpair(int domain, int type, int protocol, int* fds) noexcept {
    const int result = real.socketpair(domain, type, protocol, fds);
    if (result == 0) {
        descriptors::reset(fds[0]);
        descriptors::reset(fds[1]);
    }
    return result;
}

int setsockopt(int fd, int level, int name, const void* value, socklen_t length) noexcept {
    const int result = real.setsockopt(fd, level, name, value, length);
    if (result != 0 || level != SOL_SOCKET) return result;
    // Both spellings of the names: with 32 and with 64 bits of time.
    switch (name) {
        case SO_RCVTIMEO_OLD:
        case SO_RCVTIMEO_NEW:
        case SO_SNDTIMEO_OLD:
        case SO_SNDTIMEO_NEW:
            descriptors::modes_changed();
            break;
        default:
            break;
    }
    return result;
}

}  // namespace hooks

}  // namespace culm::runtime::interpose
