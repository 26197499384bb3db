// Chunks are aligned to their size, so that a block finds its slab by masking its own address.
#include "fiber_slab.hpp"

#include <cstdint>
#include <cstdlib>
#include <new>

namespace culm::runtime {

namespace {
constexpr std::size_t kChunkBytes = std::size_t{256} << 10;
constexpr std::size_t kLineBytes = 64;
constexpr std::size_t kBlockBytes = (sizeof(Fiber) + kLineBytes - 1) / kLineBytes * kLineBytes;
}  // namespace

struct FiberSlab::Chunk {
    FiberSlab* slab;
    Chunk* next_of_all;
};

Fiber* FiberSlab::allocate() noexcept {
    if (!free_) reclaim_remote();
    void* block = free_;
    if (block) {
        free_ = free_->next;
    } else {
        if (unused_ == unused_end_ && !add_chunk()) return nullptr;
        block = unused_;
        unused_ += kBlockBytes;
    }
    ++live_;
    return new (block) Fiber();
}

void FiberSlab::give_back(Fiber& fiber) noexcept {
    const auto address = reinterpret_cast<std::uintptr_t>(&fiber);
    FiberSlab* slab = reinterpret_cast<Chunk*>(address & ~(kChunkBytes - 1))->slab;
    fiber.~Fiber();
    auto* block = new (static_cast<void*>(&fiber)) FreeBlock{nullptr};
    if (slab == owned_) {
        block->next = slab->free_;
        slab->free_ = block;
        --slab->live_;
        return;
    }
    FreeBlock* first = slab->remote_.load(std::memory_order_relaxed);
    do {
        block->next = first;
    } while (!slab->remote_.compare_exchange_weak(first, block, std::memory_order_release, std::memory_order_relaxed));
}

std::size_t FiberSlab::live() noexcept {
    reclaim_remote();
    return live_;
}

void FiberSlab::reclaim_remote() noexcept {
    if (!remote_.load(std::memory_order_relaxed)) return;
    FreeBlock* block = remote_.exchange(nullptr, std::memory_order_acquire);
    while (block) {
        FreeBlock* next = block->next;
        block->next = free_;
        free_ = block;
        --live_;
        block = next;
    }
}

bool FiberSlab::holds(std::uintptr_t address) noexcept {
    const std::uintptr_t start = address & ~(kChunkBytes - 1);
    for (const Chunk* chunk = all_chunks_.load(std::memory_order_acquire); chunk; chunk = chunk->next_of_all) {
        if (reinterpret_cast<std::uintptr_t>(chunk) == start) return true;
    }
    return false;
}

bool FiberSlab::add_chunk() noexcept {
    void* memory = std::aligned_alloc(kChunkBytes, kChunkBytes);
    if (!memory) return false;
    auto* chunk = new (memory) Chunk{this, all_chunks_.load(std::memory_order_relaxed)};
    while (!all_chunks_.compare_exchange_weak(chunk->next_of_all, chunk, std::memory_order_release,
                                              std::memory_order_relaxed)) {
    }
    unused_ = static_cast<std::byte*>(memory) + kLineBytes;
    unused_end_ = unused_ + (kChunkBytes - kLineBytes) / kBlockBytes * kBlockBytes;
    return true;
}

}  // namespace culm::runtime
