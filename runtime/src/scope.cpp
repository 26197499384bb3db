// The tree of cancel scopes, and the one look that each wait takes at it.
//
// What a fiber sees from inside: its scopes from the innermost outwards, up to the first shielded one, which hides what
// lies around it. Between the last scope that the fiber entered itself and a scope of another fiber around it stands
// the fiber's own outermost scope. It is no object but a flag, Fiber::is_cancelled_, set by Scheduler::cancel() and
// taken back by the wait that ends with it: that cancel is delivered once.
#include "culm/runtime/scope.hpp"

#include <cassert>
#include <cerrno>

#include "culm/check.hpp"
#include "culm/runtime/scheduler.hpp"
#include "scheduler_inside.hpp"
#include "scheduler_parts.hpp"

namespace culm::runtime {

namespace {

constexpr Error kNoScopeMemory{ENOMEM, "enter a cancel scope", "raise the memory limit of the process"};

}  // namespace

Scope::~Scope() { check(scheduler_ == nullptr, "a cancel scope was destroyed before it was left: leave() it first"); }

Result<void> Scope::enter(Scheduler& scheduler) noexcept {
    check(scheduler_ == nullptr, "a cancel scope was entered twice: make another one");
    Fiber& self = scheduler.running();
    Scheduler::Parts& parts = *scheduler.parts_;
    if (!parts.timers.reserve(parts.fibers + parts.unstarted + parts.scopes + 3)) return kNoScopeMemory;
    join_tree(scheduler, self.scope_, &self);
    self.scope_ = this;
    return {};
}

Result<void> Scope::enter_for_task(Scheduler& scheduler, Scope* parent) noexcept {
    check(scheduler_ == nullptr, "a cancel scope was entered twice: make another one");
    Scheduler::Parts& parts = *scheduler.parts_;
    if (!parts.timers.reserve(parts.fibers + parts.unstarted + parts.scopes + 3)) return kNoScopeMemory;
    join_tree(scheduler, parent, nullptr);
    is_outermost_ = true;
    return {};
}

void Scope::leave() noexcept {
    check(scheduler_ != nullptr, "a cancel scope was left that had not been entered, or was left twice");
    if (fiber_) {
        check(fiber_ == &scheduler_->running(),
              "a cancel scope was left by another fiber than the one that entered it");
        check(fiber_->scope_ == this, "cancel scopes were left out of order: leave the innermost one first");
    }
    leave_tree();
}

void Scope::join_tree(Scheduler& scheduler, Scope* parent, Fiber* fiber) noexcept {
    scheduler_ = &scheduler;
    parent_ = parent;
    fiber_ = fiber;
    ++scheduler.parts_->scopes;
    if (parent) parent->children_.push_back(*this);
}

void Scope::leave_tree() noexcept {
    check(children_.empty(), "a cancel scope was left while scopes inside it were still entered");
    if (TimerQueue::holds(*this)) scheduler_->parts_->timers.remove(*this);
    if (link_.linked()) link_.unlink();
    // The scope around the outermost one of a task belongs to another fiber.
    if (fiber_) fiber_->scope_ = parent_ && parent_->fiber_ == fiber_ ? parent_ : nullptr;
    --scheduler_->parts_->scopes;
    scheduler_ = nullptr;
    parent_ = nullptr;
    fiber_ = nullptr;
    is_outermost_ = false;
}

// Its fiber will never run again: what is inside becomes independent.
void Scope::abandon() noexcept {
    while (Scope* child = children_.pop_front()) child->parent_ = nullptr;
    leave_tree();
}

void Scope::cancel(void* reason) noexcept {
    if (is_cancelled_) return;
    is_cancelled_ = true;
    reason_ = reason;
    if (scheduler_) end_waits_below();
}

void Scope::end_waits_below() noexcept {
    // Recursion as deep as the scopes are nested.
    if (fiber_ && fiber_->state_ == FiberState::kParked && scheduler_->inside().apply_scopes(*fiber_)) {
        if (scheduler_->inside().end_wait(*fiber_, Wake::kCancelled)) Scheduler::Inside::note_cancelled(*fiber_);
    }
    for (Scope* child = children_.front(); child; child = children_.after(*child)) {
        if (!child->is_shielded_) child->end_waits_below();
    }
}

void Scope::set_deadline(std::int64_t deadline_ns) noexcept {
    deadline_ns_ = deadline_ns;
    if (!scheduler_) return;
    TimerQueue& timers = scheduler_->parts_->timers;
    if (TimerQueue::holds(*this)) timers.remove(*this);
    // Fibers may be parked inside already, so the timer is needed at once. If none is, it does no harm: it cancels the
    // scope when the deadline passes, which is what a deadline means.
    if (deadline_ns != kNever && !is_cancelled_) timers.add(*this);
}

void Scope::set_shielded(bool is_shielded) noexcept {
    const bool opens = is_shielded_ && !is_shielded;
    is_shielded_ = is_shielded;
    if (opens && scheduler_) end_waits_below();  // a scope around it may have been cancelled meanwhile
}

// --- the scheduler's side ---

// Walks the scopes that the fiber sees, from the innermost outwards: cancels the first whose deadline has passed, and
// starts the timers of the others. True: one of them is cancelled, so the fiber's waits end with kCancelled.
[[gnu::noinline]] bool Scheduler::Inside::apply_scopes(Fiber& fiber) noexcept {
    Scope* scope = fiber.scope_;
    std::int64_t now_ns = 0;
    while (scope) {
        if (scope->fiber_ != &fiber && fiber.is_cancelled_) return true;
        if (scope->is_cancelled_) return true;
        if (scope->deadline_ns_ != kNever && !TimerQueue::holds(*scope)) {
            if (now_ns == 0) now_ns = clock_->now_ns();
            if (scope->deadline_ns_ <= now_ns) {
                scope->cancel();
                return true;
            }
            parts_->timers.add(*scope);
        }
        if (scope->is_shielded_) return false;
        scope = scope->parent_;
    }
    return fiber.is_cancelled_;
}

// No scope that the fiber has entered keeps the cancellation of its outermost one from it.
bool Scheduler::Inside::sees_its_own_cancel(const Fiber& fiber) noexcept {
    for (const Scope* scope = fiber.scope_; scope && scope->fiber_ == &fiber; scope = scope->parent_) {
        if (scope->is_shielded_) return false;
    }
    return true;
}

// A wait has ended, or is going to end, with kCancelled: cancel() is delivered once.
void Scheduler::Inside::note_cancelled(Fiber& fiber) noexcept {
    if (fiber.is_cancelled_ && sees_its_own_cancel(fiber)) fiber.is_cancelled_ = false;
}

// The task that `self` ran has ended. What it has entered itself it must have left.
void Scheduler::Inside::leave_outermost_scope(Fiber& self) noexcept {
    Scope& outermost = *self.scope_;
    check(outermost.is_outermost_,
          "a fiber ended inside a cancel scope that it had entered: leave every scope before the function returns");
    outermost.leave_tree();
}

}  // namespace culm::runtime
