// The steps of a wait (wait.hpp), the ways it ends, and the waits that are made of them: permits, sleeping, joining,
// descriptors.
//
// A wait begins and ends in the fiber that waits; it is ended by a completion (complete, complete_shared), or by
// end_wait() for a deadline, a cancellation or a signal, which first has to get the consent of what the fiber's records
// are linked into. Invariant: when await_quietly() returns, no record of the fiber is linked but those whose operation
// answered that they are pending, and the ticket is closed.
#include <cassert>
#include <cerrno>
#include <utility>

#include "culm/check.hpp"
#include "culm/runtime/scope.hpp"
#include "embedder.hpp"
#include "fiber_moves.hpp"
#include "parking_lot.hpp"
#include "scheduler_inside.hpp"
#include "scheduler_parts.hpp"

namespace culm::runtime {

// --- the steps ---

Wait& Scheduler::begin_wait(WaitKind kind, const void* key, bool is_shared) noexcept {
    assert(!at_work_);
    Fiber& self = *running_;
    assert(self.ticket_.load(std::memory_order_relaxed) == 0);
    Wait& own = self.own_;
    own.ticket = (own.ticket + 1) & ~Fiber::kClaimed;
    if (own.ticket == 0) [[unlikely]]
        own.ticket = 1;
    own.kind = kind;
    own.closed = false;
    own.target.key = key;
    own.value = nullptr;
    self.wake_ = Wake::kNotified;
    self.wait_kind_ = kind;
    if (is_shared) self.is_shared_wait_ = true;
    self.ticket_.store(own.ticket, std::memory_order_release);
    return own;
}

// The wait of the running fiber is over. Returns `reason`, or kClosed if what it waited for was closed or destroyed.
inline Wake Scheduler::Inside::end_ticket(Fiber& self, Wake reason) noexcept {
    self.ticket_.store(0, std::memory_order_relaxed);
    if (self.is_shared_wait_) [[unlikely]]
        self.is_shared_wait_ = false;
    if (!self.own_.closed) [[likely]]
        return reason;
    self.own_.closed = false;
    return reason == Wake::kNotified ? Wake::kClosed : reason;
}

// Switches, unless the wait is over before it has begun.
[[gnu::always_inline]] inline Wake Scheduler::Inside::await_quietly(std::int64_t deadline_ns, bool& switched) noexcept {
    assert(!at_work_);
    Fiber& self = *running_;
    switched = false;
    if (must_end_waits(self) && abort_records(self)) [[unlikely]] {
        note_cancelled(self);
        return end_ticket(self, Wake::kCancelled);
    }
    if (self.is_shared_wait_ && self.is_claimed()) [[unlikely]] {
        // Completed by another thread since the record was linked. The request that says so finds the wait over.
        return end_ticket(self, Wake::kNotified);
    }
    if (deadline_ns != kNever) parts_->timers.add(self, deadline_ns);
    self.move_to(FiberState::kParked);
    switched = suspend(self);
    return end_ticket(self, self.wake_);
}

void Scheduler::Inside::arrive(Fiber& self, bool switched) noexcept {
    if (switched && detail::embedder.switching.arrived) detail::embedder.switching.arrived(self);
}

Wake Scheduler::await(std::int64_t deadline_ns) noexcept {
    Fiber& self = *running_;
    bool switched = false;
    const Wake reason = inside().await_quietly(deadline_ns, switched);
    Inside::arrive(self, switched);
    return reason;
}

bool Scheduler::give_up_wait() noexcept {
    Fiber& self = *running_;
    const bool was_completed = !inside().abort_records(self);
    Inside::end_ticket(self, Wake::kNotified);
    return was_completed;
}

// --- the ways it ends ---

bool Scheduler::complete(Wait& wait, void* value, Wake reason) noexcept {
    Fiber& fiber = *wait.fiber;
    assert(fiber.scheduler_ == this);
    const bool is_own = &wait == &fiber.own_;
    if (!fiber.claim(wait, is_own ? 0 : static_cast<ExtraWait&>(wait).index)) return false;
    assert(fiber.state_ == FiberState::kParked);
    wait.value = value;
    inside().make_ready(fiber, reason);
    return true;
}

bool Scheduler::complete_shared(Wait& wait, void* value) noexcept {
    Fiber& fiber = *wait.fiber;
    Scheduler* here = current_;
    // A thread that is at work may have been interrupted by a signal handler in the middle of it.
    const bool may_wake_here = here && fiber.scheduler_ == here && !here->at_work_;
    const Ticket expected = wait.ticket;
    const bool is_own = &wait == &fiber.own_;
    wait.value = value;
    fiber.retain();  // from the claim on the fiber may run, and end
    const bool won = fiber.claim_shared(expected, is_own ? 0 : static_cast<ExtraWait&>(wait).index);
    if (won) {
        if (!may_wake_here) {
            const bool asked = Inside::ask(fiber, FiberRequest::kWoken);
            fiber.release();
            return asked;
        }
        // If it has not parked yet, it will see before it parks that its ticket is claimed.
        if (fiber.state_ == FiberState::kParked) here->inside().make_ready(fiber, Wake::kNotified);
    }
    fiber.release();
    return won;
}

// Puts a parked fiber into the run queue. Its records are linked nowhere any more, or will lose if they are completed.
void Scheduler::Inside::make_ready(Fiber& fiber, Wake reason) noexcept {
    if (TimerQueue::holds(fiber)) parts_->timers.remove(fiber);
    if (fiber.wait_kind_ == WaitKind::kPermit && detail::embedder.lives.becomes_runnable) {
        detail::embedder.lives.becomes_runnable(fiber);
    }
    fiber.wake_ = reason;
    fiber.wait_kind_ = WaitKind::kNone;
    fiber.move_to(FiberState::kReady);
    parts_->run_queue.push_back(fiber);
}

// Ends the wait of a parked fiber because of a deadline, a cancellation or a signal. False: a completion is on its way,
// and will end the wait instead.
bool Scheduler::Inside::end_wait(Fiber& fiber, Wake reason) noexcept {
    assert(fiber.state_ == FiberState::kParked);
    if (!abort_records(fiber)) return false;
    fiber.ticket_.store(0, std::memory_order_relaxed);
    make_ready(fiber, reason);
    return true;
}

// Takes all records of the fiber out of what they are linked into. False: at least one is pending.
bool Scheduler::Inside::abort_records(Fiber& fiber) noexcept {
    if (fiber.state_ == FiberState::kNew || fiber.has_not_run()) return true;
    Wait& own = fiber.own_;
    if (!fiber.has_extra_waits_) return abort_record(own, fiber.wait_kind_) == Abort::kDone;
    bool all_done = true;
    for (auto* extra = static_cast<ExtraWait*>(own.value); extra; extra = extra->next) {
        if (abort_record(*extra, extra->kind) == Abort::kPending) all_done = false;
    }
    return all_done;
}

Abort Scheduler::Inside::abort_record(Wait& wait, WaitKind kind) noexcept {
    switch (kind) {
        case WaitKind::kNone:
        case WaitKind::kPermit:
        case WaitKind::kSleep:
            break;
        case WaitKind::kFd:
            if (wait.link.linked()) reactor_->unwatch(wait);
            break;
        case WaitKind::kJoin:
        case WaitKind::kLock:
        case WaitKind::kQueue:
            if (wait.fiber->is_shared_wait_) return ParkingLot::get().unlink(wait);
            if (wait.link.linked()) static_cast<WaitRing*>(const_cast<void*>(wait.target.key))->remove(wait);
            break;
        case WaitKind::kOperation:
            return wait.target.operation->abort(wait);
    }
    return Abort::kDone;
}

void Scheduler::interrupt_main() noexcept {
    if (main_->state_ != FiberState::kParked || !inside().end_wait(*main_, Wake::kInterrupted)) return;
    parts_->run_queue.remove(*main_);
    parts_->run_queue.push_front(*main_);
}

bool Scheduler::cancel(Fiber& fiber) noexcept {
    Scheduler& owner = *fiber.scheduler_;
    if (current_ != &owner) return Inside::ask(fiber, FiberRequest::kCancel);
    switch (fiber.state_) {
        case FiberState::kNew:
            owner.discard(fiber);
            break;
        case FiberState::kParked:
            fiber.is_cancelled_ = true;
            if (owner.inside().must_end_waits(fiber) && owner.inside().end_wait(fiber, Wake::kCancelled))
                Inside::note_cancelled(fiber);
            break;
        case FiberState::kReady:
        case FiberState::kRunning:
            fiber.is_cancelled_ = true;
            break;
        case FiberState::kFinished:
            break;
    }
    return true;
}

// --- requests of other threads ---

// Thread-safe. False: the fiber's thread has ended, so that the fiber has finished or will never run again.
bool Scheduler::Inside::ask(Fiber& fiber, std::uint8_t request) noexcept {
    fiber.retain();  // for the inbox
    const std::uint8_t before = fiber.requests_.fetch_or(request, std::memory_order_acq_rel);
    if ((before & FiberRequest::kAllRequests) != 0) {
        fiber.release();  // it is in the inbox, or on its way there
        return true;
    }
    if (fiber.scheduler_->parts_->inbox.add(fiber)) return true;
    refuse(fiber);
    return false;
}

// Takes the fiber's requests back, because its thread has ended and will not answer them. Drops the reference that the
// inbox has held. Thread-safe.
void Scheduler::Inside::refuse(Fiber& fiber) noexcept {
    const std::uint8_t asked =
        fiber.requests_.fetch_and(static_cast<std::uint8_t>(~FiberRequest::kAllRequests), std::memory_order_acq_rel);
    if ((asked & FiberRequest::kJoined) != 0) forget_task(fiber.id_);
    fiber.release();
}

// Does what other threads have asked of the fiber.
void Scheduler::Inside::answer(Fiber& fiber) noexcept {
    const std::uint8_t asked =
        fiber.requests_.fetch_and(static_cast<std::uint8_t>(~FiberRequest::kAllRequests), std::memory_order_acq_rel);
    // A wait that was over before this arrived is not parked any more, or has a ticket that nobody has claimed.
    if ((asked & FiberRequest::kWoken) != 0 && fiber.state_ == FiberState::kParked && fiber.is_claimed()) {
        make_ready(fiber, Wake::kNotified);
    }
    if ((asked & FiberRequest::kPermit) != 0) {
        fiber.has_permit_ = true;
        if (fiber.state_ == FiberState::kParked && fiber.wait_kind_ == WaitKind::kPermit) {
            end_permit_wait(fiber, take_permit(fiber));
        }
    }
    if ((asked & FiberRequest::kCancel) != 0) cancel(fiber);
    if ((asked & FiberRequest::kJoined) != 0) {
        fiber.has_remote_joiners_ = true;
        if (fiber.state_ == FiberState::kFinished) forget_task(fiber.id_);
    }
    fiber.release();
}

// --- permits ---

Woken Scheduler::park(std::int64_t deadline_ns) noexcept {
    Fiber& self = *running_;
    if (self.has_permit_) return {Wake::kNotified, inside().take_permit(self)};
    self.wait_kind_ = WaitKind::kPermit;
    bool switched = false;
    const Wake reason = inside().await_quietly(deadline_ns, switched);
    void* const value = std::exchange(self.own_.value, nullptr);
    Inside::arrive(self, switched);
    return {reason, value};
}

// A wait for a permit is linked nowhere and only its own thread ends it, whatever it is then waiting for: so it needs
// no ticket, which would be a good part of what a switch costs.
void Scheduler::Inside::end_permit_wait(Fiber& fiber, void* value) noexcept {
    fiber.own_.value = value;
    make_ready(fiber, Wake::kNotified);
}

void* Scheduler::Inside::take_permit(Fiber& fiber) noexcept {
    fiber.has_permit_ = false;
    void* const value = std::exchange(fiber.permit_value_, nullptr);
    fiber.requests_.fetch_and(static_cast<std::uint8_t>(~FiberRequest::kPermitTaken), std::memory_order_acq_rel);
    return value;
}

Sent Scheduler::unpark(Fiber& fiber, void* value) noexcept {
    Scheduler& owner = *fiber.scheduler_;
    const bool is_here = current_ == &owner;
    if (is_here) {
        if (fiber.state_ == FiberState::kFinished) return Sent::kSent;
        if (fiber.state_ == FiberState::kParked && fiber.wait_kind_ == WaitKind::kPermit) {
            owner.inside().end_permit_wait(fiber, value);
            return Sent::kSent;
        }
        if (value && fiber.value_sent()) return Sent::kBusy;
    }
    if ((fiber.requests_.fetch_or(FiberRequest::kPermitTaken, std::memory_order_acq_rel) &
         FiberRequest::kPermitTaken) != 0) {
        return value ? Sent::kBusy : Sent::kSent;
    }
    fiber.permit_value_ = value;
    if (is_here) {
        fiber.has_permit_ = true;
        return Sent::kSent;
    }
    if (Inside::ask(fiber, FiberRequest::kPermit)) return Sent::kSent;
    fiber.permit_value_ = nullptr;
    fiber.requests_.fetch_and(static_cast<std::uint8_t>(~FiberRequest::kPermitTaken), std::memory_order_acq_rel);
    return Sent::kClosed;
}

// --- sleeping and joining ---

Wake Scheduler::sleep_until(std::int64_t deadline_ns) noexcept {
    if (deadline_ns > clock_->now_ns() || inside().must_end_waits(*running_)) {
        running_->wait_kind_ = WaitKind::kSleep;  // nothing but its own thread ends it: no ticket, as with a permit
        return await(deadline_ns);
    }
    yield_now();
    return Wake::kTimeout;
}

Wake Scheduler::join(Fiber& fiber, std::int64_t deadline_ns) noexcept {
    check(&fiber != running_, "a fiber cannot join itself: it would wait for its own end for ever");
    if (fiber.scheduler_ != this) return inside().join_in_lot(fiber.id_, &fiber, deadline_ns);
    if (fiber.state_ == FiberState::kFinished) return Wake::kNotified;
    fiber.retain();  // its ring of joiners must outlast our being in it
    fiber.joiners_.push_back(begin_wait(WaitKind::kJoin, &fiber.joiners_));
    const Wake reason = await(deadline_ns);
    fiber.release();
    return reason;
}

Wake Scheduler::join_task(std::uint64_t id, std::int64_t deadline_ns) noexcept {
    return inside().join_in_lot(id, nullptr, deadline_ns);
}

// The record is linked before the fiber's thread is asked to look at it: that thread finds the fiber finished and wakes
// us, or will do so when it finishes.
Wake Scheduler::Inside::join_in_lot(std::uint64_t id, Fiber* fiber, std::int64_t deadline_ns) noexcept {
    Wait& wait = begin_wait(WaitKind::kJoin, ParkingLot::end_of(id), true);
    ParkingLot::get().link(wait, false);
    if (fiber && !ask(*fiber, FiberRequest::kJoined)) {
        give_up_wait();
        return Wake::kNotified;
    }
    return await(deadline_ns);
}

void Scheduler::forget_task(std::uint64_t id) noexcept { ParkingLot::get().wake_all(ParkingLot::end_of(id)); }

// --- descriptors ---

[[gnu::noinline]] Wake Scheduler::wait_fd(FdRequest& request, std::int64_t deadline_ns) noexcept {
    Fiber& self = *running_;
    parts_->closings->forget_announced();
    Wait& wait = begin_wait(WaitKind::kFd, nullptr);
    if (!inside().watch(request, wait)) {
        self.ticket_.store(0, std::memory_order_relaxed);
        return Wake::kNotified;
    }
    bool switched = false;
    const Wake reason = inside().await_quietly(deadline_ns, switched);
    const bool is_open = inside().end_watch(request, wait);
    Inside::arrive(self, switched);
    return reason == Wake::kNotified && !is_open ? Wake::kClosed : reason;
}

Wake Scheduler::wait_fds(std::span<FdRequest> requests, std::int64_t deadline_ns) noexcept {
    if (requests.size() == 1) return wait_fd(requests[0], deadline_ns);
    Parts& parts = *parts_;
    Fiber& self = *running_;
    if (!parts.extra_waits.reserve(requests.size())) {
        for (FdRequest& request : requests) request.ready = kFdFailed;
        return Wake::kNotified;
    }
    parts.closings->forget_announced();
    Wait& own = begin_wait(WaitKind::kFd, nullptr);
    own.target.descriptor.fd = requests.empty() ? -1 : requests[0].fd;
    self.has_extra_waits_ = true;
    ExtraWait* extras = nullptr;
    bool all_watched = true;
    for (std::size_t i = 0; i < requests.size(); ++i) {
        ExtraWait& wait = parts.extra_waits.take();
        wait.fiber = &self;
        wait.kind = WaitKind::kFd;
        wait.ticket = own.ticket;
        wait.index = static_cast<std::uint32_t>(i);
        wait.next = extras;
        extras = &wait;
        own.value = extras;
        all_watched = inside().watch(requests[i], wait) && all_watched;
    }
    bool switched = false;
    const Wake reason = all_watched ? inside().await_quietly(deadline_ns, switched) : Wake::kNotified;
    bool all_open = true;
    own.value = nullptr;
    self.has_extra_waits_ = false;
    self.ticket_.store(0, std::memory_order_relaxed);
    while (extras) {
        ExtraWait& wait = *extras;
        extras = wait.next;
        if (wait.link.linked()) reactor_->unwatch(wait);
        all_open = inside().end_watch(requests[wait.index], wait) && all_open;
        parts.extra_waits.give_back(wait);
    }
    Inside::arrive(self, switched);
    return reason == Wake::kNotified && !all_open ? Wake::kClosed : reason;
}

// Starts to watch the descriptor. False: there is nothing to wait for, and request.ready says why. Out of line:
// inlined, what it keeps on the stack would stay there while the fiber is parked.
[[gnu::noinline]] bool Scheduler::Inside::watch(FdRequest& request, Wait& wait) noexcept {
    request.ready = 0;
    parts_->closings->note_wait(request.fd);
    wait.target.descriptor = {request.fd, static_cast<std::uint16_t>(request.wanted), 0};
    wait.rechecked = false;
    const auto watched = reactor_->watch(wait);
    if (watched) {
        parts_->recheck_wanted = true;
        return true;
    }
    const int code = watched.error().code;
    request.ready = code == EPERM ? request.wanted : code == EBADF ? kFdInvalid : kFdFailed;
    return false;
}

// Hands over what has come. False: the descriptor was reported ready, but another fiber has closed it before this one
// could run, and its number may already be another file's.
[[gnu::noinline]] bool Scheduler::Inside::end_watch(FdRequest& request, Wait& wait) noexcept {
    if (wait.target.descriptor.ready == 0) return true;
    request.ready = wait.target.descriptor.ready;
    return !reactor_->closed_since(wait);
}

void Scheduler::Inside::on_fd_ready(Wait& wait, void* scheduler) {
    static_cast<Scheduler*>(scheduler)->complete(wait, nullptr, wait.closed ? Wake::kClosed : Wake::kNotified);
}

void Scheduler::forget_fd(int fd) noexcept { reactor_->forget(fd, &Scheduler::Inside::on_fd_ready, this); }

}  // namespace culm::runtime
