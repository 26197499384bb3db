// The waits that are built on block(): permits, sleeping, joining, descriptors.
// Invariant: an FdWait record is given back by the fiber that waited, after it runs again, on every way out.
#include <sys/epoll.h>

#include <cassert>
#include <cerrno>

#include "fiber_moves.hpp"
#include "scheduler_parts.hpp"

namespace culm::runtime {

Wake Scheduler::park(std::int64_t deadline_ns) noexcept {
    if (running_->has_permit_) {
        running_->has_permit_ = false;
        return Wake::kNotified;
    }
    return block(WaitKind::kPermit, 0, deadline_ns);
}

Wake Scheduler::sleep_until(std::int64_t deadline_ns) noexcept {
    const bool over = deadline_ns <= clock_->now_ns();
    if (!over || running_->cancel_requested_) return block(WaitKind::kSleep, 0, deadline_ns);
    yield_now();
    return Wake::kTimeout;
}

Wake Scheduler::join(Fiber& fiber, std::int64_t deadline_ns) noexcept {
    assert(fiber.scheduler_ == this);
    assert(&fiber != running_);
    if (fiber.state_ == FiberState::kFinished) return Wake::kNotified;
    fiber.retain();  // its list of joiners must outlast our being in it
    fiber.joiners_.link_back(*running_);
    const Wake reason = block(WaitKind::kJoin, fiber.id_, deadline_ns);
    fiber.release();
    return reason;
}

// --- descriptors ----------------------------------------------------------------------------------------------------

Wake Scheduler::wait_fd(FdRequest& request, std::int64_t deadline_ns) noexcept {
    return wait_fds({&request, 1}, deadline_ns);
}

Wake Scheduler::wait_fds(std::span<FdRequest> requests, std::int64_t deadline_ns) noexcept {
    Parts& parts = *parts_;
    for (FdRequest& request : requests) request.ready = 0;
    // Every fiber has the promise of one record.
    const std::size_t extra = requests.size() > 1 ? requests.size() - 1 : 0;
    if (extra > 0 && !parts.fd_waits.promise(extra)) {
        for (FdRequest& request : requests) request.ready = EPOLLERR;
        return Wake::kNotified;
    }
    FdWait* waits = nullptr;
    bool all_watched = true;
    for (std::size_t i = 0; i < requests.size(); ++i) {
        FdWait& wait = parts.fd_waits.take();
        wait.index = static_cast<std::uint32_t>(i);
        all_watched = watch(requests[i], wait) && all_watched;
        wait.next = waits;
        waits = &wait;
    }
    const auto object = requests.empty() ? 0 : static_cast<std::uintptr_t>(requests[0].fd);
    const Wake reason = all_watched ? block(WaitKind::kFd, object, deadline_ns) : Wake::kNotified;
    const bool all_open = end_watch(waits, requests);
    if (extra > 0) parts.fd_waits.return_promise(extra);
    return reason == Wake::kNotified && !all_open ? Wake::kClosed : reason;
}

// False: the request is answered already.
bool Scheduler::watch(FdRequest& request, FdWait& wait) noexcept {
    wait.fiber = running_;
    wait.fd = request.fd;
    wait.wanted = request.wanted;
    ++parts_->fd_waits_in_use;
    const auto watched = reactor_->watch(wait);
    if (watched) {
        parts_->recheck_wanted = true;
        return true;
    }
    const int code = watched.error().code;
    request.ready = code == EPERM ? request.wanted : code == EBADF ? kFdInvalid : EPOLLERR;
    return false;
}

// A fiber that was told of readiness may run only after another has closed the descriptor: it must not go on with a
// number that may already be another file's.
bool Scheduler::end_watch(FdWait* waits, std::span<FdRequest> requests) noexcept {
    bool all_open = true;
    while (waits) {
        FdWait& wait = *waits;
        waits = wait.next;
        if (wait.ready != 0) {
            requests[wait.index].ready = wait.ready;
            if (reactor_->closed_since(wait)) all_open = false;
        }
        if (wait.link.linked()) reactor_->unwatch(wait);
        parts_->fd_waits.give_back(wait);
        --parts_->fd_waits_in_use;
    }
    return all_open;
}

void Scheduler::forget_fd(int fd) noexcept { reactor_->forget(fd, &Scheduler::on_fd_ready, this); }

// Gives back the records of fibers that will not run again to do it themselves: those of `only`, or, if that is null,
// of all but `except`.
void Scheduler::drop_fd_waits(Fiber* only, Fiber* except) noexcept {
    if (parts_->fd_waits_in_use == 0) return;
    parts_->fd_waits.for_each_in_use([&](FdWait& wait) {
        const bool meant = only ? wait.fiber == only : wait.fiber != except;
        if (!meant) return;
        if (wait.link.linked()) reactor_->unwatch(wait);
        parts_->fd_waits.give_back(wait);
        --parts_->fd_waits_in_use;
    });
}

}  // namespace culm::runtime
