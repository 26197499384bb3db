// What happens between fibers: looking at the inbox, the timers and the reactor; waiting when nothing can run; the
// housekeeping that idleness allows.
//
// All of it runs on the stack of the fiber that wants to be left, with at_work_ set.
// Invariant: an idle wait ends at the next deadline at the latest, and is unbounded only when no housekeeping is due.
#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstdlib>

#include "culm/kernel.hpp"
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
    collect();
    if (parts_->fd_waits_in_use > 0) poll_reactor(0);
}

// Nothing is runnable. Returns when that may have changed.
void Scheduler::idle(Fiber& self) noexcept {
    looks_left_ = kSwitchesPerLook;
    exit_if_deserted();
    const WorkScope work(at_work_, errno_);
    collect();
    if (parts_->run_queue.empty()) wait_for_work(self);
}

// Calls from other threads, and deadlines that have passed.
void Scheduler::collect() noexcept {
    Parts& parts = *parts_;
    if (parts.inbox.pending()) parts.remote_calls += parts.inbox.deliver(*this);
    if (parts.timers.empty()) return;
    const std::int64_t now_ns = clock_->now_ns();
    while (Fiber* fiber = parts.timers.pop_due(now_ns)) make_ready(*fiber, Wake::kTimeout);
}

void Scheduler::wait_for_work(Fiber& self) noexcept {
    Parts& parts = *parts_;
    if (clock_jumps_) {
        // Everything that has happened comes before anything that time brings.
        if (poll_reactor(0) > 0 || parts.inbox.pending() || !parts.run_queue.empty()) return;
        if (clock_->skip_to(parts.timers.next_deadline_ns())) return collect();
        return poll_idle(self, kNever);
    }
    const std::int64_t now_ns = clock_->now_ns();
    const std::int64_t housekeeping_ns = housekeeping_due_ns(now_ns);
    if (housekeeping_ns <= now_ns) keep_house(now_ns);
    if (!parts.run_queue.empty()) return;
    // While a trim in slices is under way housekeeping stays due: look, do not wait.
    const std::int64_t until_ns = std::min(parts.timers.next_deadline_ns(), housekeeping_due_ns(now_ns));
    if (until_ns == kNever) return poll_idle(self, kNever);
    poll_idle(self, until_ns > now_ns ? until_ns - now_ns : 0);
}

void Scheduler::poll_idle(Fiber& self, std::int64_t timeout_ns) noexcept {
    ++parts_->idle_polls;
    if (signal_waits()) return;
    if (timeout_ns == 0) {
        poll_reactor(0);
        return collect();
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

// When idleness has lasted long enough for something to be done; kNever when there is nothing to do.
std::int64_t Scheduler::housekeeping_due_ns(std::int64_t now_ns) noexcept {
    Parts& parts = *parts_;
    if (switches_ != parts.switches_at_idle) {
        parts.switches_at_idle = switches_;
        parts.idle_since_ns = now_ns;
        parts.trim_wanted = true;
        parts.trim_next = nullptr;
    }
    if (parts.recheck_wanted && parts.recheck_at_ns == 0) parts.recheck_at_ns = deadline_after(now_ns, kRecheckAfterNs);
    const std::int64_t trim_ns =
        parts.trim_wanted && trim_after_ns != kNever ? deadline_after(parts.idle_since_ns, trim_after_ns) : kNever;
    const std::int64_t recheck_ns = parts.recheck_wanted ? parts.recheck_at_ns : kNever;
    return std::min(trim_ns, recheck_ns);
}

void Scheduler::keep_house(std::int64_t now_ns) noexcept {
    Parts& parts = *parts_;
    if (parts.recheck_wanted && parts.recheck_at_ns <= now_ns) {
        parts.recheck_wanted = false;
        parts.recheck_at_ns = 0;
        reactor_->recheck(&Scheduler::on_fd_ready, this);
    }
    const bool idle_long_enough = deadline_after(parts.idle_since_ns, trim_after_ns) <= now_ns;
    if (!parts.trim_wanted || trim_after_ns == kNever || !idle_long_enough) return;
    if (!parts.trim_next) parts.trim_next = parts.all.front();
    trim_slice();
    if (parts.trim_next) return;
    parts.trim_wanted = false;
    parts.stacks->trim();
    parts.strategy_stacks.trim();
}

std::size_t Scheduler::trim() noexcept {
    Parts& parts = *parts_;
    std::size_t trimmed = 0;
    parts.trim_next = parts.all.front();
    while (parts.trim_next) trimmed += trim_slice();
    parts.stacks->trim();
    parts.strategy_stacks.trim();
    return trimmed;
}

// Looks at the next suspended fibers that have run since they were looked at last, and discards what lies a page or
// more below their stack pointer. Returns how many stacks that were.
std::size_t Scheduler::trim_slice() noexcept {
    Parts& parts = *parts_;
    const std::size_t page_bytes = kernel_features().page_bytes;
    std::size_t count = 0;
    std::size_t seen = 0;
    Fiber* fiber = parts.trim_next;
    for (; fiber && seen < kTrimBatch; fiber = parts.all.after(*fiber)) {
        if (fiber->trimmed_ || fiber == running_ || !fiber->stack_base_) continue;
        ++seen;
        fiber->trimmed_ = true;
        const Stack stack = fiber->stack();
        const auto used = static_cast<std::size_t>(stack.base - static_cast<const std::byte*>(fiber->context_.sp));
        if (const auto residency = stack_residency(stack)) {
            fiber->note_peak(residency.value().depth_bytes);
            // One page is kept to spare; less than another is not worth a range.
            if (residency.value().depth_bytes <= used + kRedZoneBytes + 2 * page_bytes) continue;
        }
        (*parts.trim_batch)[count++] = SuspendedStack{stack, fiber->context_.sp};
    }
    parts.trim_next = fiber;
    return count > 0 ? discard_below({parts.trim_batch->data(), count}) : 0;
}

// --- after a fork ---------------------------------------------------------------------------------------------------

// The main fiber did not survive the fork and the last of the others has finished: there is no stack to return to, so
// the process ends as it does when its last thread ends.
void Scheduler::exit_if_deserted() noexcept {
    if (parts_->fibers > 0) return;
    if (main_->state_ == FiberState::kFinished) std::exit(0);
}

}  // namespace culm::runtime
