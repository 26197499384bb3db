// The calls of the operating system that only the lab's strategies need: mappings that grow down, locked memory,
// userfaultfd, and a thread that answers faults. What they share with core's strategies is in core/src/os.
//
// Functions return 0 or an errno unless they say otherwise, decide nothing, and allocate nothing from the heap.
#pragma once

#include <atomic>
#include <cstddef>

#include "os/os.hpp"

namespace culm::lab::strategies {

using os::Range;

// --- mappings ---

// As reserve(), without access, at `wanted` if that is free, elsewhere if not. Null: anywhere.
std::byte* reserve_near(std::byte* wanted, std::size_t bytes, int& error) noexcept;
// Maps `range` readable, writable and growing downwards (MAP_GROWSDOWN). EEXIST when something lies there.
int map_growing_down(Range range) noexcept;
// How far such a mapping may grow (RLIMIT_STACK).
std::size_t growing_down_bytes_max() noexcept;
// Whether all of `range` is mapped, by anybody.
bool is_mapped(Range range) noexcept;

// --- locked memory ---

int lock_on_fault(Range range) noexcept;  // mlock2(MLOCK_ONFAULT)
void unlock_memory(Range range) noexcept;
int discard_locked(Range range) noexcept;  // MADV_DONTNEED_LOCKED, Linux 5.18

// --- userfaultfd ---

// A descriptor, or -1 with the reason in `error`. Faults of the kernel itself are reported too unless user_mode_only.
int open_userfaultfd(bool user_mode_only, int& error) noexcept;
int watch_missing_pages(int fd, Range range) noexcept;
// Waits for the next access to a missing page. False when the descriptor is of no use any more.
bool next_missing_page(int fd, void*& address) noexcept;
int fill_missing_page(int fd, void* page, std::size_t page_bytes) noexcept;  // with zeroes; wakes who waits
void close_descriptor(int fd) noexcept;

// --- a thread and how a signal handler talks to it ---

// Starts a detached thread that takes no signals.
int start_thread(void* (*run)(void*), void* argument) noexcept;
int open_pipe(int (&ends)[2]) noexcept;
// Whole or not at all; both async-signal-safe.
bool write_whole(int fd, const void* content, std::size_t bytes) noexcept;
bool read_whole(int fd, void* content, std::size_t bytes) noexcept;
// Waits until `word` is no longer `old`; async-signal-safe.
void wait_while_equal(std::atomic<int>& word, int old) noexcept;
void wake_waiters(std::atomic<int>& word) noexcept;

}  // namespace culm::lab::strategies
