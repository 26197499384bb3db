// Root chunks, and the cache of freed chunks in front of the object arena allocator.
//
// The allocator is shared by all interpreters of the process, and those with a GIL of their own call it at the same
// time. Whoever finds the cache busy passes it by, so that nobody waits for it, not even in the child of a fork that
// was made while another thread held it. Invariant: the cache holds at most kCachedChunksMax blocks, all of
// kChunkBytes, all from the allocator below.
#include "interpreter/data_stack.hpp"

#include <atomic>
#include <cassert>

namespace culm::interpreter {

namespace {

// _PyStackChunk's size when the interpreter allocates it, unless one frame needs more. Arenas proper are 256 KB or 1
// MB.
constexpr std::size_t kChunkBytes = 16 * 1024;
constexpr std::size_t kCachedChunksMax = 256;  // 4 MB

struct FreeChunk {
    FreeChunk* next;
};

struct ChunkCache {
    PyObjectArenaAllocator below{};
    FreeChunk* free = nullptr;
    ChunkCacheStatistics statistics;
    std::atomic_flag busy = ATOMIC_FLAG_INIT;
};

constinit ChunkCache cache;

class TryLock {
public:
    TryLock() noexcept : held_(!cache.busy.test_and_set(std::memory_order_acquire)) {}
    ~TryLock() {
        if (held_) cache.busy.clear(std::memory_order_release);
    }
    TryLock(const TryLock&) = delete;
    TryLock& operator=(const TryLock&) = delete;
    explicit operator bool() const noexcept { return held_; }

private:
    bool held_;
};

void* take_cached_chunk() noexcept {
    const TryLock lock;
    if (!lock) return nullptr;
    FreeChunk* chunk = cache.free;
    if (chunk == nullptr) {
        ++cache.statistics.misses;
        return nullptr;
    }
    cache.free = chunk->next;
    --cache.statistics.cached;
    ++cache.statistics.hits;
    return chunk;
}

bool keep_chunk(void* memory) noexcept {
    const TryLock lock;
    if (!lock) return false;
    if (cache.statistics.cached == kCachedChunksMax) return false;
    cache.free = new (memory) FreeChunk{cache.free};
    ++cache.statistics.cached;
    return true;
}

void* allocate(void*, std::size_t bytes) {
    if (bytes == kChunkBytes) {
        if (void* chunk = take_cached_chunk()) return chunk;
    }
    return cache.below.alloc(cache.below.ctx, bytes);
}

void release(void*, void* memory, std::size_t bytes) {
    if (bytes == kChunkBytes && memory != nullptr && keep_chunk(memory)) return;
    cache.below.free(cache.below.ctx, memory, bytes);
}

}  // namespace

void install_chunk_cache() noexcept {
    if (cache.statistics.installed) return;
    PyObject_GetArenaAllocator(&cache.below);
    PyObjectArenaAllocator caching{nullptr, allocate, release};
    PyObject_SetArenaAllocator(&caching);
    cache.statistics.installed = true;
}

ChunkCacheStatistics chunk_cache_statistics() noexcept { return cache.statistics; }

_PyStackChunk* make_root_chunk(void* memory, std::size_t bytes) noexcept {
    assert(bytes > sizeof(_PyStackChunk));
    auto* chunk = static_cast<_PyStackChunk*>(memory);
    chunk->previous = nullptr;
    chunk->size = bytes;
    chunk->top = 0;
    return chunk;
}

void release_chunks_above(_PyStackChunk* root, _PyStackChunk* innermost) noexcept {
    PyObjectArenaAllocator allocator{};
    PyObject_GetArenaAllocator(&allocator);
    while (innermost != root && innermost != nullptr) {
        _PyStackChunk* chunk = innermost;
        innermost = chunk->previous;
        allocator.free(allocator.ctx, chunk, chunk->size);
    }
}

}  // namespace culm::interpreter
