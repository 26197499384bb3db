// poll, ppoll and the epoll_wait family.
//
// The result always comes from the real call with a timeout of zero, so it is exact. An epoll descriptor is waited for
// as a readable descriptor of its own. A ppoll or epoll_pwait whose mask differs from the thread's goes to libc and
// blocks the thread: the mask would hold for all of its fibers.
#include <poll.h>

#include <algorithm>

#include "descriptors.hpp"
#include "hooks.hpp"
#include "readiness.hpp"

namespace culm::runtime::interpose {

int wait_for_any(Scheduler& scheduler, std::span<FdRequest> requests, std::int64_t deadline_ns, BackOff& back_off,
                 bool again) noexcept {
    if (requests.empty()) {
        const int failure = sleep_parked(scheduler, deadline_ns);
        return failure == 0 ? ETIMEDOUT : failure;
    }
    if (deadline_ns != kNever && scheduler.clock().now_ns() >= deadline_ns) return ETIMEDOUT;
    if (again && std::any_of(requests.begin(), requests.end(), [](const FdRequest& one) { return one.ready != 0; })) {
        // The reactor called it ready and the real call found nothing: ask for it again at a bounded rate.
        for (FdRequest& one : requests) one.ready = 0;
        return back_off.wait(scheduler, deadline_ns);
    }
    Parking parking(scheduler);
    const Wake wake = scheduler.wait_fds(requests, deadline_ns);
    // A descriptor is being closed. It will be closed before this fiber runs again, so that the next real call reports
    // it in its own way.
    return wake == Wake::kClosed ? 0 : parking.outcome(wake);
}

bool mask_is_present(const sigset_t* mask) noexcept {
    if (mask == nullptr) return true;
    sigset_t present;
    if (::pthread_sigmask(SIG_BLOCK, nullptr, &present) != 0) return false;
    for (int signal = 1; signal < NSIG; ++signal) {
        if (sigismember(mask, signal) != sigismember(&present, signal)) return false;
    }
    return true;
}

namespace {

std::int64_t deadline_of_ms(Scheduler& scheduler, int timeout_ms) noexcept {
    return timeout_ms < 0 ? kNever : deadline_in(scheduler, std::int64_t{timeout_ms} * 1'000'000);
}

std::uint32_t wanted_by(short events) noexcept {
    std::uint32_t wanted = static_cast<std::uint32_t>(events) & (POLLIN | POLLOUT | POLLPRI | POLLRDHUP);
    if ((events & POLLRDNORM) != 0) wanted |= POLLIN;
    if ((events & (POLLWRNORM | POLLWRBAND)) != 0) wanted |= POLLOUT;
    if ((events & POLLRDBAND) != 0) wanted |= POLLPRI;
    return wanted;
}

int poll_waiting(Scheduler& scheduler, pollfd* fds, nfds_t count, std::int64_t deadline_ns) noexcept {
    return try_and_wait(
        scheduler, deadline_ns, count, [&]() noexcept { return real.poll(fds, count, 0); },
        [&](Requests& requests) noexcept {
            for (nfds_t i = 0; i < count; ++i) {
                if (fds[i].fd >= 0) requests.add(fds[i].fd, wanted_by(fds[i].events));
            }
        });
}

int epoll_waiting(Scheduler& scheduler, int fd, epoll_event* events, int count, std::int64_t deadline_ns) noexcept {
    return try_and_wait(
        scheduler, deadline_ns, 1, [&]() noexcept { return real.epoll_wait(fd, events, count, 0); },
        [&](Requests& requests) noexcept { requests.add(fd, POLLIN); });
}

}  // namespace

namespace hooks {

int poll(pollfd* fds, nfds_t count, int timeout_ms) noexcept {
    Scheduler* scheduler = gate();
    if (!scheduler || timeout_ms == 0) return real.poll(fds, count, timeout_ms);
    return poll_waiting(*scheduler, fds, count, deadline_of_ms(*scheduler, timeout_ms));
}

int poll_chk(pollfd* fds, nfds_t count, int timeout_ms, std::size_t room) noexcept {
    if (room / sizeof *fds < count) return real.poll_chk(fds, count, timeout_ms, room);  // reports and aborts
    return hooks::poll(fds, count, timeout_ms);
}

int ppoll(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask) noexcept {
    Scheduler* scheduler = gate();
    if (!scheduler || (timeout && (!valid(*timeout) || nanoseconds(*timeout) == 0)) || !mask_is_present(mask)) {
        return real.ppoll(fds, count, timeout, mask);
    }
    return poll_waiting(*scheduler, fds, count, timeout ? deadline_in(*scheduler, nanoseconds(*timeout)) : kNever);
}

int ppoll_chk(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask, std::size_t room) noexcept {
    if (room / sizeof *fds < count) return real.ppoll_chk(fds, count, timeout, mask, room);
    return hooks::ppoll(fds, count, timeout, mask);
}

int epoll_wait(int fd, epoll_event* events, int count, int timeout_ms) noexcept {
    Scheduler* scheduler = gate();
    if (!scheduler || timeout_ms == 0) return real.epoll_wait(fd, events, count, timeout_ms);
    return epoll_waiting(*scheduler, fd, events, count, deadline_of_ms(*scheduler, timeout_ms));
}

int epoll_pwait(int fd, epoll_event* events, int count, int timeout_ms, const sigset_t* mask) noexcept {
    Scheduler* scheduler = gate();
    if (!scheduler || timeout_ms == 0 || !mask_is_present(mask)) {
        return real.epoll_pwait(fd, events, count, timeout_ms, mask);
    }
    return epoll_waiting(*scheduler, fd, events, count, deadline_of_ms(*scheduler, timeout_ms));
}

int epoll_pwait2(int fd, epoll_event* events, int count, const timespec* timeout, const sigset_t* mask) noexcept {
    Scheduler* scheduler = gate();
    if (!scheduler || (timeout && (!valid(*timeout) || nanoseconds(*timeout) == 0)) || !mask_is_present(mask)) {
        return real.epoll_pwait2(fd, events, count, timeout, mask);
    }
    return epoll_waiting(*scheduler, fd, events, count,
                         timeout ? deadline_in(*scheduler, nanoseconds(*timeout)) : kNever);
}

}  // namespace hooks

}  // namespace culm::runtime::interpose
