// One thing a fiber waits for. Everything that parks a fiber uses this record: joins, sleeps, descriptors, locks,
// permits, and what later features add.
//
// The way of a wait, always in this order:
//
//   1. Scheduler::begin_wait() opens a ticket for the running fiber and hands out its record.
//   2. The caller links the record into what it waits for: a queue, a descriptor, the parking lot, an operation.
//   3. Scheduler::await() looks once at the fiber's cancel scopes, then parks the fiber.
//   4. Whoever completes the wait claims the fiber's ticket. Of several records of one fiber exactly one wins.
//   5. The fiber runs again. Records that did not win are taken out of what they are linked into (abort).
//
// Two things keep the late effects of one wait from the next wait of the same fiber. First, when the fiber goes on its
// records are linked nowhere, its timer is out and its ticket is closed, so that nobody can find them any more. Second,
// the ticket decides between several records of one wait, and between the fiber's own thread and a completion that
// comes from another one at the same moment: a record with an old ticket claims nothing.
// A wait that other OS threads may complete is opened as a shared one (a lock, the end of another thread's fiber).
// Its ticket is claimed by whoever completes it; the fiber is made ready by its own thread, which is told through the
// fiber's place in its inbox. If the fiber does not wait any more by then, nothing happens. All other waits are
// completed by the fiber's own thread, which also carries out a cancel that another thread asks for.
// Each fiber has one record in its control block; a wait for several things takes further ones from the scheduler's
// pool. Invariant: a record that is linked anywhere belongs to a fiber whose ticket it carries, and no record is linked
// anywhere by the time its fiber runs the code after the wait, but for one whose operation has said that it is pending.
#pragma once

#include <cstdint>

#include "culm/runtime/intrusive_list.hpp"

namespace culm::runtime {

class Fiber;

// Why a parked fiber was made ready.
enum class Wake : std::uint8_t {
    kNotified,     // what it waited for happened
    kTimeout,      // its deadline passed first
    kCancelled,    // one of its cancel scopes was cancelled
    kInterrupted,  // a signal arrived on this thread: look at pending signals, then wait on or give up
    kClosed,       // the file descriptor it waited for is being closed
};

// What a parked fiber waits for: shown by tools, and the gate for unpark and switch_to.
enum class WaitKind : std::uint8_t {
    kNone,
    kPermit,     // Scheduler::park or switch_to: ended by unpark, switch_to or the deadline
    kJoin,       // the end of another fiber
    kSleep,      // the deadline alone
    kFd,         // one or more file descriptors
    kLock,       // a semaphore or lock, in the parking lot or in a queue
    kQueue,      // any other wait queue
    kOperation,  // something with an Operation of its own
};

// How park() or switch_to() ended, and what unpark() or switch_to() sent if it was that (else null).
struct Woken {
    Wake wake;
    void* value;
    operator Wake() const noexcept { return wake; }  // NOLINT: most callers ask for nothing else
};

// What became of a value for another fiber.
enum class Sent : std::uint8_t {
    kSent,    // the fiber receives it, now or at its next park()
    kBusy,    // a permit is on its way to the fiber already: the value was not taken
    kClosed,  // the fiber's thread has ended: the value was not taken
};

// Names one wait of one fiber. Never 0; unique among the fiber's last two thousand million waits.
using Ticket = std::uint32_t;

// The answer of what a record is linked into, when its fiber no longer wants to wait.
enum class Abort : std::uint8_t {
    kDone,     // nothing has happened and nothing will: the record is free
    kPending,  // it cannot be stopped, or has just happened: the wait will be completed, the fiber has to stay
};

struct Wait;

// How to abort a wait of kind kOperation. Called on the fiber's own thread.
struct Operation {
    Abort (*abort)(Wait& wait) noexcept;
};

struct Wait {
    // In what it waits for. The fiber's own record also links the fiber into the run queue: it is never in both.
    ListLink link;
    // What the completion has sent; in a shared wait it is written before the ticket is claimed. With several records:
    // the fiber's own record points to the first of the others.
    void* value = nullptr;
    Fiber* fiber = nullptr;  // whose it is; null while the record lies in the pool
    union Target {
        const void* key = nullptr;   // kLock, kJoin, kQueue: what is waited for, an address or a number
        const Operation* operation;  // kOperation
        struct {
            int fd;
            std::uint16_t wanted;  // EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP
            std::uint16_t ready;   // what came, with EPOLLERR and EPOLLHUP; 0 until then
        } descriptor;
    } target;
    std::uint16_t closes = 0;  // kFd: how often the reactor had been told of the number's closing when the wait began
    WaitKind kind = WaitKind::kNone;
    // While the record is in the parking lot, other threads may write the first two; the third is not used then.
    bool in_parking_lot : 1 = false;  // written under the lock of its part of the lot
    bool closed : 1 = false;          // kFd: the descriptor is being closed; kLock: the lock is being destroyed
    bool rechecked : 1 = false;       // kFd: its registration has been verified
    Ticket ticket = 0;
};
static_assert(sizeof(Wait) == 48);

// A record of the scheduler's pool, for a fiber that waits for several things at once.
struct ExtraWait : Wait {
    ExtraWait* next = nullptr;  // the same fiber's next record, or the pool's next free one
    std::uint32_t index = 0;    // which of the fiber's requests this is
};

}  // namespace culm::runtime
