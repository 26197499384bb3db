// What the rest of core must know about the CPU besides how to switch. One machine_*.cpp per CPU.
#pragma once

#include <cstddef>

namespace culm::machine {

// How far apart the compiler probes a large frame (-fstack-clash-protection). A guard must be at least as large.
std::size_t stack_probe_bytes() noexcept;

// The stack pointer and the program counter of the code that a signal interrupted; null where they cannot be told.
// Async-signal-safe.
const void* interrupted_sp(const void* signal_context) noexcept;
const void* interrupted_pc(const void* signal_context) noexcept;

}  // namespace culm::machine
