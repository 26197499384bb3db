// Where the chunks of all arenas are, for whoever has only an address: the fault handler and the tools.
//
// Entries are only ever added, and filled in before they are published, so readers take no lock.
// Invariant: what a reader finds here is a chunk that is reserved and will stay so.
#pragma once

#include <atomic>
#include <cstddef>

#include "culm/stack.hpp"

namespace culm::stack {

struct ChunkEntry {
    std::byte* start = nullptr;  // of the first guard
    std::size_t stride_bytes = 0;
    std::size_t guard_bytes = 0;   // below each stack, its yellow zone included
    std::size_t yellow_bytes = 0;  // of these, next to the stack
    StackClass size_class = kDefaultStackClass;
    std::atomic<std::size_t> carved{0};  // slots with a guard; written by the arena under its lock
    std::atomic<bool> is_published{false};
};

// A free entry, or null when the table is full. Thread-safe.
ChunkEntry* claim_chunk_entry() noexcept;
// In which slot an address lies, and in which part of it. An empty stack: in no slot.
enum class Part : std::uint8_t { kGuard, kYellowZone, kStack };
struct Place {
    Stack stack;
    Part part = Part::kGuard;
    std::size_t yellow_bytes = 0;
};
Place place_of(const void* address) noexcept;  // async-signal-safe
// Makes a filled-in entry visible.
void publish_chunk_entry(ChunkEntry& entry) noexcept;

}  // namespace culm::stack
