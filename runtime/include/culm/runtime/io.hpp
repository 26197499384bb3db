// Socket calls that park the running fiber instead of blocking its OS thread, for C++ programs that do not interpose.
//
// They take ordinary descriptors in either blocking mode and return what the system call returns; errno is set as by
// it, ETIMEDOUT after the deadline, ECANCELED when the fiber was cancelled, EBADF when another fiber closed the
// descriptor.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <cstddef>

#include "culm/runtime/clock.hpp"

namespace culm::io {

// The new descriptor is close-on-exec. A listening socket that other threads or processes accept from as well should be
// non-blocking: after we have seen that there is a connection, and before we call accept(), somebody else may take it.
int accept(int fd, sockaddr* address, socklen_t* length, std::int64_t deadline_ns = runtime::kNever) noexcept;
int connect(int fd, const sockaddr* address, socklen_t length, std::int64_t deadline_ns = runtime::kNever) noexcept;
ssize_t receive(int fd, void* buffer, std::size_t bytes, std::int64_t deadline_ns = runtime::kNever) noexcept;
// Sends all of it, or fails (EPIPE without the signal); the number of bytes sent before an error is lost, as with a
// blocking socket.
ssize_t send_all(int fd, const void* buffer, std::size_t bytes, std::int64_t deadline_ns = runtime::kNever) noexcept;
// Tells the fibers that wait for the descriptor, on whatever thread, then closes it. They get EBADF.
int close(int fd) noexcept;

}  // namespace culm::io
