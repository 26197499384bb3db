// The only door to the operating system: memory, signals and /proc. One set of sources per system behind it.
//
// Functions return 0 or an errno unless they say otherwise, keep no state but cached descriptors, and decide nothing:
// policy is the caller's.
// Invariant: no function here allocates from the heap or throws.
#pragma once

#include <csignal>
#include <cstddef>
#include <cstdint>
#include <span>

namespace culm::os {

// A range of whole pages.
struct Range {
    void* start = nullptr;
    std::size_t bytes = 0;
};

// How many ranges, from the first, were dealt with; `error` is why not the next one.
struct Progress {
    std::size_t ranges = 0;
    int error = 0;
};

// --- memory ---------------------------------------------------------------------------------------------------------

enum class Access : std::uint8_t { kNone, kReadWrite };

// Address space without memory behind it. Null on failure, with the reason in `error`.
std::byte* reserve(std::size_t bytes, Access access, int& error) noexcept;
// Gives address space back. Not subject to fault injection: nobody could do anything about a failure.
void release(Range range) noexcept;
int set_access(Range range, Access access) noexcept;
// Makes part of a reservation as good as new: no access, no memory, no commit charge. One call.
int reserve_again(Range range) noexcept;

int install_guard(Range range) noexcept;  // a marker in the page table; no mapping of its own
int remove_guard(Range range) noexcept;   // nothing to do where there is no marker
int discard(Range range) noexcept;        // drops the contents; the next touch finds zeroes
// The same for many ranges with few calls into the kernel. `by_self_pidfd`: the kernel knows PIDFD_SELF_PROCESS.
Progress install_guards(std::span<const Range> ranges, bool by_self_pidfd) noexcept;
Progress discard_all(std::span<const Range> ranges, bool by_self_pidfd) noexcept;

// Hints; a kernel that does not know them needs none.
void forbid_huge_pages(Range range) noexcept;
void leave_out_of_core_dumps(Range range) noexcept;

// --- which pages are present ----------------------------------------------------------------------------------------

// The runs of present pages from the start of a range on, in order. What lies beyond scanned_until was not looked at,
// because there was no room for more runs.
struct PresentRuns {
    std::size_t count = 0;
    std::byte* scanned_until = nullptr;
    int error = 0;
};
PresentRuns scan_present(std::byte* start, std::byte* end, std::span<Range> runs) noexcept;  // PAGEMAP_SCAN
int read_pagemap(const std::byte* start, std::size_t page_bytes, std::span<std::uint64_t> entries) noexcept;
bool pagemap_entry_is_present(std::uint64_t entry) noexcept;
int read_mincore(const std::byte* start, std::size_t page_bytes, std::span<unsigned char> pages) noexcept;

// --- the process ----------------------------------------------------------------------------------------------------

std::size_t page_bytes() noexcept;
std::size_t mapping_count() noexcept;  // mappings of this process; 0 when /proc is missing
// The number in a file such as /proc/sys/vm/max_map_count, or `otherwise`.
long read_number(const char* path, long otherwise) noexcept;
// The beginning of a small file. Returns its length; 0 when it is empty or cannot be read.
std::size_t read_text(const char* path, std::span<char> text) noexcept;
// Whether the kernel can write to `address`. A system call is asked, which fails where an access would be a signal.
bool kernel_can_write(void* address) noexcept;
// Calls `prepare` before every fork, `parent` and `child` after it in either; null for nothing to do.
int at_fork(void (*prepare)(), void (*parent)(), void (*child)()) noexcept;

// --- signals --------------------------------------------------------------------------------------------------------

using SignalHandler = void (*)(int signal, siginfo_t* what, void* context);
// A handler on the alternate stack, with that signal blocked meanwhile.
int install_signal_handler(int signal, SignalHandler handler, struct sigaction& previous) noexcept;
bool is_signal_handler(int signal, SignalHandler handler) noexcept;
void put_back_signal_handler(int signal, const struct sigaction& previous) noexcept;
// Async-signal-safe: does what `previous` would have done, the default action included. The signal is being handled.
void hand_on_signal(int signal, siginfo_t* what, void* context, const struct sigaction& previous) noexcept;
// Whether the signal was raised by code of ours that ran on the alternate stack, which is to say by another handler.
bool was_raised_by_handler(const siginfo_t* what, const void* context, const void* interrupted_sp) noexcept;
// The kernel could not write a handler's frame to the stack of the code it interrupted; what it says of other faults
// that have no address looks the same.
bool may_be_lost_signal(const siginfo_t* what) noexcept;
std::size_t signal_frame_bytes() noexcept;  // the most that the kernel writes to a stack for a handler
// Once, before write_backtrace_to_stderr() can be used in a signal handler.
void prepare_backtrace() noexcept;
// The calling thread's C frames, from the one at `from_pc` outwards if it is among them. Async-signal-safe.
void write_backtrace_to_stderr(const void* from_pc, std::size_t frames_max) noexcept;
void write_to_stderr(const char* text, std::size_t bytes) noexcept;  // async-signal-safe

std::size_t signal_stack_bytes() noexcept;  // of the calling thread; 0: none
int set_signal_stack(Range range, stack_t& previous) noexcept;
// Puts `previous` back if the calling thread still uses `range`.
void restore_signal_stack(Range range, const stack_t& previous) noexcept;

}  // namespace culm::os
