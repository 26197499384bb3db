// The size of the fixed small stack, for tests: it depends on the processor, and what is tested must not.
#pragma once

#include <cstddef>

namespace culm::lab::strategies {

// Makes the strategy believe that a signal handler needs a stack of so many bytes. Must come before anything else asks
// the strategy for its traits, which are worked out once.
void override_signal_stack_bytes(std::size_t bytes) noexcept;

}  // namespace culm::lab::strategies
