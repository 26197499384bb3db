// What happens between fibers: looking at the inbox, the timers and the reactor; waiting when nothing can run; the
// housekeeping that idleness allows.
//
// All of it runs on the stack of the fiber that wants to be left, with at_work_ set.
// Invariant: an idle wait ends at the next deadline at the latest, and is unbounded only when no housekeeping is due.
#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstdlib>

#include "fiber_moves.hpp"
#include "scheduler_parts.hpp"
#include "switch_hook.hpp"

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

}  // namespace

// Fibers may be runnable: nothing here waits.
void Scheduler::look() noexcept {
    looks_left_ = kSwitchesPerLook;
    const WorkScope work(at_work_, errno_);
    const std::int64_t now_ns = collect();
    if (parts_->fd_waits_in_use > 0) poll_reactor(0);
    if (parts_->shrinker.has_work_now(now_ns)) [[unlikely]] {
        parts_->shrinker.idle_ended();
        parts_->shrinker.run_slice(*running_, *clock_);
    }
}

// Nothing is runnable. Returns when that may have changed.
void Scheduler::idle(Fiber& self) noexcept {
    looks_left_ = kSwitchesPerLook;
    exit_if_deserted();
    const WorkScope work(at_work_, errno_);
    collect();
    if (parts_->run_queue.empty()) wait_for_work(self);
}

// Calls from other threads, and deadlines that have passed. Returns the time.
std::int64_t Scheduler::collect() noexcept {
    Parts& parts = *parts_;
    if (parts.inbox.pending()) parts.remote_calls += parts.inbox.deliver(*this);
    const std::int64_t now_ns = clock_->now_ns();
    epoch_ = parts.shrinker.observe(now_ns);
    while (Fiber* fiber = parts.timers.pop_due(now_ns)) make_ready(*fiber, Wake::kTimeout);
    return now_ns;
}

void Scheduler::wait_for_work(Fiber& self) noexcept {
    Parts& parts = *parts_;
    const std::int64_t now_ns = clock_->now_ns();
    keep_house(now_ns);
    if (!parts.run_queue.empty()) return;
    if (clock_jumps_) {
        // Everything that has happened comes before anything that time brings.
        if (poll_reactor(0) > 0 || parts.inbox.pending() || !parts.run_queue.empty()) return;
        if (parts.shrinker.has_work()) return;
        const std::int64_t due_ns = parts.shrinker.idle_due_ns(parts.idle_since_ns);
        if (clock_->skip_to(std::min(parts.timers.next_deadline_ns(), due_ns))) return static_cast<void>(collect());
        return poll_idle(self, kNever);
    }
    // While there are slices to do: look, do not wait.
    if (parts.shrinker.has_work()) return poll_idle(self, 0);
    const std::int64_t until_ns = std::min(parts.timers.next_deadline_ns(), housekeeping_due_ns());
    if (until_ns == kNever) return poll_idle(self, kNever);
    poll_idle(self, until_ns > now_ns ? until_ns - now_ns : 0);
}

void Scheduler::poll_idle(Fiber& self, std::int64_t timeout_ns) noexcept {
    ++parts_->idle_polls;
    if (signal_waits()) return;
    if (timeout_ns == 0) {
        poll_reactor(0);
        collect();
        return;
    }
    if (detail::installed_hook.idle_begin) detail::installed_hook.idle_begin(self);
    poll_reactor(timeout_ns);
    if (detail::installed_hook.idle_end) detail::installed_hook.idle_end(self);
    collect();
}

// A signal that came after its language last looked would not interrupt the poll. True: the main fiber was woken.
bool Scheduler::signal_waits() noexcept {
    if (!detail::installed_hook.signal_pending || !detail::installed_hook.signal_pending(*this)) return false;
    interrupt_main();
    return !parts_->run_queue.empty();
}

int Scheduler::poll_reactor(std::int64_t timeout_ns) noexcept {
    ++parts_->polls;
    const int count = reactor_->poll(timeout_ns, &Scheduler::on_fd_ready, this);
    if (count != -EINTR) return count;
    const auto signal_pending = detail::installed_hook.signal_pending;
    if (!signal_pending || signal_pending(*this)) interrupt_main();
    return 0;
}

void Scheduler::on_fd_ready(FdWait& wait, void* scheduler) {
    // A fiber that was woken otherwise may wait for something else already, before it has taken its FdWaits back.
    if (wait.fiber->wait_kind() != WaitKind::kFd) return;
    static_cast<Scheduler*>(scheduler)->wake(*wait.fiber, wait.closed ? Wake::kClosed : Wake::kNotified);
}

// --- housekeeping ---------------------------------------------------------------------------------------------------

// When something is to be done although nothing has happened; kNever when there is nothing to do.
std::int64_t Scheduler::housekeeping_due_ns() noexcept {
    const Parts& parts = *parts_;
    const std::int64_t shrink_ns = std::min({parts.shrinker.idle_due_ns(parts.idle_since_ns),
                                             parts.shrinker.aged_due_ns(), parts.shrinker.pressure_due_ns()});
    return parts.recheck_wanted ? std::min(parts.recheck_at_ns, shrink_ns) : shrink_ns;
}

// Nothing can run: what idleness asks for, a little at a time.
void Scheduler::keep_house(std::int64_t now_ns) noexcept {
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
        reactor_->recheck(&Scheduler::on_fd_ready, this);
    }
    if (parts.shrinker.idle_due_ns(parts.idle_since_ns) <= now_ns) parts.shrinker.begin_idle_pass();
    if (parts.shrinker.has_work()) parts.shrinker.run_slice(*running_, *clock_);
}

std::size_t Scheduler::trim() noexcept { return parts_->shrinker.run_all(*running_); }

// --- after a fork ---------------------------------------------------------------------------------------------------

// The main fiber did not survive the fork and the last of the others has finished: there is no stack to return to, so
// the process ends as it does when its last thread ends.
void Scheduler::exit_if_deserted() noexcept {
    if (parts_->fibers > 0) return;
    if (main_->state_ == FiberState::kFinished) std::exit(0);
}

}  // namespace culm::runtime
