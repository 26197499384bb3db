// The member functions of a scheduler that only the runtime's own files call.
//
// They are kept out of the public header, which shows what a user needs. Every scheduler is made as an Inside
// (Scheduler::create), so that inside() costs nothing.
// Invariant: no data here; what a scheduler remembers is in Scheduler and in Scheduler::Parts.
#pragma once

#include <csignal>
#include <cstdint>

#include "culm/runtime/scheduler.hpp"

namespace culm::runtime {

struct Scheduler::Inside final : Scheduler {
    // scheduler.cpp: choosing, switching, making and finishing
    bool suspend(Fiber& self) noexcept;                          // Switches: to the next runnable fiber
    void swap(Fiber& from, Fiber& to, bool from_ends) noexcept;  // Switches: to that fiber
    Woken cross(Fiber& self, Fiber& target) noexcept;            // Switches: to that fiber, which is kRunning already
    void take_straight(Fiber& target, void* value) noexcept;     // makes it the running one, past the run queue
    Fiber& next_runnable(Fiber& self) noexcept;                  // from the run queue; waits while that is empty
    void give_stack(Fiber& fiber) noexcept;                      // the one that it was promised, before it first runs
    static void run_body(void* fiber) noexcept;                  // the first function on a new stack
    [[noreturn]] void finish(Fiber& self) noexcept;              // Switches: away for good
    void bury_finished() noexcept;                               // gives back what finish() stood on
    void give_back_stack(Fiber& fiber) noexcept;
    void leave_outermost_scope(Fiber& self) noexcept;
    Fiber* new_main_fiber() noexcept;
    void admit(Fiber& fiber) noexcept;    // counts and lists a fiber that starts, and holds it
    void dismiss(Fiber& fiber) noexcept;  // the opposite, but for holding it
    void tell_joiners(Fiber& fiber) noexcept;
    void give_up(Fiber& fiber, bool with_stack) noexcept;  // it never runs again; its stack can be used again or not

    // scheduler_wait.cpp: the steps of a wait, and the waits made of them
    // Switches. Sets `switched` if it did: then the caller has to call arrive(), once it has copied its results.
    Wake await_quietly(std::int64_t deadline_ns, bool& switched) noexcept;
    static void arrive(Fiber& self, bool switched) noexcept;
    void make_ready(Fiber& fiber, Wake reason) noexcept;        // parked -> in the run queue
    bool end_wait(Fiber& fiber, Wake reason) noexcept;          // for another reason than a completion; false: not now
    bool abort_records(Fiber& fiber) noexcept;                  // false: one of them is pending
    Abort abort_record(Wait& wait, WaitKind kind) noexcept;     // takes it out of what it is linked into
    static Wake end_ticket(Fiber& self, Wake reason) noexcept;  // of the running fiber, after its wait
    void end_permit_wait(Fiber& fiber, void* value) noexcept;
    static bool ask(Fiber& fiber, std::uint8_t request) noexcept;  // from any thread; false: its thread has ended
    static void refuse(Fiber& fiber) noexcept;                     // what was asked will not be done
    void answer(Fiber& fiber) noexcept;                            // does what was asked
    void* take_permit(Fiber& fiber) noexcept;
    Wake join_in_lot(std::uint64_t id, Fiber* fiber, std::int64_t deadline_ns) noexcept;
    bool watch(FdRequest& request, Wait& wait) noexcept;      // false: nothing to wait for, `request` says why
    bool end_watch(FdRequest& request, Wait& wait) noexcept;  // false: the descriptor was closed meanwhile
    static void on_fd_ready(Wait& wait, void* scheduler);

    // scope.cpp. The first two say whether a wait of the fiber would end with kCancelled at once.
    bool must_end_waits(Fiber& fiber) noexcept {
        if (!fiber.is_cancelled_ && !fiber.scope_) [[likely]]
            return false;
        return apply_scopes(fiber);
    }
    bool apply_scopes(Fiber& fiber) noexcept;
    static void note_cancelled(Fiber& fiber) noexcept;  // a wait has ended so
    static bool sees_its_own_cancel(const Fiber& fiber) noexcept;

    // scheduler_idle.cpp: what happens between fibers
    void catch_up() noexcept;         // with requests, timers and the reactor, while fibers can run
    void idle(Fiber& self) noexcept;  // the same when none can, waiting until one may
    void wait_for_work(Fiber& self) noexcept;
    std::int64_t take_in() noexcept;
    int poll_reactor(std::int64_t timeout_ns, const sigset_t* signal_mask) noexcept;
    void poll_idle(Fiber& self, std::int64_t timeout_ns) noexcept;
    void sleep_in_poll(Fiber& self, std::int64_t timeout_ns) noexcept;
    std::int64_t housekeeping_due_ns() noexcept;
    void keep_house(std::int64_t now_ns) noexcept;
    void exit_if_deserted() noexcept;

    // scheduler_life.cpp and forking.cpp
    Result<void> open(SchedulerOptions&& options) noexcept;
    void shut() noexcept;
    void give_up_all() noexcept;
    void go_on_in_child(bool keep_fibers) noexcept;
    void abandon_all_but(Fiber& survivor) noexcept;
};

inline Scheduler::Inside& Scheduler::inside() noexcept {
    static_assert(sizeof(Inside) == sizeof(Scheduler));
    return static_cast<Inside&>(*this);
}

}  // namespace culm::runtime
