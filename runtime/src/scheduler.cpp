// Choosing the next fiber and switching to it; making, starting, waking and finishing fibers.
//
// The path of a switch: block() -> suspend() -> next_runnable() -> swap(). Whoever continues after a swap first gives
// back the stack of a fiber that has just finished: it could not do so itself while standing on it.
// Invariant: between next_runnable() and the swap nothing allocates or runs foreign code but the switch hook.
#include "culm/runtime/scheduler.hpp"

#include <cxxabi.h>

#include <atomic>
#include <cassert>
#include <cerrno>
#include <cstdlib>

#include "fiber_moves.hpp"
#include "scheduler_parts.hpp"
#include "switch_hook.hpp"
#include "yellow_zone_keeper.hpp"

namespace culm::runtime {

namespace {

// The two words behind __cxa_get_globals(), as the Itanium C++ ABI lays them out.
struct ExceptionGlobals {
    void* caught;
    unsigned uncaught;
};

std::atomic<std::uint64_t> fibers_made{0};

constexpr Error kNoFiberMemory{ENOMEM, "make a fiber", "let fibers finish, or raise the memory limit of the process"};

}  // namespace

// --- fibers ---------------------------------------------------------------------------------------------------------

Result<void> Scheduler::Parts::promise_stack(StackClass size_class, StrategyIndex strategy) noexcept {
    if (strategy == kArenaIndex) [[likely]]
        return stacks->reserve(size_class);
    return strategy_stacks.reserve(strategy, size_class);
}

void Scheduler::Parts::unpromise_stack(StackClass size_class, StrategyIndex strategy) noexcept {
    if (strategy == kArenaIndex) [[likely]]
        return stacks->unreserve(size_class);
    strategy_stacks.unreserve(strategy, size_class);
}

Result<Fiber*> Scheduler::new_fiber(Fiber::Body body, void* argument, StackClass size_class,
                                    const StackStrategy* wanted) noexcept {
    const StrategyIndex strategy = strategy_index(wanted == nullptr ? default_stack_strategy() : *wanted);
    Parts& parts = *parts_;
    if (!parts.timers.reserve(parts.fibers + parts.unstarted + 2)) return kNoFiberMemory;
    if (!parts.fd_waits.promise()) return kNoFiberMemory;
    if (auto reserved = parts.promise_stack(size_class, strategy); !reserved) {
        parts.fd_waits.return_promise();
        return reserved.error();
    }
    Fiber* fiber = parts.slab->allocate();
    if (!fiber) {
        parts.unpromise_stack(size_class, strategy);
        parts.fd_waits.return_promise();
        return kNoFiberMemory;
    }
    fiber->scheduler_ = this;
    fiber->body_ = body;
    fiber->argument = argument;
    fiber->stack_class_ = size_class;
    fiber->stack_strategy_ = strategy;
    fiber->has_reservation_ = true;
    fiber->id_ = fibers_made.fetch_add(1, std::memory_order_relaxed) + 1;
    fiber->identity_ = reinterpret_cast<unsigned long>(fiber);
    ++parts.unstarted;
    return fiber;
}

Fiber* Scheduler::new_main_fiber() noexcept {
    Parts& parts = *parts_;
    if (!parts.timers.reserve(2)) return nullptr;
    if (!parts.fd_waits.promise()) return nullptr;
    Fiber* fiber = parts.slab->allocate();
    if (!fiber) return nullptr;
    fiber->scheduler_ = this;
    fiber->is_main_ = true;
    fiber->id_ = fibers_made.fetch_add(1, std::memory_order_relaxed) + 1;
    fiber->identity_ = parts.thread_identity;
    adopt_thread_context(fiber->context_);
    fiber->move_to(FiberState::kRunning);
    return fiber;
}

void Scheduler::start(Fiber& fiber) noexcept {
    assert(fiber.state_ == FiberState::kNew);
    admit(fiber);
    fiber.move_to(FiberState::kReady);
    parts_->run_queue.push_back(fiber);
}

// A new fiber becomes one of ours: counted, listed, and held until it has finished.
void Scheduler::admit(Fiber& fiber) noexcept {
    assert(fiber.scheduler_ == this);
    fiber.retain();
    Parts& parts = *parts_;
    --parts.unstarted;
    ++parts.fibers;
    ++parts.spawned;
    parts.shrinker.admit(fiber);
}

// The opposite of admit(), but for the reference.
void Scheduler::dismiss(Fiber& fiber) noexcept {
    Parts& parts = *parts_;
    parts.shrinker.dismiss(fiber);
    --parts.fibers;
    ++parts.finished;
    parts.fd_waits.return_promise();
}

void Scheduler::discard(Fiber& fiber) noexcept {
    assert(fiber.state_ == FiberState::kNew);
    assert(fiber.scheduler_ == this);
    fiber.move_to(FiberState::kFinished);
    fiber.has_reservation_ = false;
    return_promise_now(fiber.stack_class_, fiber.stack_strategy_);
    fiber.joiners_.notify_all();
}

// An unstarted fiber was released by its last holder, perhaps on another thread: only the owner may touch the pool.
void Scheduler::return_promise(Fiber& fiber) noexcept {
    if (current_ == this) return return_promise_now(fiber.stack_class_, fiber.stack_strategy_);
    const auto what = static_cast<std::uintptr_t>(fiber.stack_class_) | std::uintptr_t{fiber.stack_strategy_} << 8;
    // Refused: the scheduler was given up in a forked child or by its thread's end, and its promises with it.
    post(
        [](Scheduler& scheduler, void* value) {
            const auto promised = reinterpret_cast<std::uintptr_t>(value);
            scheduler.return_promise_now(static_cast<StackClass>(promised & 0xff),
                                         static_cast<StrategyIndex>(promised >> 8));
        },
        reinterpret_cast<void*>(what));
}

void Scheduler::return_promise_now(StackClass size_class, StrategyIndex strategy) noexcept {
    Parts& parts = *parts_;
    parts.unpromise_stack(size_class, strategy);
    parts.fd_waits.return_promise();
    --parts.unstarted;
}

void Scheduler::abandon(Fiber& fiber) noexcept {
    assert(fiber.scheduler_ == this);
    assert(&fiber != running_);
    assert(!fiber.is_main_);
    Parts& parts = *parts_;
    drop_fd_waits(&fiber, nullptr);
    if (fiber.state_ == FiberState::kReady) parts.run_queue.remove(fiber);
    if (fiber.state_ == FiberState::kParked) leave_queues(fiber);
    fiber.move_to(FiberState::kFinished);
    if (fiber.has_reservation_) {
        fiber.has_reservation_ = false;
        parts.unpromise_stack(fiber.stack_class_, fiber.stack_strategy_);
    } else {
        ++parts.stacks_abandoned;
    }
    dismiss(fiber);
    fiber.joiners_.notify_all();
    fiber.release();
}

void Scheduler::for_each_fiber(void (*visit)(Fiber& fiber, void* context), void* context) noexcept {
    parts_->shrinker.for_each([&](Fiber& fiber) {
        visit(fiber, context);
        return true;
    });
}

Fiber* Scheduler::fiber_of_stack(const Stack& stack) noexcept {
    const Scheduler* scheduler = current_;
    if (!scheduler || !stack.base) return nullptr;
    if (scheduler->running_->stack_base_ == stack.base) return scheduler->running_;
    // In the middle of a switch the stack still belongs to a fiber that is no longer called running.
    if (scheduler->finished_ && scheduler->finished_->stack_base_ == stack.base) return scheduler->finished_;
    std::size_t left = scheduler->parts_->fibers;
    Fiber* found = nullptr;
    scheduler->parts_->shrinker.for_each([&](Fiber& fiber) {
        if (fiber.stack_base_ == stack.base) found = &fiber;
        return !found && left-- > 1;
    });
    return found;
}

// --- switching ------------------------------------------------------------------------------------------------------

// The fiber to run after `self`, which is ready, parked or finished. With none runnable, waits on self's stack.
inline Fiber& Scheduler::next_runnable(Fiber& self) noexcept {
    for (;;) {
        if (--looks_left_ == 0) [[unlikely]]
            look();
        if (Fiber* next = parts_->run_queue.pop()) {
            parts_->run_queue.prefetch();
            return *next;
        }
        idle(self);
    }
}

// Switches: control leaves `from` here and comes back when something switches to it.
[[gnu::always_inline]] inline void Scheduler::swap(Fiber& from, Fiber& to, bool from_ends) noexcept {
    const bool near_limit = YellowZoneKeeper::must_see_leaving(from, __builtin_frame_address(0));
    if (near_limit) [[unlikely]]
        YellowZoneKeeper::leaves(from);
    if (to.has_reservation_) [[unlikely]]
        give_stack(to);
    if (detail::installed_hook.on_switch) detail::installed_hook.on_switch(from, to);

    auto& exceptions = *static_cast<ExceptionGlobals*>(exceptions_);
    from.caught_exceptions_ = exceptions.caught;
    from.uncaught_exceptions_ = exceptions.uncaught;
    from.errno_ = *errno_;
    exceptions.caught = to.caught_exceptions_;
    exceptions.uncaught = to.uncaught_exceptions_;
    *errno_ = to.errno_;

    if (from.left_epoch_ == 0) [[unlikely]]
        parts_->shrinker.rejoin(from);
    from.left_epoch_ = epoch_;
    running_ = &to;
    ++switches_;
    switch_context(from.context_, to.context_, from_ends);
    if (finished_) [[unlikely]]
        bury_finished();
    if (near_limit) [[unlikely]]
        YellowZoneKeeper::returns(from);
}

// False: `self` was the next runnable itself and nothing was switched.
bool Scheduler::suspend(Fiber& self) noexcept {
    Fiber& next = next_runnable(self);
    next.move_to(FiberState::kRunning);
    if (&next == &self) return false;
    swap(self, next, false);
    return true;
}

void Scheduler::give_stack(Fiber& fiber) noexcept {
    const Stack stack = fiber.stack_strategy_ == kArenaIndex
                            ? parts_->stacks->take(fiber.stack_class_)
                            : parts_->strategy_stacks.take(fiber.stack_strategy_, fiber.stack_class_);
    fiber.has_reservation_ = false;
    fiber.stack_base_ = stack.base;
    YellowZoneKeeper::takes(fiber);
    prepare_context(fiber.context_, fiber.context_base(), stack.limit(), &Scheduler::run_body, &fiber);
    if (detail::installed_hook.on_stack) detail::installed_hook.on_stack(fiber);
}

// The first code on a new stack. Its language part begins in the body, so after_switch is not called.
void Scheduler::run_body(void* argument) noexcept {
    Fiber& self = *static_cast<Fiber*>(argument);
    Scheduler& scheduler = *self.scheduler_;
    if (scheduler.finished_) scheduler.bury_finished();
    self.body_(self, self.argument);
    scheduler.finish(self);
}

void Scheduler::finish(Fiber& self) noexcept {
    assert(&self == running_);
    self.move_to(FiberState::kFinished);
    dismiss(self);
    self.joiners_.notify_all();
    Fiber& next = next_runnable(self);
    next.move_to(FiberState::kRunning);
    finished_ = &self;
    swap(self, next, true);
    std::abort();  // nothing switches to a finished fiber: move_to forbids it
}

// On the stack of the next fiber: the finished one's can be used again from here on.
void Scheduler::bury_finished() noexcept {
    Fiber& fiber = *finished_;
    finished_ = nullptr;
    retire_context(fiber.context_);
    const Stack stack = fiber.stack();
    YellowZoneKeeper::gives_back(fiber);
    fiber.stack_base_ = nullptr;
    if (fiber.stack_strategy_ != kArenaIndex) [[unlikely]] {
        parts_->strategy_stacks.put(fiber.stack_strategy_, stack);
    } else if (parts_->shrinker.exact_peaks()) [[unlikely]] {
        parts_->stacks->put_cold(stack);
    } else {
        parts_->stacks->put(stack, nullptr);
    }
    fiber.release();
}

// --- waiting --------------------------------------------------------------------------------------------------------

Wake Scheduler::block(WaitKind kind, std::uintptr_t object, std::int64_t deadline_ns) noexcept {
    assert(!at_work_);
    Fiber& self = *running_;
    if (self.cancel_requested_) [[unlikely]] {
        self.cancel_requested_ = false;
        if (self.wait_queue_) self.wait_queue_->unlink(self);
        return Wake::kCancelled;
    }
    self.wait_kind_ = kind;
    self.wait_object_ = object;
    if (deadline_ns != kNever) {
        self.deadline_ns_ = deadline_ns;
        parts_->timers.add(self, deadline_ns);
    }
    self.move_to(FiberState::kParked);
    const bool switched = suspend(self);
    const Wake reason = self.wake_;  // read before after_switch, which may wait in turn
    if (switched && detail::installed_hook.after_switch) detail::installed_hook.after_switch(self);
    return reason;
}

void Scheduler::yield_now() noexcept {
    assert(!at_work_);
    if (parts_->run_queue.empty()) {
        if (--looks_left_ == 0) look();
        if (parts_->run_queue.empty()) return;
    }
    Fiber& self = *running_;
    self.move_to(FiberState::kReady);
    parts_->run_queue.push_back(self);
    const bool switched = suspend(self);
    if (switched && detail::installed_hook.after_switch) detail::installed_hook.after_switch(self);
}

Wake Scheduler::switch_to(Fiber& target) noexcept {
    Fiber& self = *running_;
    if (self.cancel_requested_) [[unlikely]] {
        self.cancel_requested_ = false;
        return Wake::kCancelled;
    }
    take_straight(target);
    if (self.has_permit_) [[unlikely]] {
        // unpark() came first: switch all the same, but come back in turn.
        self.has_permit_ = false;
        self.wake_ = Wake::kNotified;
        self.move_to(FiberState::kReady);
        parts_->run_queue.push_back(self);
    } else {
        self.wait_kind_ = WaitKind::kPermit;
        self.move_to(FiberState::kParked);
    }
    return cross(self, target);
}

void Scheduler::run_now(Fiber& target) noexcept {
    Fiber& self = *running_;
    take_straight(target);
    self.move_to(FiberState::kReady);
    parts_->run_queue.push_front(self);
    cross(self, target);
}

// Makes a new fiber, or one that waits for a permit, the running one.
inline void Scheduler::take_straight(Fiber& target) noexcept {
    assert(!at_work_);
    assert(target.scheduler_ == this);
    if (target.state_ == FiberState::kParked) [[likely]] {
        assert(target.wait_kind_ == WaitKind::kPermit);
        if (TimerQueue::holds(target)) leave_queues(target);
        target.wait_kind_ = WaitKind::kNone;
        target.wake_ = Wake::kNotified;
    } else {
        assert(target.state_ == FiberState::kNew);
        admit(target);
    }
    target.move_to(FiberState::kRunning);
}

inline Wake Scheduler::cross(Fiber& self, Fiber& target) noexcept {
    swap(self, target, false);
    const Wake reason = self.wake_;
    if (--looks_left_ == 0) [[unlikely]]
        look();
    if (detail::installed_hook.after_switch) detail::installed_hook.after_switch(self);
    return reason;
}

// --- waking ---------------------------------------------------------------------------------------------------------

void Scheduler::leave_queues(Fiber& fiber) noexcept {
    if (fiber.wait_queue_) fiber.wait_queue_->unlink(fiber);
    if (!TimerQueue::holds(fiber)) return;
    parts_->timers.remove(fiber);
    fiber.deadline_ns_ = kNever;
}

void Scheduler::make_ready(Fiber& fiber, Wake reason) noexcept {
    leave_queues(fiber);
    fiber.wake_ = reason;
    fiber.wait_kind_ = WaitKind::kNone;
    fiber.wait_object_ = 0;
    fiber.deadline_ns_ = kNever;
    fiber.move_to(FiberState::kReady);
    parts_->run_queue.push_back(fiber);
}

void Scheduler::wake(Fiber& fiber, Wake reason) noexcept {
    if (fiber.state_ != FiberState::kParked) return;
    assert(fiber.scheduler_ == this);
    const bool needs_permit = reason == Wake::kNotified || reason == Wake::kClosed;
    if (fiber.wait_kind_ == WaitKind::kPermit && needs_permit) return;
    make_ready(fiber, reason);
}

void Scheduler::unpark(Fiber& fiber) noexcept {
    assert(fiber.scheduler_ == this);
    if (fiber.state_ == FiberState::kFinished) return;
    if (fiber.state_ == FiberState::kParked && fiber.wait_kind_ == WaitKind::kPermit) {
        return make_ready(fiber, Wake::kNotified);
    }
    fiber.has_permit_ = true;
}

void Scheduler::cancel(Fiber& fiber) noexcept {
    assert(fiber.scheduler_ == this);
    switch (fiber.state_) {
        case FiberState::kNew:
            return discard(fiber);
        case FiberState::kParked:
            return make_ready(fiber, Wake::kCancelled);
        case FiberState::kReady:
        case FiberState::kRunning:
            fiber.cancel_requested_ = true;
            return;
        case FiberState::kFinished:
            return;
    }
}

void Scheduler::interrupt_main() noexcept {
    if (main_->state_ != FiberState::kParked) return;
    make_ready(*main_, Wake::kInterrupted);
    parts_->run_queue.remove(*main_);
    parts_->run_queue.push_front(*main_);
}

bool Scheduler::post(RemoteCall call, void* argument) noexcept { return parts_->inbox.post(call, argument); }

}  // namespace culm::runtime
