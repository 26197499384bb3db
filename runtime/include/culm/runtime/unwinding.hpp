// Ending the fibers that are left when their OS thread ends, or the program.
//
// Each is told to unwind itself, through the role Unwinding of embedder.hpp, and gets time for its clean-ups, in which
// it may wait and others run. One that has not ended by then is told again, because it may have caught what it was
// told, or have begun another wait. Invariant: all of it takes a bounded time, whatever the fibers do.
#pragma once

#include "culm/runtime/embedder.hpp"

namespace culm::runtime {

// Ends all fibers of the calling thread's scheduler but the one that calls. Those that will not end are given up when
// the thread ends, so that whoever waits for them goes on; when the program ends they stay as they are. Switches.
void unwind_fibers(Scheduler& scheduler, Ending ending) noexcept;

}  // namespace culm::runtime
