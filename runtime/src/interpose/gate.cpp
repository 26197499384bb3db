// Parking from inside a libc call: who holds the language's lock, what ends the wait, and how often to try again.
#include "gate.hpp"

#include <poll.h>

#include <algorithm>

#include "culm/runtime/undertaker.hpp"
#include "descriptors.hpp"
#include "real.hpp"
#include "yellow_zone_keeper.hpp"

namespace culm::runtime::interpose {

Parking::Parking(Scheduler& scheduler) noexcept : self_(scheduler.running()) {
    patch_what_was_loaded();
    counters.parks.fetch_add(1, std::memory_order_relaxed);
    const Calls& calls = detail::embedder.calls;
    if (!calls.enter) return;
    in_embedder = true;
    lock_taken_ = calls.enter(self_);
    in_embedder = false;
}

Parking::~Parking() {
    const Calls& calls = detail::embedder.calls;
    if (!calls.leave) return;
    in_embedder = true;
    calls.leave(self_, lock_taken_);
    in_embedder = false;
}

int Parking::outcome(Wake wake) noexcept {
    switch (wake) {
        case Wake::kNotified:
            return 0;
        case Wake::kTimeout:
            return ETIMEDOUT;
        case Wake::kInterrupted:
            return EINTR;
        case Wake::kClosed:
            return EBADF;
        case Wake::kCancelled:
            break;
    }
    if (const Calls& calls = detail::embedder.calls; calls.cancelled) {
        in_embedder = true;
        calls.cancelled(self_);
        in_embedder = false;
    }
    return ECANCELED;
}

int Parking::lock_outcome(Wake wake) noexcept {
    if (wake != Wake::kCancelled) return outcome(wake);
    const Calls& calls = detail::embedder.calls;
    if (!calls.cancelled_in_lock) return EINTR;
    in_embedder = true;
    const bool will_raise = calls.cancelled_in_lock(self_);
    in_embedder = false;
    FiberNotes(self_).set_lock_cancelled(will_raise);
    return will_raise ? EINTR : ECANCELED;
}

void end_if_out_of_stack(Scheduler& scheduler) noexcept {
    Fiber& self = scheduler.running();
    if (!Undertaker::is_wanted() || FiberNotes(self).held_mutexes() != 0) return;
    if (!YellowZoneKeeper::is_nearly_out(self)) return;
    Parking parking(scheduler);
    in_embedder = true;
    const bool is_over = Undertaker::take_over(self);
    in_embedder = false;
    while (is_over) scheduler.park(kNever);
}

int sleep_parked(Scheduler& scheduler, std::int64_t deadline_ns) noexcept {
    Parking parking(scheduler);
    for (;;) {
        const Wake wake = scheduler.sleep_until(deadline_ns);
        if (wake == Wake::kTimeout) return 0;
        if (const int failure = parking.outcome(wake); failure != 0) return failure;
        if (scheduler.clock().now_ns() >= deadline_ns) return 0;
    }
}

int BackOff::wait(Scheduler& scheduler, std::int64_t deadline_ns) noexcept {
    constexpr std::int64_t kMillisecond = 1'000'000;
    if (rounds_++ == 0) {
        Parking parking(scheduler);
        scheduler.yield_now();
        return 0;
    }
    const std::int64_t pause = std::min<std::int64_t>(kMillisecond << std::min(rounds_ - 2, 4U), 10 * kMillisecond);
    return sleep_parked(scheduler, std::min(deadline_ns, deadline_in(scheduler, pause)));
}

bool Patience::may_wait() noexcept {
    if (asked_) return blocking_;
    asked_ = true;
    if (descriptors::known_plain(fd_)) return blocking_ = true;
    const std::uint32_t epoch = descriptors::mode_epoch();
    blocking_ = descriptors::blocks(fd_);
    if (!blocking_ || timeout_ == Timeout::kNone) return blocking_;
    const std::int64_t receive_ns = descriptors::timeout_ns(fd_, SO_RCVTIMEO);
    const std::int64_t send_ns = descriptors::timeout_ns(fd_, SO_SNDTIMEO);
    const std::int64_t timeout = timeout_ == Timeout::kReceive ? receive_ns : send_ns;
    if (timeout != kNever) deadline_ns_ = deadline_in(scheduler_, timeout);
    if (receive_ns == kNever && send_ns == kNever) descriptors::note_plain(fd_, epoch);
    return true;
}

int Patience::wait() noexcept {
    if (!may_wait()) return EAGAIN;
    if (deadline_ns_ != kNever && scheduler_.clock().now_ns() >= deadline_ns_) return EAGAIN;
    if (waited_) {
        // It was ready and yet the attempt failed: somebody was faster, or readiness does not tell (the queue of a
        // datagram's receiver), or the reactor cannot watch it. Except in the first case waiting for it would spin.
        pollfd look{fd_, static_cast<short>(wanted_), 0};
        if (reactor_failed_ || real.poll(&look, 1, 0) > 0) return back_off_.wait(scheduler_, deadline_ns_);
    }
    waited_ = true;
    Parking parking(scheduler_);
    FdRequest request{fd_, wanted_, 0};
    const int failure = parking.outcome(scheduler_.wait_fd(request, deadline_ns_));
    reactor_failed_ = failure == 0 && request.ready == kFdFailed;
    return failure == ETIMEDOUT ? EAGAIN : failure;
}

}  // namespace culm::runtime::interpose
