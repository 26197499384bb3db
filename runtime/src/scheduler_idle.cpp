// What happens between fibers: looking at the inbox, the timers and the reactor; waiting when nothing can run; the
// housekeeping that idleness allows.
//
// All of it runs on the stack of the fiber that wants to be left, with at_work_ set.
// Invariant: an idle wait ends at the next deadline at the latest, and is unbounded only when no housekeeping is due.
#include <algorithm>
#include <cassert>
#include <cerrno>
#include <csignal>
#include <cstdlib>

#include "embedder.hpp"
#include "fiber_moves.hpp"
#include "scheduler_inside.hpp"
#include "scheduler_parts.hpp"

namespace culm::runtime {

namespace {

// How long a descriptor is waited for before its registration is verified.
constexpr std::int64_t kRecheckAfterNs = 1'000'000'000;

// The runtime's system calls must not change the errno that the fiber left.
class WorkScope {
public:
    WorkScope(bool& at_work, int* thread_errno) noexcept
        : at_work_(at_work), thread_errno_(thread_errno), saved_errno_(*thread_errno) {
        assert(!at_work_);
        at_work_ = true;
    }
    ~WorkScope() {
        at_work_ = false;
        *thread_errno_ = saved_errno_;
    }
    WorkScope(const WorkScope&) = delete;
    WorkScope& operator=(const WorkScope&) = delete;

private:
    bool& at_work_;
    int* thread_errno_;
    int saved_errno_;
};

// The signals that sleep_in_poll() holds back: all but those that report a fault of the program, which cannot wait.
const sigset_t& held_signals() noexcept {
    static const sigset_t signals = [] {
        sigset_t set;
        sigfillset(&set);
        for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS}) sigdelset(&set, fault);
        return set;
    }();
    return signals;
}

}  // namespace

// Fibers may be runnable: nothing here waits.
[[gnu::noinline]] void Scheduler::Inside::catch_up() noexcept {
    switches_left_ = kSwitchesPerCatchUp;
    const WorkScope work(at_work_, errno_);
    const std::int64_t now_ns = take_in();
    if (reactor_->waiting() > 0) poll_reactor(0, nullptr);
    if (parts_->shrinker.has_work_now(now_ns)) [[unlikely]] {
        parts_->shrinker.idle_ended();
        parts_->shrinker.run_slice(*running_, *clock_);
    }
}

// Nothing is runnable. Returns when that may have changed.
[[gnu::noinline]] void Scheduler::Inside::idle(Fiber& self) noexcept {
    switches_left_ = kSwitchesPerCatchUp;
    exit_if_deserted();
    const WorkScope work(at_work_, errno_);
    take_in();
    if (parts_->run_queue.empty()) wait_for_work(self);
}

// Takes in what has happened elsewhere: requests of other threads, deadlines that have passed. Returns the time.
std::int64_t Scheduler::Inside::take_in() noexcept {
    Parts& parts = *parts_;
    if (parts.inbox.pending()) parts.remote_calls += parts.inbox.deliver(*this);
    parts.closings->forget_announced();
    const std::int64_t now_ns = clock_->now_ns();
    epoch_ = parts.shrinker.keep_time(now_ns);
    while (const TimerQueue::Due due = parts.timers.pop_due(now_ns)) {
        if (due.scope) {
            due.scope->cancel();
        } else {
            end_wait(*due.fiber, Wake::kTimeout);
        }
    }
    return now_ns;
}

void Scheduler::Inside::wait_for_work(Fiber& self) noexcept {
    Parts& parts = *parts_;
    const std::int64_t now_ns = clock_->now_ns();
    keep_house(now_ns);
    if (!parts.run_queue.empty()) return;
    if (clock_jumps_) {
        // Everything that has happened comes before anything that time brings.
        if (poll_reactor(0, nullptr) > 0 || parts.inbox.pending() || !parts.run_queue.empty()) return;
        if (parts.shrinker.has_work()) return;
        const std::int64_t due_ns = parts.shrinker.idle_due_ns(parts.idle_since_ns);
        if (clock_->skip_to(std::min(parts.timers.next_deadline_ns(), due_ns))) return static_cast<void>(take_in());
        return poll_idle(self, kNever);
    }
    // While there are slices of shrinking to do, the reactor is polled without waiting.
    if (parts.shrinker.has_work()) return poll_idle(self, 0);
    const std::int64_t until_ns = std::min(parts.timers.next_deadline_ns(), housekeeping_due_ns());
    if (until_ns == kNever) return poll_idle(self, kNever);
    poll_idle(self, until_ns > now_ns ? until_ns - now_ns : 0);
}

