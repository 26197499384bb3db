// A fiber that has run out of stack, from the embedding language's side: has it, and is it over.
//
// The fault handler opens the yellow zone of its stack if the language can do something about it
// (Overflows::begins). The zone is closed at the first opportunity after the stack pointer has come back above the
// limit: at the fiber's next switch or interposed call, wherever the language calls settle_overflow(), and at the
// latest when the stack goes back to the pool. Invariant: both functions are for the running fiber, on its own thread.
#pragma once

#include "culm/runtime/fiber.hpp"

namespace culm::runtime {

// Its zone is open.
inline bool has_overflown(const Fiber& running) noexcept { return running.yellow_zone() != YellowZone::kClosed; }

void settle_open_zone(Fiber& running) noexcept;

// Closes the zone if it is open and the stack has shrunk.
inline void settle_overflow(Fiber& running) noexcept {
    if (has_overflown(running)) [[unlikely]]
        settle_open_zone(running);
}

}  // namespace culm::runtime
