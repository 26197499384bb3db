// What an embedding language adds to a switch. The runtime calls these; it knows nothing of the language.
//
// Set once per process before the first scheduler. Every member may be null.
// Invariant: between on_switch and the swap of stacks nothing allocates, raises, runs code of the language or drops a
// reference; after_switch is the place for all of that.
#pragma once

#include <cstddef>
#include <cstdint>

namespace culm::runtime {

class Fiber;
class Scheduler;
enum class Wake : std::uint8_t;

// What the embedding language says of an interposed call that would block.
enum class Consent : std::uint8_t {
    kNo,               // it must block the thread, as libc does
    kUnlessMutexHeld,  // the caller did not expect anything else to run: not while it holds a pthread mutex
    kYes,              // the caller has given the language's lock up, and so expects others to run meanwhile
};

struct SwitchHook {
    // `fiber` has just been given its stack, before its first run: lay out fiber.host_area(). Same rules as on_switch.
    void (*on_stack)(Fiber& fiber) = nullptr;
    // Runs on the side that is left: save the language's state of `from`, load that of `to`.
    void (*on_switch)(Fiber& from, Fiber& to) = nullptr;
    // Runs first on the side that continues, in the fiber `now`, except on a fiber's very first run (its body starts
    // it).
    void (*after_switch)(Fiber& now) = nullptr;

    // Around a reactor poll that may block: give the language's lock up, take it back.
    void (*idle_begin)(Fiber& self) = nullptr;
    void (*idle_end)(Fiber& self) = nullptr;

    // May an interposed call park `self` now? Null means kUnlessMutexHeld.
    Consent (*may_park)(Fiber& self) = nullptr;
    // Around the runtime's work inside an interposed call, which the language may have made with its lock given up.
    // enter takes the lock if need be and returns whether it did; leave gives it up again if `taken`.
    bool (*enter)(Fiber& self) = nullptr;
    void (*leave)(Fiber& self, bool taken) = nullptr;
    // An interposed call is about to fail with ECANCELED because `self` was cancelled (the lock is held).
    void (*cancelled_in_call)(Fiber& self) = nullptr;
    // The same for a wait for one of the interpreter's own locks, which will fail with EINTR. False: nothing can be
    // raised there; the wait goes on, and the next one after it is cancelled instead.
    bool (*cancelled_in_lock)(Fiber& self) = nullptr;

    // Called after poll() was interrupted: must the main fiber of this thread look at signals?
    bool (*signal_pending)(Scheduler& scheduler) = nullptr;

    // --- running out of stack (yellow_zone.hpp). Without `overflown` a yellow zone is as good as a guard.
    // In the fault handler, so async-signal-safe: the running fiber has used up its stack and gets the upper half of
    // the yellow zone to come to an end in; then, if that was not enough (`again`), its third quarter and its last.
    // False: nothing can be done for it.
    bool (*overflown)(Fiber& self, bool again) = nullptr;
    // What `overflown` started has not reached the fiber's code yet: its zone has to stay open.
    bool (*overflow_pending)(Fiber& self) = nullptr;
    // The fiber is being left in that state: what is pending goes with it; and comes back with it. Same rules as
    // on_switch.
    void (*overflow_leaves)(Fiber& self) = nullptr;
    void (*overflow_returns)(Fiber& self) = nullptr;
    // The zone has been closed again.
    void (*overflow_ended)(Fiber& self) = nullptr;
    // It has come to the lower half of its zone and makes an interposed call that may park (the lock is held, no
    // pthread mutex is): true ends the fiber here. It is parked and never continues; the language abandons it
    // (Scheduler::abandon) from another fiber.
    bool (*overflow_ends)(Fiber& self) = nullptr;
    // The process is about to die of it: writes the fiber's frames in that language to stderr. Async-signal-safe.
    void (*trace)(const Fiber& fiber) = nullptr;

    // Writes a description of the fiber for a report. Async-signal-safe. Returns the length.
    std::size_t (*describe)(const Fiber& fiber, char* buffer, std::size_t buffer_bytes) = nullptr;
};

void set_switch_hook(const SwitchHook& hook) noexcept;
const SwitchHook& switch_hook() noexcept;

}  // namespace culm::runtime
