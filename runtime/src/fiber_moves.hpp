// The one function that changes a fiber's state, inline because each switch does it twice.
// Invariant: nothing else writes Fiber::state_.
#pragma once

#include <cassert>

#include "culm/runtime/fiber.hpp"

namespace culm::runtime {

inline void Fiber::move_to(FiberState next) noexcept {
    assert(is_legal_move(state_, next));
    __atomic_store_n(&state_, next, __ATOMIC_RELAXED);  // other threads look whether it has finished
}

}  // namespace culm::runtime
