// Runs the fibers of one OS thread. There is no hub fiber: a fiber that blocks picks the next runnable one and switches
// straight to it; with none runnable it polls the reactor on its own stack.
//
// The run queue is first in first out. After kSwitchesPerLook switches the scheduler looks at timers, the reactor and
// calls from other threads even if fibers are runnable, so that a ready socket waits for a bounded time.
// All members are for the owning OS thread unless marked thread-safe.
// Invariant: exactly one fiber per scheduler is kRunning, and it is the one whose stack the OS thread is on.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "culm/result.hpp"
#include "culm/runtime/clock.hpp"
#include "culm/runtime/fiber.hpp"
#include "culm/runtime/reactor.hpp"
#include "culm/runtime/scheduler_options.hpp"
#include "culm/runtime/switch_hook.hpp"
#include "culm/stack.hpp"

namespace culm {
class StackPool;
}

namespace culm::runtime {

class Scheduler {
public:
    static constexpr unsigned kSwitchesPerLook = 256;

    // The calling thread's scheduler, or null. One thread-local load.
    static Scheduler* current() noexcept { return current_; }
    // The same, made with default options if there is none.
    static Result<Scheduler*> ensure() noexcept;
    // Makes the calling thread's scheduler; EEXIST if it has one.
    static Result<Scheduler*> create(SchedulerOptions options) noexcept;
    // Takes the calling thread's scheduler away; nothing to do if there is none. EBUSY (and nothing changes) unless the
    // main fiber calls and no other fiber is unfinished, except those given up by abandon(). The object itself lives on
    // until the last of its control blocks has been released, so that fiber.scheduler().post() stays defined.
    static Result<void> close_current() noexcept;
    static Result<void> close_at_thread_end() noexcept;  // the same, but fibers that are kNew stay so for good

    // --- fibers -----------------------------------------------------------------------------------------------------
    // A new fiber in state kNew, owned by the caller (release() it). ENOMEM when no stack can be promised.
    Result<Fiber*> new_fiber(Fiber::Body body, void* argument, StackClass size_class = kDefaultStackClass,
                             const StackStrategy* strategy = nullptr) noexcept;
    // kNew -> kReady, at the end of the run queue. The runtime holds a reference until the fiber has finished.
    void start(Fiber& fiber) noexcept;
    // A kNew fiber will not be run: gives its promise of a stack back and finishes it (joiners are woken).
    void discard(Fiber& fiber) noexcept;

    // A ready or parked fiber will never run again. Nothing is unwound; its stack is not used again either, because
    // what its frames linked elsewhere still points there. Joiners are woken.
    void abandon(Fiber& fiber) noexcept;

    Fiber& running() noexcept { return *running_; }
    // The OS thread's own flow of control; after a fork in another fiber, the fiber that survived.
    Fiber& main_fiber() noexcept { return *main_; }

    // Calls visit for each started, unfinished fiber but the main one; visit must not switch, start or finish any.
    void for_each_fiber(void (*visit)(Fiber& fiber, void* context), void* context) noexcept;

    // --- waiting. All of these switch; the running fiber is the caller -----------------------------------------------
    // Parks until wake(). The caller has linked itself wherever its waker will look. The basis of all others.
    Wake block(WaitKind kind, std::uintptr_t object, std::int64_t deadline_ns) noexcept;
    // Takes the permit if unpark() left one, else parks until unpark(), switch_to() or the deadline.
    Wake park(std::int64_t deadline_ns = kNever) noexcept;
    Wake sleep_until(std::int64_t deadline_ns) noexcept;  // kTimeout is the normal end
    void yield_now() noexcept;                            // to the end of the run queue; returns at once if alone
    Wake join(Fiber& fiber, std::int64_t deadline_ns = kNever) noexcept;
    // kNotified with request.ready set; at once (ready = wanted) for descriptors that are always ready.
    // A descriptor that cannot be watched (not open, no memory) gives kNotified with ready = EPOLLERR.
    Wake wait_fd(FdRequest& request, std::int64_t deadline_ns = kNever) noexcept;
    Wake wait_fds(std::span<FdRequest> requests, std::int64_t deadline_ns = kNever) noexcept;
    // Straight to `target`, past the run queue; the caller stays suspended as by park(). The target must be kNew or
    // parked with WaitKind::kPermit, of this scheduler and not the caller: asserted.
    Wake switch_to(Fiber& target) noexcept;
    // The same, but the caller goes to the front of the run queue: it continues when the target parks or finishes.
    void run_now(Fiber& target) noexcept;

    // --- waking. None of these switches -----------------------------------------------------------------------------
    // kParked -> kReady with that reason, out of every queue. No effect on a fiber that is not parked, nor (kNotified,
    // kClosed) on one that waits for a permit.
    void wake(Fiber& fiber, Wake reason) noexcept;
    // Ends a kPermit wait, or leaves a permit for the next park(). Same thread only.
    void unpark(Fiber& fiber) noexcept;
    // The fiber's current or next wait returns kCancelled, once. A kNew fiber is discarded.
    void cancel(Fiber& fiber) noexcept;
    // Wakes the main fiber with kInterrupted, ahead of the run queue, if it is parked.
    void interrupt_main() noexcept;
    // The descriptor is about to be closed: its waiters return kClosed.
    void forget_fd(int fd) noexcept;

