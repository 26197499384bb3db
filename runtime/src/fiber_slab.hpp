// Where control blocks come from: dense chunks, one slab per scheduler, a free list in front.
//
// Only the owning OS thread allocates. Any thread may give back: the owner's blocks go to a plain list, everybody
// else's to a lock-free stack that the owner empties when its own list is dry. A slab outlives its scheduler for as
// long as one of its blocks is held; the registry keeps it and hands it to a later scheduler. Invariant: live() is zero
// only when no block is out; memory of a slab is never given back to the system.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "culm/runtime/fiber.hpp"

namespace culm::runtime {

class FiberSlab {
public:
    FiberSlab() = default;
    FiberSlab(const FiberSlab&) = delete;
    FiberSlab& operator=(const FiberSlab&) = delete;

    // A block in state kNew with one reference, or null without memory. Owner only.
    Fiber* allocate() noexcept;
    // Destroys the block. Any thread.
    static void give_back(Fiber& fiber) noexcept;
    // Blocks that are out. Owner only, or under the registry's lock when there is no owner.
    std::size_t live() noexcept;

    // The address lies in a block of some slab, live or not. Any thread, lock-free, async-signal-safe.
    static bool holds(std::uintptr_t address) noexcept;

    // Says that the calling thread owns this slab (null: none).
    static void set_owned(FiberSlab* slab) noexcept { owned_ = slab; }

private:
    struct FreeBlock {
        FreeBlock* next;
    };
    struct Chunk;

    bool add_chunk() noexcept;
    void reclaim_remote() noexcept;

    static inline constinit thread_local FiberSlab* owned_ = nullptr;
    static inline constinit std::atomic<Chunk*> all_chunks_{nullptr};  // of every slab, newest first; only grows

    FreeBlock* free_ = nullptr;                // owner
    std::atomic<FreeBlock*> remote_{nullptr};  // pushed by any thread, emptied as a whole by the owner
    std::byte* unused_ = nullptr;              // rest of the newest chunk, never handed out yet
    std::byte* unused_end_ = nullptr;
    std::size_t live_ = 0;  // owner; counts blocks on remote_ as live until they are collected
};

}  // namespace culm::runtime
