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
    Woken cross(Fiber& self, Fiber& target) noexcept;            // Switches: to that fiber
    void take_straight(Fiber& target, void* value) noexcept;
    Fiber& next_runnable(Fiber& self) noexcept;
    void give_stack(Fiber& fiber) noexcept;
    static void run_body(void* fiber) noexcept;
    [[noreturn]] void finish(Fiber& self) noexcept;
    void bury_finished() noexcept;
    void give_back_stack(Fiber& fiber) noexcept;
    void leave_outermost_scope(Fiber& self) noexcept;
    Fiber* new_main_fiber() noexcept;
    void admit(Fiber& fiber) noexcept;
    void dismiss(Fiber& fiber) noexcept;
    void tell_joiners(Fiber& fiber) noexcept;
    void give_up(Fiber& fiber, bool with_stack) noexcept;

    // scheduler_wait.cpp: the steps of a wait, and the waits made of them
    // Switches. Sets `switched` if it did: then the caller has to call arrive(), once it has copied its results.
    Wake await_quietly(std::int64_t deadline_ns, bool& switched) noexcept;
    static void arrive(Fiber& self, bool switched) noexcept;
    void make_ready(Fiber& fiber, Wake reason) noexcept;
    bool end_wait(Fiber& fiber, Wake reason) noexcept;
    bool abort_records(Fiber& fiber) noexcept;
    Abort abort_record(Wait& wait, WaitKind kind) noexcept;
    static Wake end_ticket(Fiber& self, Wake reason) noexcept;
    void end_permit_wait(Fiber& fiber, void* value) noexcept;
    static bool ask(Fiber& fiber, std::uint8_t request) noexcept;
    static void refuse(Fiber& fiber) noexcept;
    void answer(Fiber& fiber) noexcept;
    void* take_permit(Fiber& fiber) noexcept;
    Wake join_in_lot(std::uint64_t id, Fiber* fiber, std::int64_t deadline_ns) noexcept;
    bool watch(FdRequest& request, Wait& wait) noexcept;
    bool end_watch(FdRequest& request, Wait& wait) noexcept;
    static void on_fd_ready(Wait& wait, void* scheduler);

    // scope.cpp
    bool must_end_waits(Fiber& fiber) noexcept {
        if (!fiber.is_cancelled_ && !fiber.scope_) [[likely]]
            return false;
        return apply_scopes(fiber);
    }
    bool apply_scopes(Fiber& fiber) noexcept;
    static void note_cancelled(Fiber& fiber) noexcept;
    static bool sees_its_own_cancel(const Fiber& fiber) noexcept;

    // scheduler_idle.cpp: what happens between fibers
    void catch_up() noexcept;
    void idle(Fiber& self) noexcept;
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
