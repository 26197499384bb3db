// Reservations without access, cut into stacks that are opened from their bases downwards as faults ask for it.
//
//   | guard | closed ............... | open ......... base |   one slot
//
// A fault opens everything from its page (and a window below it) up to what is open already. So the open part has no
// holes, and a page that something was pushed to has everything above it open: that is why a system call made through a
// function may write into a buffer of its caller.
// Shared by the handler that opens them itself and the one that has a thread do it.
// Invariant: all from a slot's `open_from` to its base is accessible; the access changes before the word does.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "culm/stack_strategy.hpp"

namespace culm::strategy {

class FaultedSlots {
public:
    // What is open from the start, and how far below the faulting page a fault opens. Opening costs no memory, only a
    // system call, so a window saves faults.
    static constexpr std::size_t kWindowBytes = std::size_t{64} << 10;
    static constexpr std::size_t kGuardBytes = std::size_t{64} << 10;

    FaultedSlots() = default;

    Result<void> create(std::size_t limit_bytes, std::span<StrategyStack> stacks) noexcept;
    void destroy(std::span<const StrategyStack> stacks) noexcept;
    // Closes what suspended stacks do not use: memory, commit charge and access go. One call per stack.
    std::size_t shrink(std::span<const SuspendedStrategyStack> stacks) noexcept;

    // Async-signal-safe. Whether `address` lies between the limit and the base of a stack that exists.
    bool holds(const void* address) const noexcept;
    // Async-signal-safe. Opens what an access to `address` needs; false when it is not ours or the kernel refuses.
    bool open(const void* address) noexcept;
    const std::byte* open_from(const StrategyStack& stack) const noexcept;
    // Held around a fork, so that the child does not find a slot half made.
    void lock() noexcept { mutex_.lock(); }
    void unlock() noexcept { mutex_.unlock(); }
    std::uint64_t faults() const noexcept { return faults_.load(std::memory_order_relaxed); }

private:
    using OpenFrom = std::atomic<std::byte*>;  // null: the slot is not in use
    struct Chunk {
        std::byte* start = nullptr;
        std::size_t limit_bytes = 0;
        std::size_t slots = 0;
        OpenFrom* open_from = nullptr;  // one per slot
    };
    struct Place {
        std::byte* base = nullptr;
        std::size_t limit_bytes = 0;
        OpenFrom* open_from = nullptr;
    };
    struct Shelf {
        std::size_t limit_bytes = 0;
        std::size_t slots_next = 0;    // in the next chunk
        std::size_t slots_made = 0;    // in all chunks
        std::vector<std::byte*> free;  // bases
    };

    static constexpr std::size_t kChunksMax = 512;

    Place find(const void* address) const noexcept;
    Shelf* shelf_for(std::size_t limit_bytes) noexcept;
    Result<void> add_chunk(Shelf& shelf) noexcept;
    Result<void> open_new(std::byte* base, std::size_t limit_bytes) noexcept;

    std::mutex mutex_;  // guards shelves_ and the adding of chunks
    std::vector<Shelf> shelves_;
    std::atomic<std::size_t> chunk_count_{0};
    Chunk chunks_[kChunksMax];
    std::atomic<std::uint64_t> faults_{0};
};

}  // namespace culm::strategy
