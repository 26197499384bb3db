// What the hooks remember about descriptor numbers, so that a wait costs no extra system calls.
//
// Remembered are only things whose change the hooks see, or whose staleness shows by itself:
//  - it is a socket: a call for sockets on something else fails with ENOTSOCK and the entry is forgotten;
//  - it blocks and has no timeouts ("plain"): every call that can change a mode or make a descriptor (fcntl, ioctl,
//    setsockopt, socket, accept, dup, a message that carries descriptors) ends all such knowledge or that of the
//    number;
//  - its O_NONBLOCK was set by us and is not to be seen by the program (see connections.cpp);
//  - the last receive got less than it asked for ("drained"): a guess that the next would get nothing, and a wait for
//    readiness is right even where the guess is wrong.
// Thread-safe: each field is one atomic. After fork the entries stay right, since the descriptors are the same.
// Invariant: an entry is reset before its number can mean another file.
#pragma once

#include <cstdint>

namespace culm::runtime::interpose::descriptors {

// The number is going to mean, or may now mean, another file.
void reset(int fd) noexcept;
void reset_range(unsigned first, unsigned last) noexcept;
// `copy` now means the same open file as `fd`.
void copied(int fd, int copy) noexcept;

bool known_socket(int fd) noexcept;
void note_socket(int fd, bool is_socket) noexcept;

// Known to block and to have neither SO_RCVTIMEO nor SO_SNDTIMEO.
bool known_plain(int fd) noexcept;
void note_plain(int fd, std::uint32_t epoch) noexcept;  // `epoch` read before looking
std::uint32_t mode_epoch() noexcept;
void modes_changed() noexcept;  // some descriptor's: what is known of all of them ends

bool drained(int fd) noexcept;
void note_drained(int fd, bool drained) noexcept;

bool hides_nonblock(int fd) noexcept;
void hide_nonblock(int fd, bool hidden) noexcept;

// As the program sees it: F_GETFL without O_NONBLOCK, or with the one that only we know of. True on error.
bool blocks(int fd) noexcept;
// kNever without one.
std::int64_t timeout_ns(int fd, int option) noexcept;

}  // namespace culm::runtime::interpose::descriptors
