// Choosing the next fiber and switching to it; making, starting and finishing fibers.
//
// The path of a switch: await() -> suspend() -> next_runnable() -> swap(). Whoever continues after a swap first gives
// back the stack of a fiber that has just finished: it could not do so itself while standing on it.
// Invariant: between next_runnable() and the swap nothing allocates or runs foreign code but Switching::exchange.
#include "culm/runtime/scheduler.hpp"

#include <cxxabi.h>

#include <atomic>
#include <cassert>
#include <cerrno>
#include <cstdlib>
#include <utility>

#include "culm/runtime/scope.hpp"
#include "embedder.hpp"
#include "fiber_moves.hpp"
#include "parking_lot.hpp"
#include "scheduler_inside.hpp"
#include "scheduler_parts.hpp"
#include "yellow_zone_keeper.hpp"

namespace culm::runtime {

namespace {

// The two words behind __cxa_get_globals(), as the Itanium C++ ABI lays them out.
struct ExceptionGlobals {
    void* caught;
    unsigned uncaught;
};

std::atomic<std::uint64_t> ids_given{0};

constexpr Error kNoFiberMemory{ENOMEM, "make a fiber", "let fibers finish, or raise the memory limit of the process"};

}  // namespace

std::uint64_t new_fiber_id() noexcept { return ids_given.fetch_add(1, std::memory_order_relaxed) + 1; }

// --- fibers ---

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

Result<Fiber*> Scheduler::new_fiber(const Task& task) noexcept {
    const Result<StrategyIndex> index =
        strategy_index(task.strategy == nullptr ? default_stack_strategy() : *task.strategy);
    if (!index) return index.error();
    const StrategyIndex strategy = index.value();
    Parts& parts = *parts_;
    if (!parts.timers.reserve(parts.fibers + parts.unstarted + parts.scopes + 2)) return kNoFiberMemory;
    if (auto promised = parts.promise_stack(task.stack_class, strategy); !promised) return promised.error();
    Fiber* fiber = parts.slab->allocate();
    if (!fiber) {
        parts.unpromise_stack(task.stack_class, strategy);
        return kNoFiberMemory;
    }
    fiber->scheduler_ = this;
    fiber->own_.fiber = fiber;
    fiber->own_.value = task.argument;
    fiber->own_.target.key = reinterpret_cast<const void*>(task.body);
    fiber->stack_class_ = task.stack_class;
    fiber->stack_strategy_ = strategy;
    fiber->has_reservation_ = true;
    fiber->has_remote_joiners_ = task.may_be_joined;
    fiber->host = task.host;
    fiber->host_stack_bytes = task.host_stack_bytes;
    fiber->id_ = task.id != 0 ? task.id : new_fiber_id();
    if (task.name) fiber->set_name(task.name);
    if (task.scope) [[unlikely]] {
        fiber->scope_ = task.scope;
        task.scope->fiber_ = fiber;
    }
    ++parts.unstarted;
    return fiber;
}

Result<Fiber*> Scheduler::start(const Task& task) noexcept {
    auto made = new_fiber(task);
    if (made) start(*made.value());
    return made;
}

Fiber* Scheduler::Inside::new_main_fiber() noexcept {
    Parts& parts = *parts_;
    if (!parts.timers.reserve(2)) return nullptr;
    Fiber* fiber = parts.slab->allocate();
    if (!fiber) return nullptr;
    fiber->scheduler_ = this;
    fiber->own_.fiber = fiber;
    fiber->is_main_ = true;
    fiber->id_ = new_fiber_id();
    adopt_thread_context(fiber->context_);
    fiber->move_to(FiberState::kRunning);
    return fiber;
}

void Scheduler::start(Fiber& fiber) noexcept {
    assert(fiber.state_ == FiberState::kNew);
    inside().admit(fiber);
    fiber.move_to(FiberState::kReady);
    parts_->run_queue.push_back(fiber);
}

// A new fiber becomes one of ours: counted, listed, and held until it has finished.
void Scheduler::Inside::admit(Fiber& fiber) noexcept {
    assert(fiber.scheduler_ == this);
    fiber.retain();
    Parts& parts = *parts_;
    --parts.unstarted;
    ++parts.fibers;
    ++parts.spawned;
    parts.shrinker.admit(fiber);
}

// The opposite of admit(), but for the reference.
void Scheduler::Inside::dismiss(Fiber& fiber) noexcept {
    Parts& parts = *parts_;
    parts.shrinker.dismiss(fiber);
    --parts.fibers;
    ++parts.finished;
}

void Scheduler::discard(Fiber& fiber) noexcept {
    assert(fiber.state_ == FiberState::kNew);
    assert(fiber.scheduler_ == this);
    assert(current_ == this);
    fiber.move_to(FiberState::kFinished);
    fiber.has_reservation_ = false;
    parts_->unpromise_stack(fiber.stack_class_, fiber.stack_strategy_);
    --parts_->unstarted;
    if (fiber.scope_) std::exchange(fiber.scope_, nullptr)->fiber_ = nullptr;  // its maker leaves it
    inside().tell_joiners(fiber);
}

void Scheduler::abandon(Fiber& fiber) noexcept { inside().give_up(fiber, false); }

// The fiber will never run again. `with_stack`: its stack goes back to the pool, as nothing can refer to it any more.
void Scheduler::Inside::give_up(Fiber& fiber, bool with_stack) noexcept {
    assert(fiber.scheduler_ == this);
    assert(&fiber != running_);
    assert(!fiber.is_main_);
    Parts& parts = *parts_;
    const bool was_notified = fiber.state_ == FiberState::kReady && fiber.wake_ == Wake::kNotified;
    if (fiber.state_ == FiberState::kReady) parts.run_queue.remove(fiber);
    if (TimerQueue::holds(fiber)) parts.timers.remove(fiber);
    if (!abort_records(fiber)) ParkingLot::get().pass_on(fiber.own_);
    // What it was notified of and has not seen goes to the next in line.
    if (was_notified && fiber.is_shared_wait_) ParkingLot::get().pass_on(fiber.own_);
    fiber.ticket_.store(0, std::memory_order_relaxed);
    while (Scope* scope = fiber.scope_) scope->abandon();
    fiber.move_to(FiberState::kFinished);
    if (fiber.has_reservation_) {
        fiber.has_reservation_ = false;
        parts.unpromise_stack(fiber.stack_class_, fiber.stack_strategy_);
    } else if (with_stack) {
        give_back_stack(fiber);
    } else {
        ++parts.stacks_abandoned;
    }
    dismiss(fiber);
    tell_joiners(fiber);
    fiber.release();
}

// Those of this thread wait in the fiber's own ring, others in the parking lot.
void Scheduler::Inside::tell_joiners(Fiber& fiber) noexcept {
    while (Wait* wait = fiber.joiners_.front()) {
        fiber.joiners_.remove(*wait);
        complete(*wait);
    }
    if (fiber.has_remote_joiners_) [[unlikely]]
        forget_task(fiber.id_);
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

// --- switching ---

// The fiber to run after `self`, which is ready, parked or finished. With none runnable, waits on self's stack.
inline Fiber& Scheduler::Inside::next_runnable(Fiber& self) noexcept {
    for (;;) {
        if (--switches_left_ == 0) [[unlikely]]
            catch_up();
        if (Fiber* next = parts_->run_queue.pop()) {
            parts_->run_queue.prefetch();
            return *next;
        }
        idle(self);
    }
}

// Switches: control leaves `from` here and comes back when something switches to it.
[[gnu::always_inline]] inline void Scheduler::Inside::swap(Fiber& from, Fiber& to, bool from_ends) noexcept {
    const bool near_limit = YellowZoneKeeper::must_see_leaving(from, __builtin_frame_address(0));
    if (near_limit) [[unlikely]]
        YellowZoneKeeper::leaves(from);
    if (to.has_reservation_) [[unlikely]]
        give_stack(to);
    if (detail::embedder.switching.exchange) detail::embedder.switching.exchange(from, to);

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
bool Scheduler::Inside::suspend(Fiber& self) noexcept {
    Fiber& next = next_runnable(self);
    next.move_to(FiberState::kRunning);
    if (&next == &self) return false;
    swap(self, next, false);
    return true;
}

void Scheduler::Inside::give_stack(Fiber& fiber) noexcept {
    const Stack stack = fiber.stack_strategy_ == kArenaIndex
                            ? parts_->stacks->take(fiber.stack_class_)
                            : parts_->strategy_stacks.take(fiber.stack_strategy_, fiber.stack_class_);
    fiber.stack_base_ = stack.base;
    YellowZoneKeeper::takes(fiber);
    prepare_context(fiber.context_, fiber.context_base(), stack.limit(), &run_body, &fiber);
    if (detail::embedder.lives.given_stack) detail::embedder.lives.given_stack(fiber);
    fiber.has_reservation_ = false;  // from here on it has run: its own record is free for waits
}

// The first code on a new stack. Its language part begins in the body, so `arrived` is not called.
void Scheduler::Inside::run_body(void* pointer) noexcept {
    Fiber& self = *static_cast<Fiber*>(pointer);
    Inside& scheduler = self.scheduler_->inside();
    if (scheduler.finished_) scheduler.bury_finished();
    const auto body = reinterpret_cast<Fiber::Body>(const_cast<void*>(self.own_.target.key));
    void* const argument = std::exchange(self.own_.value, nullptr);
    body(self, argument);
    scheduler.finish(self);
}

void Scheduler::Inside::finish(Fiber& self) noexcept {
    assert(&self == running_);
    if (self.scope_) [[unlikely]]
        leave_outermost_scope(self);
    self.move_to(FiberState::kFinished);
    dismiss(self);
    tell_joiners(self);
    Fiber& next = next_runnable(self);
    next.move_to(FiberState::kRunning);
    finished_ = &self;
    swap(self, next, true);
    std::abort();  // nothing switches to a finished fiber: move_to forbids it
}

// On the stack of the next fiber: the finished one's can be used again from here on.
void Scheduler::Inside::bury_finished() noexcept {
    Fiber& fiber = *finished_;
    finished_ = nullptr;
    give_back_stack(fiber);
    fiber.release();
}

void Scheduler::Inside::give_back_stack(Fiber& fiber) noexcept {
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
}

void Scheduler::yield_now() noexcept {
    assert(!at_work_);
    if (parts_->run_queue.empty()) {
        if (--switches_left_ == 0) inside().catch_up();
        if (parts_->run_queue.empty()) return;
    }
    Fiber& self = *running_;
    self.move_to(FiberState::kReady);
    parts_->run_queue.push_back(self);
    Inside::arrive(self, inside().suspend(self));
}

Woken Scheduler::switch_to(Fiber& target, void* value) noexcept {
    Fiber& self = *running_;
    if (inside().must_end_waits(self)) [[unlikely]] {
        Inside::note_cancelled(self);
        return {Wake::kCancelled, nullptr};
    }
    inside().take_straight(target, value);
    if (self.has_permit_) [[unlikely]] {
        // unpark() came first: switch all the same, but come back in turn.
        self.own_.value = inside().take_permit(self);
        self.wake_ = Wake::kNotified;
        self.move_to(FiberState::kReady);
        parts_->run_queue.push_back(self);
    } else {
        self.wait_kind_ = WaitKind::kPermit;
        self.move_to(FiberState::kParked);
    }
    return inside().cross(self, target);
}

void Scheduler::run_now(Fiber& target) noexcept {
    Fiber& self = *running_;
    inside().take_straight(target, nullptr);
    self.move_to(FiberState::kReady);
    parts_->run_queue.push_front(self);
    inside().cross(self, target);
}

// Makes a new fiber, or one that waits for a permit, the running one.
inline void Scheduler::Inside::take_straight(Fiber& target, void* value) noexcept {
    assert(!at_work_);
    assert(target.scheduler_ == this);
    if (target.state_ == FiberState::kParked) [[likely]] {
        assert(target.wait_kind_ == WaitKind::kPermit);
        if (TimerQueue::holds(target)) parts_->timers.remove(target);
        target.wait_kind_ = WaitKind::kNone;
        target.wake_ = Wake::kNotified;
        target.own_.value = value;
    } else {
        assert(target.state_ == FiberState::kNew);
        admit(target);
    }
    target.move_to(FiberState::kRunning);
}

inline Woken Scheduler::Inside::cross(Fiber& self, Fiber& target) noexcept {
    swap(self, target, false);
    // Read before `arrived`, which may wait in turn.
    const Woken result{self.wake_, std::exchange(self.own_.value, nullptr)};
    if (--switches_left_ == 0) [[unlikely]]
        catch_up();
    arrive(self, true);
    return result;
}

bool Scheduler::post(RemoteCall call, void* argument) noexcept { return parts_->inbox.post(call, argument); }

}  // namespace culm::runtime
