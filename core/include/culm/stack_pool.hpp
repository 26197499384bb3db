// A per-thread LIFO of stacks in front of the arena: the stack used last is the warmest.
//
// A fiber reserves its stack when it is spawned and takes it when it starts, so that running out is an error of spawn,
// while fibers that start and finish one after the other all use the same warm stack.
// Used by one OS thread only; no locks.
// Invariant: of each class at least as many stacks are free here as are promised and not yet taken.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "culm/result.hpp"
#include "culm/stack.hpp"

namespace culm {

struct PoolStatistics {
    std::size_t stacks_free = 0;      // in the pool
    std::size_t stacks_reserved = 0;  // promised to fibers that have not started
    std::size_t stacks_taken = 0;     // in use
    std::size_t warm_bytes = 0;       // estimate of resident bytes on free stacks
    std::size_t stacks_returned = 0;  // given back to the arena since the pool was made
};

class StackPool {
public:
    StackPool() = default;
    ~StackPool();  // discards and returns every free stack to the arena; none may be taken
    StackPool(const StackPool&) = delete;
    StackPool& operator=(const StackPool&) = delete;

    // Promises one stack of the class. ENOMEM when none can be had; nothing has changed then.
    Result<void> reserve(StackClass size_class) noexcept;
    // Gives the promise back unused.
    void unreserve(StackClass size_class) noexcept;
    // Redeems a promise. Cannot fail. LIFO.
    Stack take(StackClass size_class) noexcept;
    // Takes the stack back. `touched_limit` is the lowest address that may have been used (nullptr: unknown).
    // Keeps at most kWarmPages below base per stack and at most warm_bytes_max in all; the rest is discarded in
    // batches.
    void put(Stack stack, const std::byte* touched_limit) noexcept;
    // The same for a stack that keeps nothing: whoever takes it next finds no page that others have touched.
    void put_cold(Stack stack) noexcept;
    // Discards the memory of all free stacks; those beyond kColdMax of a class that nobody was promised go back to the
    // arena.
    void trim() noexcept;
    // The same a little at a time: at most `stacks_max` stacks. False when there was nothing left to do.
    bool trim_some(std::size_t stacks_max) noexcept;
    // Discards what exceeds warm_bytes_max; for when that has been lowered.
    void cool_to_budget() noexcept;

    std::size_t warm_bytes() const noexcept { return warm_bytes_; }  // over all classes

    PoolStatistics statistics(StackClass size_class) const noexcept;

    static constexpr std::size_t kWarmPages = 4;
    static constexpr std::size_t kColdMax = 256;

    std::size_t warm_bytes_max = std::size_t{64} << 20;

private:
    struct Entry {
        std::byte* base = nullptr;
        std::uint32_t warm_bytes = 0;  // below base, perhaps resident; at most kWarmPages
        bool is_deep = false;          // below those, perhaps more
    };
    struct Shelf {
        std::vector<Entry> free;  // the last is the warmest and is taken first
        std::size_t reserved = 0;
        std::size_t taken = 0;
        std::size_t cold = 0;  // the first so many of `free` have nothing resident
        std::size_t deep = 0;  // so many of `free` are deep
        std::size_t warm_bytes = 0;
        std::size_t returned = 0;
    };

    Shelf& shelf_of(StackClass size_class) noexcept { return shelves_[index_of(size_class)]; }
    Result<void> refill(Shelf& shelf, StackClass size_class, std::size_t count) noexcept;
    bool has_too_many_deep(const Shelf& shelf, std::size_t limit_bytes) const noexcept;
    void discard_deep(Shelf& shelf, StackClass size_class) noexcept;
    void cool_warmest_shelf() noexcept;
    void cool(Shelf& shelf, StackClass size_class, std::size_t count) noexcept;
    void return_coldest(Shelf& shelf, StackClass size_class, std::size_t count) noexcept;

    std::array<Shelf, kStackClassCount> shelves_;
    std::size_t warm_bytes_ = 0;
};

}  // namespace culm