    // --- from other OS threads: thread-safe -------------------------------------------------------------------------
    // Runs call(scheduler, argument) on the owning thread soon (at its next look), between two fibers: it may wake and
    // start fibers, not switch. False: the scheduler is closed or memory ran out, the call will not run. Wakes the
    // thread if it is idle. The caller holds a reference to one of the scheduler's fibers, or knows that it is open.
    using RemoteCall = void (*)(Scheduler& scheduler, void* argument);
    bool post(RemoteCall call, void* argument) noexcept;

    // --- fork and exit ----------------------------------------------------------------------------------------------
    // Called in the child by the thread that forked: rebuilds the reactor. Unless keep_fibers, every fiber but the
    // running one is abandoned. If that includes the main fiber, the process exits with status 0 when the last fiber
    // has finished, as a process does when its last thread ends.
    void after_fork_in_child(bool keep_fibers) noexcept;
    // Called in the child for schedulers whose threads are gone: all of them but current(), unless null.
    static void abandon_other_schedulers() noexcept;
    bool lost_in_fork() const noexcept { return lost_in_fork_; }  // such a one: its fibers are the parent's

    // --- memory -----------------------------------------------------------------------------------------------------
    StackPool& stack_pool() noexcept;
    std::size_t trim() noexcept;        // what shrink.hpp says, at once; returns how many stacks gave something back
    bool exact_peaks() const noexcept;  // ShrinkSettings::exact_peaks, as followed by now

    Clock& clock() noexcept { return *clock_; }
    Reactor& reactor() noexcept { return *reactor_; }
    SchedulerStatistics statistics() const noexcept;
    unsigned long thread_identity() const noexcept;  // pthread_self() of the owning thread
    // True while the scheduler itself is at work (polling, choosing): an interposed call then behaves like libc.
    bool at_work() const noexcept { return at_work_; }

    static Fiber* fiber_of_stack(const Stack& stack) noexcept;  // whose it is; async-signal-safe, current thread only

    Scheduler(const Scheduler&) = delete;
    Scheduler& operator=(const Scheduler&) = delete;
    ~Scheduler();

private:
    friend class Fiber;
    friend class Inbox;
    friend class WaitQueue;
    friend class SchedulerRegistry;
    friend struct ThreadExit;
    struct Parts;  // queues, pool, slab, inbox: everything a bare switch does not need

    Scheduler() noexcept;

    // scheduler.cpp: choosing, switching, making and finishing
    bool suspend(Fiber& self) noexcept;                          // Switches: to the next runnable fiber
    void swap(Fiber& from, Fiber& to, bool from_ends) noexcept;  // Switches: to that fiber
    Wake cross(Fiber& self, Fiber& target) noexcept;             // Switches: to that fiber
    void take_straight(Fiber& target) noexcept;
    Fiber& next_runnable(Fiber& self) noexcept;
    void give_stack(Fiber& fiber) noexcept;
    static void run_body(void* fiber) noexcept;
    [[noreturn]] void finish(Fiber& self) noexcept;
    void bury_finished() noexcept;
    void make_ready(Fiber& fiber, Wake reason) noexcept;
    void leave_queues(Fiber& fiber) noexcept;
    Fiber* new_main_fiber() noexcept;
    void admit(Fiber& fiber) noexcept;
    void dismiss(Fiber& fiber) noexcept;
    void return_promise(Fiber& fiber) noexcept;
    void return_promise_now(StackClass size_class, StrategyIndex strategy) noexcept;

    // scheduler_idle.cpp: what happens between fibers
    void look() noexcept;
    void idle(Fiber& self) noexcept;
    void wait_for_work(Fiber& self) noexcept;
    std::int64_t collect() noexcept;
    int poll_reactor(std::int64_t timeout_ns) noexcept;
    void poll_idle(Fiber& self, std::int64_t timeout_ns) noexcept;
    bool signal_waits() noexcept;
    std::int64_t housekeeping_due_ns() noexcept;
    void keep_house(std::int64_t now_ns) noexcept;
    void exit_if_deserted() noexcept;
    static void on_fd_ready(FdWait& wait, void* scheduler);

    // scheduler_wait.cpp
    bool watch(FdRequest& request, FdWait& wait) noexcept;
    bool end_watch(FdWait* waits, std::span<FdRequest> requests) noexcept;  // false: one was closed
    void drop_fd_waits(Fiber* only, Fiber* except) noexcept;

    // scheduler_life.cpp
    Result<void> open(SchedulerOptions&& options) noexcept;
    void shut() noexcept;
    void abandon_all_but(Fiber& survivor) noexcept;

    // initial-exec: one load, no call, also inside a shared library. Eight bytes of the static TLS reserve.
    [[gnu::tls_model("initial-exec")]] static inline constinit thread_local Scheduler* current_ = nullptr;

    Fiber* running_ = nullptr;
    Fiber* main_ = nullptr;       // the fiber that interrupt_main() wakes; the survivor after a fork in another one
    Fiber* finished_ = nullptr;   // its stack is given back by whoever continues after it
    int* errno_ = nullptr;        // of the owning thread
    void* exceptions_ = nullptr;  // __cxa_get_globals() of the owning thread
    std::uint64_t switches_ = 0;
    unsigned looks_left_ = kSwitchesPerLook;
    std::uint8_t epoch_ = 1;  // the shrinker's idea of now
    bool at_work_ = false, lost_in_fork_ = false;
    bool clock_jumps_ = false;  // simulated: never waits for real time
    std::unique_ptr<Parts> parts_;
    std::unique_ptr<Clock> clock_;
    std::unique_ptr<Reactor> reactor_;
};

}  // namespace culm::runtime
