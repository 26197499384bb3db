// Runs the fibers of one OS thread. There is no hub fiber: a fiber that blocks picks the next runnable one and switches
// straight to it; with none runnable it polls the reactor on its own stack.
//
// The run queue is first in first out. After kSwitchesPerCatchUp switches the scheduler catches up with timers, the
// reactor and the requests of other threads even if fibers are runnable, so that a ready socket waits for a bounded
// time. It does so on the stack of the fiber that parks, in this order: requests, closed descriptors, timers, the
// reactor; after a sleep in the reactor, that first. All members are for the owning OS thread unless marked
// thread-safe. Invariant: running() is the fiber whose stack the OS thread is on. It is the only one that is kRunning;
// while the scheduler is at work on its stack it may be kParked already, and be made ready and chosen again without any
// switch.
#pragma once

#include <csignal>
#include <cstdint>
#include <memory>
#include <span>

#include "culm/result.hpp"
#include "culm/runtime/clock.hpp"
#include "culm/runtime/fiber.hpp"
#include "culm/runtime/reactor.hpp"
#include "culm/runtime/scheduler_options.hpp"
#include "culm/runtime/task.hpp"
#include "culm/runtime/wait.hpp"
#include "culm/stack.hpp"

namespace culm {
class StackPool;
}

namespace culm::runtime {

class Scheduler {
public:
    static constexpr unsigned kSwitchesPerCatchUp = 256;

    // The calling thread's scheduler, or null. One thread-local load.
    static Scheduler* current() noexcept { return current_; }
    // The same, made with default options if there is none.
    static Result<Scheduler*> ensure() noexcept;
    // Makes the calling thread's scheduler; EEXIST if it has one.
    static Result<Scheduler*> create(SchedulerOptions options) noexcept;
    // Takes the calling thread's scheduler away; nothing to do if there is none. EBUSY (and nothing changes) unless the
    // main fiber calls and no other fiber is unfinished, except those given up by abandon(). The object itself lives on
    // until the last of its control blocks has been released, so that a fiber's scheduler can always be asked.
    static Result<void> close_current() noexcept;

    // --- fibers ---
    // A new fiber in state kNew, owned by the caller (release() it), to be started, switched to or discarded at once.
    // ENOMEM when no stack can be promised, EINVAL for a stack strategy that fibers cannot have.
    Result<Fiber*> new_fiber(const Task& task) noexcept;
    Result<Fiber*> new_fiber(Task::Body body, void* argument, StackClass size_class = kDefaultStackClass,
                             const StackStrategy* strategy = nullptr) noexcept {
        return new_fiber(Task{.body = body, .argument = argument, .stack_class = size_class, .strategy = strategy});
    }
    // kNew -> kReady, at the end of the run queue. The runtime holds a reference until the fiber has finished.
    void start(Fiber& fiber) noexcept;
    // Both in one.
    Result<Fiber*> start(const Task& task) noexcept;
    // A kNew fiber will not be run: gives its promises back and finishes it.
    void discard(Fiber& fiber) noexcept;

    // A ready or parked fiber will never run again. Nothing is unwound; its stack is not used again either, because
    // what its frames linked elsewhere still points there. Whoever joined it is woken.
    void abandon(Fiber& fiber) noexcept;

    Fiber& running() noexcept { return *running_; }
    // The OS thread's own flow of control; after a fork in another fiber, the fiber that survived.
    Fiber& main_fiber() noexcept { return *main_; }

    // Calls visit for each started, unfinished fiber but the main one; visit must not switch, start or finish any.
    void for_each_fiber(void (*visit)(Fiber& fiber, void* context), void* context) noexcept;

    // --- waiting. All of these switch; the running fiber is the caller ---
    // Takes the permit if unpark() left one, else parks until unpark(), switch_to() or the deadline.
    Woken park(std::int64_t deadline_ns = kNever) noexcept;
    Wake sleep_until(std::int64_t deadline_ns) noexcept;  // kTimeout is the normal end
    void yield_now() noexcept;                            // to the end of the run queue; returns at once if alone
    // Until the fiber has finished, whatever thread it belongs to. A fiber that joins itself ends the process with a
    // sentence.
    Wake join(Fiber& fiber, std::int64_t deadline_ns = kNever) noexcept;
    // The same for a task that has an id and was not started when this was called; it must have may_be_joined set when
    // it starts, or be given up with forget_task().
    Wake join_task(std::uint64_t id, std::int64_t deadline_ns = kNever) noexcept;
    // kNotified with request.ready set; at once (ready = wanted) for descriptors that are always ready.
    // A descriptor that cannot be watched (not open, no memory) gives kNotified with ready = kFdInvalid or kFdFailed.
    Wake wait_fd(FdRequest& request, std::int64_t deadline_ns = kNever) noexcept;
    Wake wait_fds(std::span<FdRequest> requests, std::int64_t deadline_ns = kNever) noexcept;
    // Straight to `target`, past the run queue, with a value for it; the caller stays suspended as by park(). The
    // target must be kNew (then it is sent nothing) or parked with WaitKind::kPermit, of this scheduler and not the
    // caller: asserted.
    Woken switch_to(Fiber& target, void* value = nullptr) noexcept;
    // The same, but the caller goes to the front of the run queue: it continues when the target parks or finishes.
    void run_now(Fiber& target) noexcept;

