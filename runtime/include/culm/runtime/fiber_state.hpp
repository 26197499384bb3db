// The states of a fiber, and the one table of legal moves between them.
// Invariant: the table is the only place that says which move is legal; Fiber::move_to asserts it.
#pragma once

#include <cstdint>

namespace culm::runtime {

enum class FiberState : std::uint8_t {
    kNew,      // just made from a task, holds a promise of a stack; linked nowhere
    kReady,    // in its scheduler's run queue; has a stack unless it never ran
    kRunning,  // its scheduler's running(); linked nowhere
    kParked,  // waits: its records are linked into what it waits for, and it is in the timer queue if it has a deadline
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

// What other OS threads ask of a fiber's own thread: bits of requests_.
enum FiberRequest : std::uint8_t {
    kWoken = 1,   // a completion has claimed the ticket: make the fiber ready
    kCancel = 2,  // cancel it
    kPermit = 4,  // the permit's value has been written: end a wait for it, or leave it
    kJoined = 8,  // somebody has linked himself into the parking lot to wait for the end
    kAllRequests = 0x0f,
    kPermitTaken = 0x80,  // no request: permit_value_ is in use
};

}  // namespace culm::runtime
