// The roles of an embedding language: what the runtime asks of it, and when. It knows nothing of the language itself.
//
// Each role is a few functions for one occasion; every function may be null. The language fills in an Embedder and
// installs it once per process, before the first scheduler.
// Invariant: between Switching::exchange and the swap of stacks nothing allocates, raises, runs code of the language or
// drops a reference; Switching::arrived is the place for all of that.
#pragma once

#include <cstddef>
#include <cstdint>

namespace culm::runtime {

class Fiber;
class Scheduler;

// At each switch from one fiber to another.
struct Switching {
    // On the side that is left: save the language's state of `from`, load that of `to`.
    void (*exchange)(Fiber& from, Fiber& to) = nullptr;
    // On the side that continues, in the fiber `now`, when its wait is over and nothing of it is linked anywhere any
    // more: it may wait again in here. Only if there was a switch: a fiber that was alone and idled on its own stack is
    // not told. Not called for a fiber's first run, which its body begins.
    void (*arrived)(Fiber& now) = nullptr;
};

// In the life of a fiber.
struct Lives {
    // It has just been given its stack, before its first run: lay out fiber.host_area(). Same rules as exchange.
    void (*given_stack)(Fiber& fiber) = nullptr;
    // It was parked until somebody unparks it, and is about to become runnable by a wake, a cancellation or a time-out:
    // whoever dropped his reference to it meanwhile takes it again.
    void (*becomes_runnable)(Fiber& fiber) = nullptr;
    // In the child of fork: it belongs to the parent and will never run here. Allocates nothing, drops nothing.
    void (*lost_in_fork)(Fiber& fiber) = nullptr;
    // In the child of fork, after all of the others: `survivor`, in which fork was called, goes on alone. Same rules.
    void (*forked)(Fiber& survivor) = nullptr;
};

// When nothing can run.
struct Idling {
    // Around a poll of the reactor that may block: give the language's lock up, take it back.
    void (*begins)(Fiber& self) = nullptr;
    void (*ends)(Fiber& self) = nullptr;
};

// When a signal has arrived.
struct Signals {
    // This thread runs the language's signal handlers: while it decides to sleep, signals are held back.
    bool (*are_handled_by)(const Scheduler& scheduler) = nullptr;
    // A signal waits for its handler: the thread's main fiber has to be woken.
    bool (*are_pending)(const Scheduler& scheduler) = nullptr;
};

// What the embedding language says of an interposed call that would block.
enum class Consent : std::uint8_t {
    kNo,               // it must block the thread, as libc does
    kUnlessMutexHeld,  // the caller did not expect anything else to run: not while it holds a pthread mutex
    kYes,              // the caller has given the language's lock up, and so expects others to run meanwhile
};

// In an interposed call of libc.
struct Calls {
    // May the call park `self` now? Null means kUnlessMutexHeld.
    Consent (*may_park)(Fiber& self) = nullptr;
    // Around the runtime's work inside the call, which the language may have made with its lock given up. enter takes
    // the lock if need be and returns whether it did; leave gives it up again if `taken`.
    bool (*enter)(Fiber& self) = nullptr;
    void (*leave)(Fiber& self, bool taken) = nullptr;
    // The call is about to fail with ECANCELED because `self` was cancelled (the lock is held). The language sees to
    // it that its exception for that comes out of the call, or soon after it.
    void (*cancelled)(Fiber& self) = nullptr;
    // The same for a wait for one of the interpreter's own locks, which will fail with EINTR. False: nothing can be
    // raised there; the wait goes on, and the next one after it is cancelled instead.
    bool (*cancelled_in_lock)(Fiber& self) = nullptr;
};

// When a fiber runs out of stack (yellow_zone.hpp). Without `begins` a yellow zone is as good as a guard.
struct Overflows {
    // In the fault handler, so async-signal-safe: the running fiber has used up its stack and gets part of the yellow
    // zone to come to an end in; `again` if that was not enough and it gets more. False: nothing can be done for it.
    bool (*begins)(Fiber& self, bool again) = nullptr;
    // What `begins` has started has not reached the fiber's code yet: its zone has to stay open.
    bool (*is_pending)(Fiber& self) = nullptr;
    // The fiber is left in that state: what is pending goes with it; and comes back with it. Same rules as exchange.
    void (*leaves)(Fiber& self) = nullptr;
    void (*returns)(Fiber& self) = nullptr;
    // The zone has been closed again.
    void (*ended)(Fiber& self) = nullptr;
    // For undertaker.hpp. A new fiber of the calling thread, whose body calls Undertaker::bury_all(); null: it cannot
    // be made. It is kept until let_undertaker_go(), which may come before it has run and while it runs.
    Fiber* (*make_undertaker)() = nullptr;
    void (*let_undertaker_go)(Fiber& undertaker) = nullptr;
    // The fiber has run out of stack in code that nothing can stop, and is parked for good: Scheduler::abandon() it,
    // and record that as its end. Called in the undertaker.
    void (*bury)(Fiber& fiber) = nullptr;
};

// What has come to its end while fibers are left.
enum class Ending : std::uint8_t { kThread, kProgram };

// For unwinding.hpp: how fibers that are left are ended. Either all of these are null or none is.
struct Unwinding {
    // Whether this fiber, which has started and not finished, has to end. If so it is kept, with its host, until
    // let_go(). Neither starts nor ends a fiber.
    bool (*hold)(Fiber& fiber, Ending ending) = nullptr;
    void (*let_go)(Fiber& fiber) = nullptr;
    // tell() has been called for it, by whomever.
    bool (*was_told)(const Fiber& fiber) = nullptr;
    // Makes the fiber runnable, and unwinds it when it runs.
    void (*tell)(Fiber& fiber) = nullptr;
    // A signal has arrived while fibers are waited for. False: its handler wants the waiting to end.
    bool (*handle_signals)() = nullptr;
    // The fiber was told and has not ended: Scheduler::abandon() it, and record that as its end.
    void (*give_up)(Fiber& fiber) = nullptr;
};

// When the process reports an overflow and dies of it. All async-signal-safe.
struct Reports {
    // Writes a description of the fiber into the buffer. Returns its length.
    std::size_t (*describe)(const Fiber& fiber, char* buffer, std::size_t buffer_bytes) = nullptr;
    // Writes the fiber's frames in that language to stderr.
    void (*trace)(const Fiber& fiber) = nullptr;
};

struct Embedder {
    Switching switching;
    Lives lives;
    Idling idling;
    Signals signals;
    Calls calls;
    Overflows overflows;
    Unwinding unwinding;
    Reports reports;
};

void set_embedder(const Embedder& embedder) noexcept;

}  // namespace culm::runtime
