// The control block of a fiber: its saved context, its state and the links by which the runtime finds it.
//
// Control blocks lie in dense slabs off the stacks, so that a parked fiber costs one page of stack and under 200 bytes
// here. Nothing the runtime links (queues, timers) lies on a stack.
// Invariant: only Fiber::move_to changes the state, and only along the table of legal moves (is_legal_move).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "culm/context.hpp"
#include "culm/runtime/clock.hpp"
#include "culm/runtime/intrusive_list.hpp"
#include "culm/runtime/wait_queue.hpp"
#include "culm/stack.hpp"
#include "culm/strategy_pool.hpp"

namespace culm::runtime {

class Scheduler;

enum class FiberState : std::uint8_t {
    kNew,       // created or spawned elsewhere, holds a promise of a stack; linked nowhere
    kReady,     // in its scheduler's run queue; has a stack unless it never ran
    kRunning,   // its scheduler's running(); linked nowhere
    kParked,    // waits: in at most one WaitQueue, in the timer queue if it has a deadline, FdWaits in the reactor
    kFinished,  // its body has returned (its stack goes back to the pool), or it was discarded or abandoned
};

// The table of legal moves: one byte for each state to leave, one bit in it for each state to enter.
constexpr bool is_legal_move(FiberState from, FiberState to) noexcept {
    constexpr std::uint64_t kMoves = 0b10110ULL << 0      // kNew: started, switched to, discarded
                                     | 0b10100ULL << 8    // kReady: its turn, abandoned
                                     | 0b11010ULL << 16   // kRunning: yields, parks, finishes
                                     | 0b10110ULL << 24   // kParked: woken, switched to, abandoned
                                     | 0b00000ULL << 32;  // kFinished: for good
    return (kMoves >> (static_cast<unsigned>(from) * 8 + static_cast<unsigned>(to)) & 1) != 0;
}

// Why a parked fiber was made ready.
enum class Wake : std::uint8_t {
    kNotified,     // what it waited for happened
    kTimeout,      // its deadline passed first
    kCancelled,    // Scheduler::cancel
    kInterrupted,  // a signal arrived on this thread: look at pending signals, then wait on or give up
    kClosed,       // the file descriptor it waited for is being closed by another fiber
};

// What a parked fiber waits for: shown by tools, and the gate for unpark and switch_to.
enum class WaitKind : std::uint8_t {
    kNone,
    kPermit,  // Scheduler::park or switch_to: only unpark, switch_to or its deadline ends it
    kJoin,
    kSleep,
    kFd,
    kLock,   // a semaphore or lock at wait_object()
    kQueue,  // any other wait queue
};

// The yellow zone of a running fiber's stack (overflow.hpp).
enum class YellowState : std::uint8_t {
    kClosed,
    kHalfOpen,    // the stack has overflown: the upper half is open
    kMostlyOpen,  // three quarters are
    kOpen,        // the whole zone is
    kLent,        // the whole zone is, for a switch near the limit; nothing has overflown
};

class Fiber {
public:
    // Runs on the fiber's stack; when it returns the fiber is finished. Must not let an exception out.
    using Body = void (*)(Fiber& self, void* argument);

    // For the embedding language: its object. Not touched by the runtime.
    void* host = nullptr;
    // Bytes near the stack base that the host keeps for itself; the context starts below them. Set before start.
    std::uint32_t host_stack_bytes = 0;
    // pthread mutexes that interposition saw this fiber take and not release yet.
    std::uint16_t held_mutexes = 0;
    // Interposition has told the interpreter this fiber's identity at least once.
    bool identity_asked = false;
    // A wait for a lock has failed because of cancel(), and the language has not raised that yet.
    bool lock_cancelled = false;

