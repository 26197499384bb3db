// What is written to stderr when a stack has overflown for good.
// Invariant: async-signal-safe, once prepare_overflow_report() has been called.
#pragma once

#include <cstddef>

#include "culm/overflow.hpp"

namespace culm::stack {

// Loads what the report needs, which cannot be loaded inside a signal handler.
void prepare_overflow_report() noexcept;

struct Overflow {
    Stack stack;                         // that ran out
    const std::byte* touched = nullptr;  // the address of the fault
    const std::byte* sp = nullptr;       // where the code that faulted was on its stack; null: not known on this CPU
    const void* pc = nullptr;            // where it was in its text; null: not known
    bool is_fault = true;  // false: no fault; the code on the stack has come to `touched` and asks for this
    bool has_room = true;  // to look at the C frames
};

void report_overflow(const Overflow& overflow, const StackOwner& owner) noexcept;

}  // namespace culm::stack
