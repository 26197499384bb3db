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
#include "culm/runtime/switch_hook.hpp"
#include "culm/stack.hpp"

namespace culm {
class StackPool;
}

namespace culm::runtime {

struct SchedulerOptions {
    std::unique_ptr<Clock> clock;      // null: monotonic
    std::unique_ptr<Reactor> reactor;  // null: epoll
    std::uint64_t seed = 0;            // not 0: runnable fibers run in an order drawn from this seed
};

struct SchedulerStatistics {
    std::uint64_t switches = 0;
    std::uint64_t spawned = 0;
    std::uint64_t finished = 0;
    std::uint64_t polls = 0;         // reactor polls
    std::uint64_t idle_polls = 0;    // of these, with nothing runnable
    std::uint64_t remote_calls = 0;  // calls posted by other threads
    std::size_t fibers = 0;          // unfinished, without the main fiber
    std::size_t ready = 0;
    std::size_t timers = 0;
    std::size_t fd_waits = 0;
};

// One descriptor of a wait for several.
struct FdRequest {
    int fd = -1;
    std::uint32_t wanted = 0;
    std::uint32_t ready = 0;  // set on return
};

class Scheduler {
public:
    static constexpr unsigned kSwitchesPerLook = 64;

    // The calling thread's scheduler, or null. One thread-local load.
    static Scheduler* current() noexcept { return current_; }
    // The same, made with default options if there is none.
    static Result<Scheduler*> ensure() noexcept;
    // Makes the calling thread's scheduler; EEXIST if it has one.
    static Result<Scheduler*> create(SchedulerOptions options) noexcept;
    // Takes the calling thread's scheduler away. EBUSY (and nothing changes) unless the main fiber calls and no other
    // fiber is unfinished, except those given up by abandon().
    static Result<void> close_current() noexcept;

    // --- fibers -----------------------------------------------------------------------------------------------------
    // A new fiber in state kNew, owned by the caller (release() it). ENOMEM when no stack can be promised.
    Result<Fiber*> new_fiber(Fiber::Body body, void* argument, StackClass size_class = kDefaultStackClass) noexcept;
    // kNew -> kReady, at the end of the run queue. The runtime holds a reference until the fiber has finished.
    void start(Fiber& fiber) noexcept;
    // A kNew fiber will not be run: gives its promise of a stack back and finishes it (joiners are woken).
    void discard(Fiber& fiber) noexcept;

    Fiber& running() noexcept { return *running_; }
    Fiber& main_fiber() noexcept { return *main_; }

    // Calls visit for each unfinished fiber except the main one; visit must not switch, start or finish fibers.
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
    // A bad descriptor gives kNotified with EPOLLNVAL-like ready = EPOLLERR.
    Wake wait_fd(FdRequest& request, std::int64_t deadline_ns = kNever) noexcept;
    Wake wait_fds(std::span<FdRequest> requests, std::int64_t deadline_ns = kNever) noexcept;
    // Straight to `target`, past the run queue; the caller stays suspended as by park(). The target must be kNew or
    // parked with WaitKind::kPermit, of this scheduler and not the caller: asserted.
    Wake switch_to(Fiber& target) noexcept;
    // The same for a finishing or ready caller: puts the caller at the end of the run queue first.
    void run_now(Fiber& target) noexcept;

    // --- waking. None of these switches -----------------------------------------------------------------------------
    // kParked -> kReady with that reason, out of every queue. No effect on a fiber that is not parked.
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
    // Runs call(scheduler, argument) on the owning thread soon (at its next look). False: the scheduler is closed, the
    // call will not run. Wakes the thread if it is idle.
    using RemoteCall = void (*)(Scheduler& scheduler, void* argument);
    bool post(RemoteCall call, void* argument) noexcept;

    // --- fork and exit ----------------------------------------------------------------------------------------------
    // Called in the child by the thread that forked: rebuilds the reactor. Unless keep_fibers, every fiber but the
    // running one is abandoned: never run again, not unwound.
    void after_fork_in_child(bool keep_fibers) noexcept;
    // Called in the child for schedulers whose threads are gone: all of them but current(), unless null.
    static void abandon_other_schedulers() noexcept;

    // --- memory -----------------------------------------------------------------------------------------------------
    StackPool& stack_pool() noexcept;
    // Discards what parked fibers do not use, and the pool's spare memory. Returns stacks trimmed.
    std::size_t trim() noexcept;
    // Idle time after which trim() runs by itself, once per burst of activity. kNever: not at all.
    std::int64_t trim_after_ns = 1'000'000'000;

    Clock& clock() noexcept { return *clock_; }
    Reactor& reactor() noexcept { return *reactor_; }
    SchedulerStatistics statistics() const noexcept;
    unsigned long thread_identity() const noexcept;  // pthread_self() of the owning thread
    // True while the scheduler itself is at work (polling, choosing): an interposed call then behaves like libc.
    bool at_work() const noexcept { return at_work_; }

    // Whether the calling code may treat `address` as belonging to a fiber: used by the overflow report.
    static Fiber* fiber_of_stack(const Stack& stack) noexcept;  // async-signal-safe, current thread only

    Scheduler(const Scheduler&) = delete;
    Scheduler& operator=(const Scheduler&) = delete;
    ~Scheduler();

private:
    explicit Scheduler(SchedulerOptions options) noexcept;

    static inline constinit thread_local Scheduler* current_ = nullptr;

    Fiber* running_ = nullptr;
    Fiber* main_ = nullptr;
    std::unique_ptr<Clock> clock_;
    std::unique_ptr<Reactor> reactor_;
    bool at_work_ = false;
    // (further private members are the implementer's)
};

}  // namespace culm::runtime
