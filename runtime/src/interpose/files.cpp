// read, readv, write, writev on anything: what the descriptor is decides.
//
//   socket                      as recv and send (sockets.cpp); known from then on, without fstat
//   regular file, directory,    straight through, after one fstat
//   block device
//   pipe, tty, eventfd, ...     with RWF_NOWAIT where the file supports it, else poll is asked before the call
//
// A blocking write writes everything; writes of at most PIPE_BUF bytes to a pipe stay atomic. Where RWF_NOWAIT is
// missing a call can only be kept from blocking by its size: 4096 bytes fit into a pipe that poll calls writable, and a
// terminal gets 256 at a time. There, a reader that takes the bytes between poll and the call makes the call wait, as a
// thread would.
#include <limits.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <cstdint>

#include "descriptors.hpp"
#include "gate.hpp"
#include "hooks.hpp"
#include "sockets.hpp"
#include "vectors.hpp"

namespace culm::runtime::interpose {

namespace {

enum class Kind : std::uint8_t { kStraight, kSocket, kPipe, kTerminal, kOther };

Kind kind_of(int fd) noexcept {
    if (descriptors::known_socket(fd)) return Kind::kSocket;
    struct stat status {};
    if (::fstat(fd, &status) != 0) return Kind::kStraight;  // the real call says EBADF
    switch (status.st_mode & S_IFMT) {
        case S_IFREG:
        case S_IFDIR:
        case S_IFBLK:
            return Kind::kStraight;
        case S_IFSOCK:
            descriptors::note_socket(fd, true);
            return Kind::kSocket;
        case S_IFIFO:
            return Kind::kPipe;
        case S_IFCHR:
            return ::isatty(fd) ? Kind::kTerminal : Kind::kOther;
        default:
            return Kind::kOther;
    }
}

bool lacks_nowait(int failure) noexcept { return failure == EOPNOTSUPP || failure == ENOSYS; }

bool ready_now(int fd, short events) noexcept {
    pollfd look{fd, events, 0};
    return real.poll(&look, 1, 0) != 0;  // an error too: the real call reports it
}

// One attempt that does not block, or EAGAIN. `nowait` is cleared when the file turns out not to know RWF_NOWAIT.
ssize_t try_read(int fd, const iovec* vectors, int count, bool& nowait) noexcept {
    if (nowait) {
        const ssize_t got = ::preadv2(fd, vectors, count, -1, RWF_NOWAIT);
        if (got >= 0 || !lacks_nowait(errno)) return got;
        nowait = false;
    }
    if (ready_now(fd, POLLIN)) return real.readv(fd, vectors, count);
    errno = EAGAIN;
    return -1;
}

ssize_t try_write(int fd, const iovec* vectors, int count, bool& nowait) noexcept {
    if (nowait) {
        const ssize_t put = ::pwritev2(fd, vectors, count, -1, RWF_NOWAIT);
        if (put >= 0 || !lacks_nowait(errno)) return put;
        nowait = false;
        errno = EOPNOTSUPP;  // the caller chooses a size that fits and comes again
        return -1;
    }
    if (ready_now(fd, POLLOUT)) return real.writev(fd, vectors, count);
    errno = EAGAIN;
    return -1;
}

ssize_t read_waiting(Scheduler& scheduler, int fd, const iovec* vectors, int count) noexcept {
    Patience patience(scheduler, fd, POLLIN, Patience::Timeout::kNone);
    bool nowait = true;
    return with_patience(patience, [&]() noexcept { return try_read(fd, vectors, count, nowait); });
}

std::size_t chunk_bytes(Kind kind) noexcept {
    constexpr std::size_t kTerminalChunk = 256;
    if (kind == Kind::kPipe) return PIPE_BUF;
    return kind == Kind::kTerminal ? kTerminalChunk : SIZE_MAX;
}

ssize_t write_waiting(Scheduler& scheduler, int fd, Kind kind, const iovec* vectors, int count) noexcept {
    const int errno_before = errno;
    Patience patience(scheduler, fd, POLLOUT, Patience::Timeout::kNone);
    VectorCursor cursor(vectors, static_cast<std::size_t>(count));
    const std::size_t total = cursor.total();
    std::size_t written = 0;
    bool nowait = true;
    while (written < total) {
        const ssize_t put = with_patience(patience, [&]() noexcept {
            // The first attempt, and a write that must be atomic, hands on what the caller gave.
            if (written == 0 && (nowait || total <= chunk_bytes(kind))) {
                const ssize_t done = try_write(fd, vectors, count, nowait);
                if (done >= 0 || !lacks_nowait(errno)) return done;
            }
            iovec window[VectorCursor::kWindow];
            const int used = cursor.window(window, nowait ? SIZE_MAX : chunk_bytes(kind));
            const ssize_t done = try_write(fd, window, used, nowait);
            if (done < 0 && lacks_nowait(errno)) errno = EAGAIN;
            return done;
        });
        if (put < 0) {
            if (written == 0) return -1;
            break;
        }
        written += static_cast<std::size_t>(put);
        cursor.advance(static_cast<std::size_t>(put));
        // A device may take less than it was given, even nothing; so does a descriptor that does not block.
        if (kind == Kind::kOther || put == 0 || (written < total && !patience.may_wait())) break;
    }
    errno = errno_before;
    return static_cast<ssize_t>(written);
}

bool transfers_nothing(const iovec* vectors, int count) noexcept {
    if (vectors == nullptr || count <= 0 || count > IOV_MAX) return true;
    return VectorCursor(vectors, static_cast<std::size_t>(count)).total() == 0;
}

ssize_t read_vectors(Scheduler& scheduler, int fd, const iovec* vectors, int count, Kind kind) noexcept {
    if (kind != Kind::kSocket) return read_waiting(scheduler, fd, vectors, count);
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(vectors);
    message.msg_iovlen = static_cast<std::size_t>(count);
    const int errno_before = errno;
    const ssize_t got = receive_message(scheduler, fd, message, 0);
    if (got >= 0 || errno != ENOTSOCK) return got;
    descriptors::note_socket(fd, false);
    kind = kind_of(fd);
    errno = errno_before;
    if (kind == Kind::kStraight || kind == Kind::kSocket) return real.readv(fd, vectors, count);
    return read_waiting(scheduler, fd, vectors, count);
}

ssize_t write_vectors(Scheduler& scheduler, int fd, const iovec* vectors, int count, Kind kind) noexcept {
    if (kind != Kind::kSocket) return write_waiting(scheduler, fd, kind, vectors, count);
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(vectors);
    message.msg_iovlen = static_cast<std::size_t>(count);
    const int errno_before = errno;
    const ssize_t sent = send_message(scheduler, fd, message, 0);
    if (sent >= 0 || errno != ENOTSOCK) return sent;
    descriptors::note_socket(fd, false);
    kind = kind_of(fd);
    errno = errno_before;
    if (kind == Kind::kStraight || kind == Kind::kSocket) return real.writev(fd, vectors, count);
    return write_waiting(scheduler, fd, kind, vectors, count);
}

}  // namespace

namespace hooks {

ssize_t read(int fd, void* buffer, std::size_t bytes) noexcept {
    Scheduler* scheduler = gate();
    if (!scheduler || bytes == 0) return real.read(fd, buffer, bytes);
    const int errno_before = errno;
    const Kind kind = kind_of(fd);
    errno = errno_before;
    if (kind == Kind::kStraight) return real.read(fd, buffer, bytes);
    const iovec whole{buffer, bytes};
    return read_vectors(*scheduler, fd, &whole, 1, kind);
}

ssize_t read_chk(int fd, void* buffer, std::size_t bytes, std::size_t room) noexcept {
    if (bytes > room) return real.read_chk(fd, buffer, bytes, room);  // reports the overflow and aborts
    return hooks::read(fd, buffer, bytes);
}

ssize_t readv(int fd, const iovec* vectors, int count) noexcept {
    Scheduler* scheduler = gate();
    if (!scheduler || transfers_nothing(vectors, count)) return real.readv(fd, vectors, count);
    const int errno_before = errno;
    const Kind kind = kind_of(fd);
    errno = errno_before;
    if (kind == Kind::kStraight) return real.readv(fd, vectors, count);
    return read_vectors(*scheduler, fd, vectors, count, kind);
}

ssize_t write(int fd, const void* buffer, std::size_t bytes) noexcept {
    Scheduler* scheduler = gate();
    if (!scheduler || bytes == 0) return real.write(fd, buffer, bytes);
    const int errno_before = errno;
    const Kind kind = kind_of(fd);
    errno = errno_before;
    if (kind == Kind::kStraight) return real.write(fd, buffer, bytes);
    const iovec whole{const_cast<void*>(buffer), bytes};
    return write_vectors(*scheduler, fd, &whole, 1, kind);
}

ssize_t writev(int fd, const iovec* vectors, int count) noexcept {
    Scheduler* scheduler = gate();
    if (!scheduler || transfers_nothing(vectors, count)) return real.writev(fd, vectors, count);
    const int errno_before = errno;
    const Kind kind = kind_of(fd);
    errno = errno_before;
    if (kind == Kind::kStraight) return real.writev(fd, vectors, count);
    return write_vectors(*scheduler, fd, vectors, count, kind);
}

// What libc's own do, whose read() and write() no table entry leads to.
int eventfd_read(int fd, eventfd_t* value) noexcept {
    return hooks::read(fd, value, sizeof *value) == static_cast<ssize_t>(sizeof *value) ? 0 : -1;
}

int eventfd_write(int fd, eventfd_t value) noexcept {
    return hooks::write(fd, &value, sizeof value) == static_cast<ssize_t>(sizeof value) ? 0 : -1;
}

}  // namespace hooks

}  // namespace culm::runtime::interpose
