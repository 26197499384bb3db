// Ending a fiber alone that has run out of stack in code which no exception of the embedding language can stop.
//
// That is possible at an interposed call that the fiber makes from the lower half of its yellow zone, while it holds no
// pthread mutex. It is parked there and never continues: what its frames own is lost. An undertaker then has the
// language record the end (Overflows::bury). It is a fiber of its own that is kept ready, because a stack that has run
// out is no place to make one, and because recording the end runs code of the language.
// Invariant: each fiber that was handed over is buried once, unless it is given up with its thread before.
#pragma once

#include <atomic>

namespace culm::runtime {

class Fiber;
class Scheduler;

struct Undertaker {
    // Whether fibers are ended so; if not, the process ends with a report. Of the whole process. Thread-safe.
    static bool is_wanted() noexcept { return is_wanted_.load(std::memory_order_relaxed); }
    static void set_wanted(bool is_wanted) noexcept { is_wanted_.store(is_wanted, std::memory_order_relaxed); }

    // The rest is for the scheduler's own thread.

    // Makes the undertaker of this scheduler if one is wanted and there is none, or the last one was cancelled before
    // it had done its work. False: Overflows::make_undertaker has failed.
    static bool keep_ready(Scheduler& scheduler) noexcept;
    // The running fiber has run out of stack. True: it will be buried, and must park for ever. Little stack is needed.
    static bool take_over(Fiber& running) noexcept;
    // What the undertaker's body has to do: buries whoever was handed over. Afterwards there is no undertaker.
    static void bury_all(Scheduler& scheduler) noexcept;
    // The thread ends: the undertaker goes, and nobody is buried any more.
    static void dismiss(Scheduler& scheduler) noexcept;

private:
    static void let_go(Scheduler& scheduler) noexcept;

    static inline constinit std::atomic<bool> is_wanted_{false};
};

}  // namespace culm::runtime