void Scheduler::Inside::poll_idle(Fiber& self, std::int64_t timeout_ns) noexcept {
    ++parts_->idle_polls;
    if (timeout_ns != 0) return sleep_in_poll(self, timeout_ns);
    const auto are_pending = detail::embedder.signals.are_pending;
    if (are_pending && are_pending(*this)) return interrupt_main();
    poll_reactor(0, nullptr);
    take_in();
}

// Where the language's signal handlers run, signals are held back from the look whether one is pending until the kernel
// has put the thread to sleep: one that comes in between would have been noted too late to be seen and too early to
// interrupt the sleep. The kernel lets them in again while it waits, and only then (epoll_pwait(2)).
// Out of line, as are idle() and catch_up(): inside the switch its signal set would lie on the stack of every parked
// fiber.
[[gnu::noinline]] void Scheduler::Inside::sleep_in_poll(Fiber& self, std::int64_t timeout_ns) noexcept {
    const Embedder& embedder = detail::embedder;
    const Signals& signals = embedder.signals;
    const bool holds_signals = signals.are_pending && (!signals.are_handled_by || signals.are_handled_by(*this));
    sigset_t mask;
    if (holds_signals) {
        ::pthread_sigmask(SIG_BLOCK, &held_signals(), &mask);
        if (signals.are_pending(*this)) {
            ::pthread_sigmask(SIG_SETMASK, &mask, nullptr);
            return interrupt_main();
        }
    }
    if (embedder.idling.begins) embedder.idling.begins(self);
    poll_reactor(timeout_ns, holds_signals ? &mask : nullptr);
    if (holds_signals) ::pthread_sigmask(SIG_SETMASK, &mask, nullptr);
    if (embedder.idling.ends) embedder.idling.ends(self);
    take_in();
}

int Scheduler::Inside::poll_reactor(std::int64_t timeout_ns, const sigset_t* signal_mask) noexcept {
    ++parts_->polls;
    const int count = reactor_->poll(timeout_ns, &on_fd_ready, this, signal_mask);
    if (count != -EINTR) return count;
    const auto are_pending = detail::embedder.signals.are_pending;
    if (!are_pending || are_pending(*this)) interrupt_main();
    return 0;
}

// --- housekeeping ---

// When something is to be done although nothing has happened; kNever when there is nothing to do.
std::int64_t Scheduler::Inside::housekeeping_due_ns() noexcept {
    const Parts& parts = *parts_;
    const std::int64_t shrink_ns = std::min({parts.shrinker.idle_due_ns(parts.idle_since_ns),
                                             parts.shrinker.aged_due_ns(), parts.shrinker.pressure_due_ns()});
    return parts.recheck_wanted ? std::min(parts.recheck_at_ns, shrink_ns) : shrink_ns;
}

// Nothing can run: what idleness asks for, a little at a time.
void Scheduler::Inside::keep_house(std::int64_t now_ns) noexcept {
    Parts& parts = *parts_;
    if (switches_ != parts.switches_at_idle) {
        parts.switches_at_idle = switches_;
        parts.idle_since_ns = now_ns;
        parts.shrinker.idle_ended();
    }
    if (parts.recheck_wanted && parts.recheck_at_ns == 0) parts.recheck_at_ns = deadline_after(now_ns, kRecheckAfterNs);
    if (!clock_jumps_ && parts.recheck_wanted && parts.recheck_at_ns <= now_ns) {
        parts.recheck_wanted = false;
        parts.recheck_at_ns = 0;
        reactor_->recheck(&on_fd_ready, this);
    }
    if (parts.shrinker.idle_due_ns(parts.idle_since_ns) <= now_ns) parts.shrinker.begin_idle_pass();
    if (parts.shrinker.has_work()) parts.shrinker.run_slice(*running_, *clock_);
}

std::size_t Scheduler::trim() noexcept { return parts_->shrinker.run_all(*running_); }

// --- after a fork ---

// The main fiber did not survive the fork and the last of the others has finished: there is no stack to return to, so
// the process ends as it does when its last thread ends.
void Scheduler::Inside::exit_if_deserted() noexcept {
    if (parts_->fibers > 0) return;
    if (main_->state_ == FiberState::kFinished) std::exit(0);
}

}  // namespace culm::runtime
