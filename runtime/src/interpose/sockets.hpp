// Receiving and sending on sockets for the hooks of recv and send and, when the descriptor is a socket, read and write.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include "gate.hpp"

namespace culm::runtime::interpose {

// As recvmsg and sendmsg, parking the fiber where those would block.
ssize_t receive_message(Scheduler& scheduler, int fd, msghdr& message, int flags) noexcept;
ssize_t send_message(Scheduler& scheduler, int fd, const msghdr& message, int flags) noexcept;
// As recvfrom and sendto; address and length may be null.
ssize_t receive(Scheduler& scheduler, int fd, void* buffer, std::size_t bytes, int flags, sockaddr* from,
                socklen_t* length) noexcept;
ssize_t send(Scheduler& scheduler, int fd, const void* buffer, std::size_t bytes, int flags, const sockaddr* to,
             socklen_t length) noexcept;

}  // namespace culm::runtime::interpose
