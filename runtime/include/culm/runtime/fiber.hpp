// The control block of a fiber: its saved context, its state and the links by which the runtime finds it.
//
// Control blocks lie in dense slabs off the stacks, so that a parked fiber costs one page of stack and under 200 bytes
// here. Nothing the runtime links (queues, timers, inboxes) lies on a stack.
// Invariant: only Fiber::move_to changes the state, and only along the table of legal moves (is_legal_move).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "culm/context.hpp"
#include "culm/overflow.hpp"
#include "culm/runtime/clock.hpp"
#include "culm/runtime/fiber_state.hpp"
#include "culm/runtime/intrusive_list.hpp"
#include "culm/runtime/task.hpp"
#include "culm/runtime/wait.hpp"
#include "culm/runtime/wait_ring.hpp"
#include "culm/stack.hpp"
#include "culm/strategy_pool.hpp"

namespace culm::runtime {

class Scheduler;

namespace interpose {
struct FiberNotes;
}

class Fiber {
public:
    using Body = Task::Body;

    // For the embedding language: its object. Not touched by the runtime.
    void* host = nullptr;
    // Bytes near the stack base that the host keeps for itself; the context starts below them. Set before start.
    std::uint16_t host_stack_bytes = 0;

    FiberState state() const noexcept { return __atomic_load_n(&state_, __ATOMIC_RELAXED); }
    WaitKind wait_kind() const noexcept { return wait_kind_; }
    // kFd: the (first) descriptor; kLock and kQueue: an address; kJoin: the id of the fiber waited for; else 0.
    std::uintptr_t wait_object() const noexcept;
    std::uint64_t id() const noexcept { return id_; }  // of new_fiber_id()
    Scheduler& scheduler() const noexcept { return *scheduler_; }
    bool is_main() const noexcept { return is_main_; }  // the OS thread's own flow of control
    // A value as unique among live fibers and threads as pthread_self(): pthread_self() itself for a main fiber.
    unsigned long identity() const noexcept;

    // Empty before the first run, after the end, and for a main fiber.
    Stack stack() const noexcept { return Stack{stack_base_, stack_class_}; }
    StackClass stack_class() const noexcept { return stack_class_; }
    StrategyIndex stack_strategy() const noexcept { return stack_strategy_; }  // kArenaIndex for a main fiber
    const void* suspended_sp() const noexcept { return context_.sp; }          // meaningful while ready or parked
    // The deepest use that has been seen so far, by a tool or by shrinking, which measures a stack before it gives
    // memory back.
    std::size_t peak_bytes() const noexcept { return std::size_t{peak_kb_} << 10; }
    void note_peak(std::size_t bytes) noexcept {
        const auto kb = static_cast<std::uint32_t>(bytes >> 10);
        if (kb > peak_kb_) peak_kb_ = kb;
    }

    // Where the host_stack_bytes are, near the base of the stack; null without a stack or without such bytes.
    std::byte* host_area() const noexcept {
        return stack_base_ && host_stack_bytes != 0 ? host_area_end() - host_stack_bytes : nullptr;
    }
    // Where they end. Only for a fiber that has both.
    std::byte* host_area_end() const noexcept { return stack_base_ - colour_bytes(stack_base_, kHostColours); }

    // A short label for reports; copied. Null when none was given.
    const char* name() const noexcept { return name_; }
    void set_name(const char* name) noexcept;

    // What its task was given, until it runs for the first time. The host may take it out before.
    void* argument() const noexcept { return has_not_run() ? own_.value : nullptr; }
    void* take_argument() noexcept;

    // What unpark() or switch_to() has sent and the fiber has not received: for whoever has to keep it alive. The first
    // belongs to the wait that it ends, the second is a permit that waits for the fiber's next park().
    void* value_sent() const noexcept;
    void* value_of_permit() const noexcept { return permit_value_; }
    // For a fiber that will not run again: the values, taken out.
    void* take_value_sent() noexcept;
    void* take_value_of_permit() noexcept;

    // References keep the control block, not the fiber's execution. Thread-safe.
    void retain() noexcept { references_.fetch_add(1, std::memory_order_relaxed); }
    void release() noexcept;

    YellowZone yellow_zone() const noexcept { return yellow_; }
    // cancel() was called and no wait has ended with it yet.
    bool cancel_requested() const noexcept { return is_cancelled_; }
    // The innermost scope it has entered; null: only its own outermost one.
    Scope* current_scope() const noexcept { return scope_; }

    Fiber(const Fiber&) = delete;
    Fiber& operator=(const Fiber&) = delete;

private:
    friend class Scheduler;
    friend class Scope;
    friend class Inbox;
    friend class ParkingLot;
    friend class TimerQueue;
    friend class FiberSlab;
    friend class RunQueue;
    friend class Shrinker;
    friend struct YellowZoneKeeper;
    friend struct interpose::FiberNotes;
    friend struct FiberProbe;  // tests: reaches move_to and the tickets
    Fiber() = default;
    ~Fiber() = default;

