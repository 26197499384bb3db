// Cancel scopes: what a fiber does until a deadline, or until somebody cancels it.
//
// Scopes form a tree. A fiber enters and leaves scopes like blocks; the innermost one is its current scope, and each
// knows the one around it. The outermost scope of a fiber may hang below a scope of another fiber (Task::scope): that
// is how everything started within a scope ends with it. Cancelling is level-triggered: as long as a scope is
// cancelled, every wait inside it ends with Wake::kCancelled at once, or when the scope is cancelled during it. A
// shielded scope lets nothing in from outside: what happens around it is not seen until it is left. One thing is not
// level-triggered and no Scope: Scheduler::cancel() sets the flag Fiber::is_cancelled_, which counts like a scope
// around all that the fiber has entered itself, and the wait that ends by it takes it back. A deadline needs no
// timer until a fiber parks inside the scope; then the scope has one for all of its fibers. All members are for the
// thread of the scheduler that the scope's fibers belong to. Invariant: a fiber leaves its scopes in the opposite
// order; a scope ends after everything below it.
#pragma once

#include <cstdint>

#include "culm/result.hpp"
#include "culm/runtime/clock.hpp"
#include "culm/runtime/intrusive_list.hpp"

namespace culm::runtime {

class Fiber;
class Scheduler;

class Scope {
public:
    Scope() = default;
    ~Scope();  // must have been left
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

    // The running fiber enters: the scope becomes its current one. ENOMEM when there is no room for its timer.
    Result<void> enter(Scheduler& scheduler) noexcept;
    // Left by the fiber that entered it, innermost first; anything else ends the process with a sentence.
    void leave() noexcept;

    // Prepares the scope as the outermost one of a fiber that is about to be made, below `parent` (may be null). It is
    // left by itself when that fiber ends; if no fiber was made, by leave().
    Result<void> enter_for_task(Scheduler& scheduler, Scope* parent) noexcept;

    // Ends the waits of all fibers inside, now and later. Not undone. `reason` is for whoever asks; the first one
    // stays.
    void cancel(void* reason = nullptr) noexcept;
    bool is_cancelled() const noexcept { return is_cancelled_; }
    void* reason() const noexcept { return reason_; }

    // On the scheduler's clock. A deadline that has passed cancels the scope at the next wait inside it.
    void set_deadline(std::int64_t deadline_ns) noexcept;
    std::int64_t deadline_ns() const noexcept { return deadline_ns_; }

    void set_shielded(bool is_shielded) noexcept;
    bool is_shielded() const noexcept { return is_shielded_; }

    Scope* parent() const noexcept { return parent_; }
    // The fiber that entered it, or whose outermost scope it is; null before and afterwards.
    Fiber* fiber() const noexcept { return fiber_; }

private:
    friend class Scheduler;
    friend class TimerQueue;
    void join_tree(Scheduler& scheduler, Scope* parent, Fiber* fiber) noexcept;
    void leave_tree() noexcept;
    void abandon() noexcept;
    void end_waits_below() noexcept;

    ListLink link_;  // among the children of its parent
    IntrusiveList<Scope, &Scope::link_> children_;
    Scope* parent_ = nullptr;
    Fiber* fiber_ = nullptr;
    Scheduler* scheduler_ = nullptr;  // null: not entered
    void* reason_ = nullptr;
    std::int64_t deadline_ns_ = kNever;
    std::uint32_t timer_index_ = UINT32_MAX;  // place in the timer heap
    bool is_cancelled_ = false;
    bool is_shielded_ = false;
    bool is_outermost_ = false;  // entered for a task, and left by itself when the task ends
};

}  // namespace culm::runtime
