// Running into a guard: recognised by address, reported by name, then the process dies as it would have.
//
// A SIGSEGV/SIGBUS handler runs on an alternate stack (installed per OS thread). If the faulting address lies in the
// guard of a stack of ours, it prints one report (fiber name, limit, used bytes, what to do) to stderr; then, and for
// every other fault, it hands on to the handler that was there before, or to the default action.
// Invariant: everything the handler calls is async-signal-safe.
#pragma once

#include <cstddef>

#include "culm/result.hpp"
#include "culm/stack.hpp"

namespace culm {

// Writes a description of whoever runs on `stack` into `buffer` (no terminator needed), returns its length.
// Called inside the signal handler: must be async-signal-safe.
using DescribeStackOwner = std::size_t (*)(const Stack& stack, char* buffer, std::size_t buffer_bytes);

// Installs the handler for the process (idempotent) and keeps the previous actions for handing on. Null leaves the
// description as it is.
Result<void> install_overflow_handler(DescribeStackOwner describe) noexcept;

// Gives the calling OS thread an alternate signal stack of at least 64 KB, unless it already has one of that size.
// Every thread that runs fibers calls it. Freed by release_thread_signal_stack().
Result<void> ensure_thread_signal_stack() noexcept;
void release_thread_signal_stack() noexcept;

}  // namespace culm