    // --- the steps of a wait (wait.hpp), for whoever makes something new to wait for ---
    // Opens a ticket for the running fiber and hands out its record, to be linked by the caller. `is_shared`: it may be
    // completed on other OS threads.
    Wait& begin_wait(WaitKind kind, const void* key, bool is_shared = false) noexcept;
    // Parks until the wait is completed, the deadline passes, the fiber is cancelled or a signal interrupts it.
    // Switches.
    Wake await(std::int64_t deadline_ns) noexcept;
    // Instead of await(): the fiber will not wait after all. True if the wait had been completed already, or an
    // operation is pending, which keeps its record until it completes.
    bool give_up_wait() noexcept;
    // Ends the wait that this record belongs to, unless it is over or another of the fiber's records has won. The
    // record is linked nowhere any more. On the fiber's own thread. False: the fiber was not woken by this.
    bool complete(Wait& wait, void* value = nullptr, Wake reason = Wake::kNotified) noexcept;
    // The same from any OS thread, for a shared wait. Cannot fail for want of memory.
    static bool complete_shared(Wait& wait, void* value = nullptr) noexcept;

    // --- waking. None of these switches ---
    // Ends a kPermit wait, or leaves a permit for the next park(), with a value. Thread-safe; the caller holds a
    // reference to the fiber. A permit without a value on top of another is the same permit.
    static Sent unpark(Fiber& fiber, void* value = nullptr) noexcept;
    // The fiber's current or next wait ends with kCancelled, once. Once means: as soon as its own thread has ended a
    // wait by it, another cancel() ends the next one; several before that thread has noticed are one. A wait that has
    // been completed before, or whose operation is pending, ends as it would have, and the next one is cancelled.
    // A kNew fiber is discarded. Thread-safe likewise (a kNew fiber belongs to its maker). False: its thread has ended.
    static bool cancel(Fiber& fiber) noexcept;
    // Whoever waits in join_task() for a task that will not be started goes on. Thread-safe.
    static void forget_task(std::uint64_t id) noexcept;
    // Wakes the main fiber with kInterrupted, ahead of the run queue, if it is parked.
    void interrupt_main() noexcept;
    // The descriptor is about to be closed: its waiters on this thread return kClosed.
    void forget_fd(int fd) noexcept;

    // Runs call(scheduler, argument) on the owning thread soon (when it next catches up), between two fibers: it may
    // wake and start fibers, not switch. False: the scheduler is closed or memory ran out, the call will not run. Wakes
    // the thread if it is idle. Thread-safe. The caller holds a reference to one of the scheduler's fibers, or knows
    // that it is open.
    using RemoteCall = void (*)(Scheduler& scheduler, void* argument);
    bool post(RemoteCall call, void* argument) noexcept;

    // --- memory ---
    StackPool& stack_pool() noexcept;
    std::size_t trim() noexcept;        // what shrink.hpp says, at once; returns how many stacks gave something back
    bool exact_peaks() const noexcept;  // ShrinkSettings::exact_peaks, as followed by now

    Clock& clock() noexcept { return *clock_; }
    Reactor& reactor() noexcept { return *reactor_; }
    SchedulerStatistics statistics() const noexcept;
    std::int64_t deadline_of(const Fiber& fiber) const noexcept;  // until which it is parked; kNever without one
    unsigned long thread_identity() const noexcept;               // pthread_self() of the owning thread
    // True while the scheduler itself is at work (polling, choosing): an interposed call then behaves like libc.
    bool at_work() const noexcept { return at_work_; }
    // In a forked child: its thread did not survive, and its fibers are the parent's.
    bool lost_in_fork() const noexcept { return lost_in_fork_; }

    static Fiber* fiber_of_stack(const Stack& stack) noexcept;  // whose it is; async-signal-safe, current thread only

    Scheduler(const Scheduler&) = delete;
    Scheduler& operator=(const Scheduler&) = delete;

private:
    friend class Inbox;
    friend class Scope;
    friend class SchedulerRegistry;
    friend class ClosingNotices;
    friend struct ThreadExit;
    friend struct Forking;
    friend struct Undertaker;
    struct Parts;   // queues, pool, slab, inbox: everything a bare switch does not need
    struct Inside;  // the member functions that only the runtime's own files call; every scheduler is one

    Scheduler() noexcept;
    ~Scheduler();

    Inside& inside() noexcept;

    // initial-exec: one load, no call, also inside a shared library. Eight bytes of the static TLS reserve.
    [[gnu::tls_model("initial-exec")]] static inline constinit thread_local Scheduler* current_ = nullptr;

    Fiber* running_ = nullptr;
    Fiber* main_ = nullptr;       // the fiber that interrupt_main() wakes; the survivor after a fork in another one
    Fiber* finished_ = nullptr;   // its stack is given back by whoever continues after it
    int* errno_ = nullptr;        // of the owning thread
    void* exceptions_ = nullptr;  // __cxa_get_globals() of the owning thread
    std::uint64_t switches_ = 0;
    unsigned switches_left_ = kSwitchesPerCatchUp;
    std::uint8_t epoch_ = 1;  // the shrinker's idea of now
    bool at_work_ = false, lost_in_fork_ = false;
    bool clock_jumps_ = false;  // simulated: never waits for real time
    std::unique_ptr<Parts> parts_;
    std::unique_ptr<Clock> clock_;
    std::unique_ptr<Reactor> reactor_;
};

}  // namespace culm::runtime