    void move_to(FiberState next) noexcept;
    bool has_not_run() const noexcept { return has_reservation_; }

    // --- the ticket: open, claimed by one of the fiber's records, or none
    static constexpr Ticket kClaimed = 0x80000000;  // with the index of the record that won
    // Claims the ticket for a record of this fiber. False: the wait is over or another record has won. Waits that only
    // the fiber's own thread can complete need no atomic exchange.
    bool claim(const Wait& wait, std::uint32_t index) noexcept {
        if (is_shared_wait_) return claim_shared(wait.ticket, index);
        if (ticket_.load(std::memory_order_relaxed) != wait.ticket) return false;
        ticket_.store(kClaimed | index, std::memory_order_relaxed);
        return true;
    }
    bool claim_shared(Ticket expected, std::uint32_t index) noexcept {
        return ticket_.compare_exchange_strong(expected, kClaimed | index, std::memory_order_acq_rel);
    }
    bool is_claimed() const noexcept { return (ticket_.load(std::memory_order_acquire) & kClaimed) != 0; }

    static const Fiber& fiber_joined_through(const void* joiners) noexcept;

    // The fiber whose own record this is.
    static Fiber& of(Wait& own) noexcept { return *owner_of(&own, &Fiber::own_); }

    // Shifts the hot first lines of each stack to other cache sets: (page number mod colours) cache lines. Strides are
    // odd numbers of pages, so that neighbours differ. Where the host keeps part of the page there is less to give
    // away: four more lines and every fourth fiber that waits in recv() would need a second page (record 0014).
    static constexpr std::uintptr_t kColours = 16;
    static constexpr std::uintptr_t kHostColours = 4;
    static std::size_t colour_bytes(const std::byte* base, std::uintptr_t colours) noexcept {
        return (reinterpret_cast<std::uintptr_t>(base) >> 12) % colours * 64;
    }
    // Where the context of a fiber begins that has just been given its stack.
    std::byte* context_base() const noexcept {
        return host_stack_bytes != 0 ? host_area() : stack_base_ - colour_bytes(stack_base_, kColours);
    }

    // First cache line, together with the public members above: what a switch touches.
    std::uint16_t interposition_ = 0;  // interpose::FiberNotes
    // Written by the fiber's own thread when a wait begins and ends; by a completion, whatever its thread, when it
    // claims a wait that is shared.
    std::atomic<Ticket> ticket_{0};
    Context context_;
    FiberState state_ = FiberState::kNew;
    WaitKind wait_kind_ = WaitKind::kNone;
    Wake wake_ = Wake::kNotified;
    StackClass stack_class_ : 4 = kDefaultStackClass;
    StrategyIndex stack_strategy_ : 4 = kArenaIndex;
    bool has_permit_ : 1 = false;
    bool is_cancelled_ : 1 = false;    // by Scheduler::cancel(); the wait that ends by it takes it back
    bool is_shared_wait_ : 1 = false;  // the present wait may be completed on other OS threads
    bool has_remote_joiners_ : 1 = false;
    bool has_extra_waits_ : 1 = false;  // own_.value is the first of several records
    bool has_reservation_ : 1 = false;  // a stack is promised and not taken yet: the fiber never ran
    bool is_main_ : 1 = false;
    YellowZone yellow_ = YellowZone::kClosed;  // written by the fault handler, on the fiber's own thread
    std::uint8_t left_epoch_ = 1;            // the shrinker's, when it last left the processor; 0: looked at since then
    std::atomic<std::uint8_t> requests_{0};  // bits of FiberRequest, set by any thread, taken by the fiber's own
    void* caught_exceptions_ = nullptr;      // __cxa_eh_globals of this fiber
    std::uint32_t uncaught_exceptions_ = 0;
    std::int32_t errno_ = 0;
    // Its record of a wait; before the first run `value` and `target.key` are the task's argument and body. The link,
    // the last of the first cache line, is also the run queue's.
    Wait own_;

    // The rest of the second line: what starting and finishing touch.
    std::byte* stack_base_ = nullptr;
    Scheduler* scheduler_ = nullptr;
    std::uint32_t timer_index_ = UINT32_MAX;  // place in the timer heap
    std::atomic<std::uint32_t> references_{1};
    Scope* scope_ = nullptr;  // the innermost it is in; null: none

    // Third: the rest.
    ListLink all_link_;  // every started, unfinished fiber of the scheduler but the main one
    char* name_ = nullptr;
    std::uint64_t id_ = 0;
    std::uint32_t peak_kb_ = 0;
    std::uint32_t excess_pages_ = 0;  // the shrinker's: in memory, not needed while parked, not given back yet
    WaitRing joiners_;                // of its own scheduler; others wait in the parking lot
    Fiber* next_request_ = nullptr;   // in its scheduler's inbox, under the inbox's lock
    void* permit_value_ = nullptr;    // written by whoever has set kPermitTaken
};

}  // namespace culm::runtime
