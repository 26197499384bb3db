// Calls that end, copy or reconfigure a descriptor: they never park, but fibers that wait for it must hear of it first,
// and what is remembered of its number must stay true.
//
// Waiters on the calling thread get EBADF through its scheduler, those on other threads through notices. The order is
// always: tell, forget, close; the number cannot mean another file before that. A child made by vfork closes
// descriptors of its own in memory that is its parent's: there nothing is told or forgotten.
#include <fcntl.h>
#include <sys/ioctl.h>

#include <algorithm>

#include "closing_notices.hpp"
#include "descriptors.hpp"
#include "gate.hpp"
#include "hooks.hpp"
#include "install.hpp"

namespace culm::runtime::interpose {

namespace {

// Also while a mutex is held: telling does not park.
void tell_own_fibers(int fd) noexcept {
    if (Scheduler* scheduler = Scheduler::current(); scheduler && !scheduler->at_work()) scheduler->forget_fd(fd);
}

void announce_close(int fd) noexcept {
    if (fd < 0) return;
    tell_own_fibers(fd);
    ClosingNotices::announce(fd);
    descriptors::reset(fd);
}

// A range may span millions of numbers: only those that a fiber has waited for are announced.
void announce_range(unsigned first, unsigned last) noexcept {
    ClosingNotices::announce_range(first, last, tell_own_fibers);
    descriptors::reset_range(first, last);
}

int set_flags(int fd, int flags) noexcept {
    descriptors::modes_changed();
    if (!descriptors::hides_nonblock(fd)) return real.fcntl(fd, F_SETFL, flags);
    if ((flags & O_NONBLOCK) != 0 && in_this_process())
        descriptors::hide_nonblock(fd, false);  // from now on it is the program's own
    return real.fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

}  // namespace

namespace hooks {

int close(int fd) noexcept {
    if (!in_this_process()) return real.close(fd);
    const int errno_before = errno;
    announce_close(fd);
    errno = errno_before;
    return real.close(fd);
}

int close_range(unsigned first, unsigned last, int flags) noexcept {
    // With CLOSE_RANGE_CLOEXEC (4) nothing is closed now.
    if ((flags & 4) == 0 && first <= last && in_this_process()) announce_range(first, last);
    return real.close_range(first, last, flags);
}

void closefrom(int first) noexcept {
    if (in_this_process()) announce_range(static_cast<unsigned>(std::max(first, 0)), UINT32_MAX - 1);
    real.closefrom(first);
}

int dup(int fd) noexcept {
    const int copy = real.dup(fd);
    if (copy >= 0 && in_this_process()) descriptors::copied(fd, copy);
    return copy;
}

int dup2(int fd, int target) noexcept {
    // An invalid source leaves the target open; on itself dup2 does nothing.
    if (fd == target || real.fcntl(fd, F_GETFD, 0) < 0 || !in_this_process()) return real.dup2(fd, target);
    announce_close(target);
    const int copy = real.dup2(fd, target);
    if (copy >= 0) descriptors::copied(fd, copy);
    return copy;
}

int dup3(int fd, int target, int flags) noexcept {
    const bool nothing_to_tell = fd == target || real.fcntl(fd, F_GETFD, 0) < 0 || !in_this_process();
    if (nothing_to_tell) return real.dup3(fd, target, flags);
    announce_close(target);
    const int copy = real.dup3(fd, target, flags);
    if (copy >= 0) descriptors::copied(fd, copy);
    return copy;
}

// The third argument is passed on as a pointer: wide enough for every command, and passed like an int on these ABIs.
int fcntl(int fd, int command, void* argument) noexcept {
    switch (command) {
        case F_GETFL: {
            const int flags = real.fcntl(fd, F_GETFL, argument);
            return flags >= 0 && descriptors::hides_nonblock(fd) ? flags & ~O_NONBLOCK : flags;
        }
        case F_SETFL:
            return set_flags(fd, static_cast<int>(reinterpret_cast<std::intptr_t>(argument)));
        case F_DUPFD:
        case F_DUPFD_CLOEXEC: {
            const int copy = real.fcntl(fd, command, argument);
            if (copy >= 0 && in_this_process()) descriptors::copied(fd, copy);
            return copy;
        }
        default:
            return real.fcntl(fd, command, argument);
    }
}

int ioctl(int fd, unsigned long request, void* argument) noexcept {
    if (request != FIONBIO || argument == nullptr) return real.ioctl(fd, request, argument);
    descriptors::modes_changed();
    if (!descriptors::hides_nonblock(fd)) return real.ioctl(fd, request, argument);
    if (*static_cast<const int*>(argument) == 0) return 0;  // blocking, as it believes it is
    if (in_this_process()) descriptors::hide_nonblock(fd, false);
    return real.ioctl(fd, request, argument);
}

}  // namespace hooks

}  // namespace culm::runtime::interpose