    FiberState state() const noexcept { return state_; }
    WaitKind wait_kind() const noexcept { return wait_kind_; }
    // kFd: the (first) descriptor; kLock and kQueue: an address; kJoin: the id of the fiber waited for; else 0.
    std::uintptr_t wait_object() const noexcept { return wait_object_; }
    std::uint64_t id() const noexcept { return id_; }  // 1, 2, 3... within the process, never reused
    Scheduler& scheduler() const noexcept { return *scheduler_; }
    bool is_main() const noexcept { return is_main_; }  // the OS thread's own flow of control
    // A value as unique among live fibers and threads as pthread_self(): pthread_self() itself for a main fiber.
    unsigned long identity() const noexcept { return identity_; }
    std::int64_t deadline_ns() const noexcept { return deadline_ns_; }

    // Empty before the first run, after the end, and for a main fiber.
    Stack stack() const noexcept { return Stack{stack_base_, stack_class_}; }
    StackClass stack_class() const noexcept { return stack_class_; }
    StrategyIndex stack_strategy() const noexcept { return stack_strategy_; }  // kArenaIndex for a main fiber
    const void* suspended_sp() const noexcept { return context_.sp; }          // meaningful while ready or parked
    // Deepest use seen so far, by whoever looked: what is given back is looked at first.
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

    // References keep the control block, not the fiber's execution. Thread-safe.
    void retain() noexcept { references_.fetch_add(1, std::memory_order_relaxed); }
    void release() noexcept;

    YellowState yellow_state() const noexcept { return yellow_; }
    bool cancel_requested() const noexcept { return cancel_requested_; }

    Fiber(const Fiber&) = delete;
    Fiber& operator=(const Fiber&) = delete;

private:
    friend class Scheduler;
    friend class WaitQueue;
    friend class TimerQueue;
    friend class FiberSlab;
    friend class RunQueue;
    friend class Shrinker;
    friend struct YellowZoneKeeper;
    friend struct FiberProbe;  // tests: reaches move_to
    Fiber() = default;
    ~Fiber() = default;

    void move_to(FiberState next) noexcept;

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
    Context context_;
    FiberState state_ = FiberState::kNew;
    WaitKind wait_kind_ = WaitKind::kNone;
    Wake wake_ = Wake::kNotified;
    StackClass stack_class_ : 4 = kDefaultStackClass;
    StrategyIndex stack_strategy_ : 4 = kArenaIndex;
    bool has_permit_ = false;
    bool cancel_requested_ = false;
    bool has_reservation_ : 1 = false;  // a stack is promised and not taken yet: the fiber never ran
    bool is_main_ : 1 = false;
    YellowState yellow_ : 3 = YellowState::kClosed;  // written by the fault handler, on the fiber's own thread
    std::uint8_t left_epoch_ = 1;        // the shrinker's, when it last left the processor; 0: looked at since then
    void* caught_exceptions_ = nullptr;  // __cxa_eh_globals of this fiber
    std::uint32_t uncaught_exceptions_ = 0;
    std::int32_t errno_ = 0;
    ListLink queue_link_;  // run queue or one wait queue

    // Second: what waiting, starting and finishing touch.
    std::byte* stack_base_ = nullptr;
    WaitQueue* wait_queue_ = nullptr;
    std::uintptr_t wait_object_ = 0;
    std::int64_t deadline_ns_ = kNever;
    std::uint32_t timer_index_ = UINT32_MAX;  // place in the timer heap
    std::atomic<std::uint32_t> references_{1};
    Scheduler* scheduler_ = nullptr;
    Body body_ = nullptr;

public:
    // What the body gets. The host may change it until then.
    void* argument = nullptr;

private:
    // Third: the rest.
    ListLink all_link_;  // every started, unfinished fiber of the scheduler but the main one
    char* name_ = nullptr;
    std::uint64_t id_ = 0;
    unsigned long identity_ = 0;
    std::uint32_t peak_kb_ = 0;
    std::uint32_t excess_pages_ = 0;  // the shrinker's: in memory, not needed while parked, not given back yet
    WaitQueue joiners_;
};

}  // namespace culm::runtime
