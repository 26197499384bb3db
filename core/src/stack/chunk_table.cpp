// The table of chunks and the look-ups by address.
//
// A look-up walks the table: a few hundred entries for a million stacks, and it is done once per crash or per question
// of a tool.
#include "stack/chunk_table.hpp"

#include <cstdint>

#include "culm/stack_arena.hpp"

namespace culm {

namespace {

// Enough for 64 million small stacks in full chunks, and for 16384 where only single stacks fit. Untouched entries
// occupy no memory.
constexpr std::size_t kChunksMax = 16384;

constinit stack::ChunkEntry entries[kChunksMax];
constinit std::atomic<std::size_t> claimed{0};

}  // namespace

stack::Place stack::place_of(const void* address) noexcept {
    const auto where = reinterpret_cast<std::uintptr_t>(address);
    const std::size_t count = claimed.load(std::memory_order_acquire);
    for (std::size_t i = 0; i < count; ++i) {
        const ChunkEntry& entry = entries[i];
        if (!entry.is_published.load(std::memory_order_acquire)) continue;
        const auto start = reinterpret_cast<std::uintptr_t>(entry.start);
        if (where < start) continue;
        const std::size_t slot = (where - start) / entry.stride_bytes;
        if (slot >= entry.carved.load(std::memory_order_acquire)) continue;
        const std::size_t offset = (where - start) % entry.stride_bytes;
        Place place{
            {entry.start + (slot + 1) * entry.stride_bytes, entry.size_class}, Part::kStack, entry.yellow_bytes};
        if (offset < entry.guard_bytes) place.part = Part::kYellowZone;
        if (offset < entry.guard_bytes - entry.yellow_bytes) place.part = Part::kGuard;
        return place;
    }
    return {};
}

stack::ChunkEntry* stack::claim_chunk_entry() noexcept {
    std::size_t index = claimed.load(std::memory_order_relaxed);
    do {
        if (index == kChunksMax) return nullptr;
    } while (!claimed.compare_exchange_weak(index, index + 1, std::memory_order_acq_rel));
    return &entries[index];
}

void stack::publish_chunk_entry(ChunkEntry& entry) noexcept {
    entry.is_published.store(true, std::memory_order_release);
}

Stack stack_of_guard_address(const void* address) noexcept {
    const stack::Place place = stack::place_of(address);
    return place.part == stack::Part::kStack ? Stack{} : place.stack;
}

Stack stack_of_address(const void* address) noexcept {
    const stack::Place place = stack::place_of(address);
    return place.part == stack::Part::kStack ? place.stack : Stack{};
}

}  // namespace culm
