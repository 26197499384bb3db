// What each implementation of the switch provides besides culm_context_switch itself: the first frame of a new stack.
//
// Invariant: the value returned is one that culm_context_switch may load, exactly as if the stack had been suspended.
#pragma once

#include <cstddef>

#include "culm/context.hpp"

namespace culm::context {

// Writes the frame of a suspended stack whose resumption calls entry(argument). Returns its stack pointer.
void* write_first_frame(std::byte* base, std::byte* limit, ContextEntry entry, void* argument) noexcept;

}  // namespace culm::context

// Where the first frame goes when its entry has returned, although it must not: says so and ends the process.
extern "C" [[noreturn]] void culm_context_entry_returned() noexcept;
