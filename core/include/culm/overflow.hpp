// Running out of stack. The yellow zone below a stack's limit gives its owner a second chance; the guard below that
// ends the process, with a report.
//
// A SIGSEGV/SIGBUS handler runs on an alternate stack (installed per OS thread). If the code that faulted runs on the
// stack whose yellow zone it touched, and the owner agrees, the zone is opened and the code goes on: the owner has
// until the end of the zone to make it stop. If it touched the guard, or the owner does not agree, one report goes to
// stderr (who, limit, used bytes, what to do, and what it was doing); then, and for every other fault, the handler
// hands on to the handler that was there before, or to the default action. Invariant: everything the handler calls is
// async-signal-safe.
#pragma once

#include <cstddef>
#include <cstdint>

#include "culm/result.hpp"
#include "culm/stack.hpp"

namespace culm {

// Writes a description of whoever runs on `stack` into `buffer` (no terminator needed), returns its length.
// Called inside the signal handler: must be async-signal-safe.
using DescribeStackOwner = std::size_t (*)(const Stack& stack, char* buffer, std::size_t buffer_bytes);

// How much of a yellow zone is open, from the limit down. An overflow opens it in two steps, so that the owner can try
// something else when the first half was not enough.
enum class YellowZone : std::uint8_t {
    kClosed,
    kHalfOpen,  // the stack has overflown: the upper half is open
    kOpen,      // the whole zone is
    kLent,      // the whole zone is, for an owner that asked for it near the limit; nothing has overflown
};

// What the owner of stacks is asked inside the signal handler: must be async-signal-safe. Every member may be null.
struct StackOwner {
    DescribeStackOwner describe = nullptr;
    // The code running on `stack` has come to where `wanted` is needed. True: open it; the owner knows from here on.
    // False also if it has been opened before.
    bool (*may_open)(const Stack& stack, YellowZone wanted) = nullptr;
    // The process is about to die: writes what the owner of `stack` was doing to file descriptor 2.
    void (*trace)(const Stack& stack) = nullptr;
};

// Installs the handler for the process (idempotent) and keeps the previous actions for handing on. A null member leaves
// what an earlier call has set.
Result<void> install_overflow_handler(const StackOwner& owner) noexcept;
inline Result<void> install_overflow_handler(DescribeStackOwner describe) noexcept {
    return install_overflow_handler(StackOwner{.describe = describe});
}

// Takes the handler away again, so that somebody else can put one in its place and have ours installed on top of that.
// Until then an overflow is a plain SIGSEGV. False: it is not there, or hidden under another one, and stays as it is.
bool remove_overflow_handler() noexcept;

// Opens the zone of a stack, or closes it again, which drops its contents. False: the kernel refused, or the stack is
// not from an arena and has no zone. Async-signal-safe.
bool open_yellow_zone(const Stack& stack, YellowZone wanted = YellowZone::kOpen) noexcept;
bool close_yellow_zone(const Stack& stack) noexcept;

// Bytes between the stack's limit and its guard; 0 for a stack that is not from an arena. Async-signal-safe.
std::size_t yellow_zone_bytes(const Stack& stack) noexcept;
// Writes the report that the handler would, for the code that runs on `stack` and calls this: who, how much, where.
// C frames are left out where less than 8 KB are left to look at them in.
void report_running_out(const Stack& stack) noexcept;

// A stack whose zone could not be closed is given back all the same: whoever takes it next asks, and is responsible for
// closing it if the answer is true. Thread-safe.
void leave_yellow_zone_open(const Stack& stack) noexcept;
bool take_over_open_yellow_zone(const Stack& stack) noexcept;

// Gives the calling OS thread an alternate signal stack of at least 64 KB, unless it already has one of that size.
// Every thread that runs fibers calls it. Freed by release_thread_signal_stack().
Result<void> ensure_thread_signal_stack() noexcept;
void release_thread_signal_stack() noexcept;

}  // namespace culm
