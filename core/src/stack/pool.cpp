// The per-thread pool of stacks: promises, the LIFO of free stacks, and what it keeps warm.
//
// A free stack is cold (nothing resident), warm (at most kWarmPages below base) or warm and deep (perhaps more below).
// Deep ones are discarded a batch at a time, so a stack that is used again at once never meets the kernel. Only pages
// below the warm ones go then; over the budget the stacks at the front, unused for longest, lose everything.
// Invariant: a shelf has room for every stack it has taken from the arena and not given back, so put() cannot fail.
#include "culm/stack_pool.hpp"

#include <algorithm>
#include <cassert>
#include <cerrno>

#include "culm/check.hpp"
#include "culm/kernel.hpp"
#include "culm/stack_arena.hpp"
#include "stack/capacity.hpp"
#include "stack/discard.hpp"

namespace culm {

namespace {

constexpr std::size_t kRefill = 32;                              // stacks asked from the arena at a time
constexpr std::size_t kRefillBytesMax = std::size_t{320} << 20;  // of limits, so that large classes come one by one
constexpr std::size_t kDeepMax = 64;                             // deep stacks before they are discarded in one batch
constexpr std::size_t kCoolBatch = 64;                           // warm stacks made cold at a time when over the budget
constexpr std::size_t kFreeMax = 4096;  // unpromised free stacks of a class before some go back to the arena
constexpr std::size_t kReturnBatch = 256;

std::size_t warm_limit_bytes() noexcept { return StackPool::kWarmPages * kernel_features().page_bytes; }

void expect_taken(std::size_t taken) noexcept {
    check(taken > 0,
          "StackPool::put() of a stack that was not taken from this pool: a pool belongs to one thread, so put() each "
          "stack back once, on the thread that took it");
}

std::size_t refill_count(StackClass size_class) noexcept {
    // Under strict overcommit a stack is charged when it is made, so none is made ahead.
    if (kernel_features().overcommit_mode == 2) return 1;
    return std::clamp<std::size_t>(kRefillBytesMax / stack_limit_bytes(size_class), 1, kRefill);
}

}  // namespace

StackPool::~StackPool() {
    for (std::size_t i = 0; i < kStackClassCount; ++i) {
        Shelf& shelf = shelves_[i];
        check(shelf.taken == 0,
              "a StackPool is destroyed while stacks that were taken from it are in use: put() each back first");
        return_coldest(shelf, static_cast<StackClass>(i), shelf.free.size());
    }
}

Result<void> StackPool::refill(Shelf& shelf, StackClass size_class, std::size_t count) noexcept {
    assert(count <= kRefill);
    if (!stack::ensure_capacity(shelf.free, shelf.free.size() + shelf.taken + count)) {
        return Error{ENOMEM, "list free stacks", "free memory, or run fewer fibers at once"};
    }
    Stack fresh[kRefill];
    if (Result<void> got = StackArena::of(size_class).take(std::span(fresh, count)); !got) return got;
    // The new stacks go on top and are taken first, although the others may be warm: each of the others is promised, so
    // that all of them will be used in any case.
    for (std::size_t i = count; i > 0; --i) {
        Entry entry;
        entry.base = fresh[i - 1].base;
        shelf.free.push_back(entry);
    }
    return {};
}

Result<void> StackPool::reserve(StackClass size_class) noexcept {
    Shelf& shelf = shelf_of(size_class);
    if (shelf.free.size() == shelf.reserved) {
        const std::size_t count = refill_count(size_class);
        Result<void> refilled = refill(shelf, size_class, count);
        if (!refilled && count > 1) refilled = refill(shelf, size_class, 1);
        if (!refilled) return refilled;
    }
    ++shelf.reserved;
    return {};
}

void StackPool::unreserve(StackClass size_class) noexcept {
    Shelf& shelf = shelf_of(size_class);
    check(shelf.reserved > 0,
          "StackPool::unreserve() without a promise: give back only what reserve() of this pool has promised");
    --shelf.reserved;
}

Stack StackPool::take(StackClass size_class) noexcept {
    Shelf& shelf = shelf_of(size_class);
    check(shelf.reserved > 0, "StackPool::take() without a promise: call reserve() first, once for each take()");
    assert(!shelf.free.empty());
    const Entry entry = shelf.free.back();
    shelf.free.pop_back();
    --shelf.reserved;
    ++shelf.taken;
    shelf.cold = std::min(shelf.cold, shelf.free.size());
    shelf.deep -= entry.is_deep ? 1 : 0;
    shelf.warm_bytes -= entry.warm_bytes;
    warm_bytes_ -= entry.warm_bytes;
    return {entry.base, size_class};
}

void StackPool::put(Stack stack, const std::byte* touched_limit) noexcept {
    Shelf& shelf = shelf_of(stack.size_class);
    expect_taken(shelf.taken);
    assert(shelf.free.size() < shelf.free.capacity());
    --shelf.taken;
    const std::size_t page_bytes = kernel_features().page_bytes;
    const std::size_t limit_bytes = stack_limit_bytes(stack.size_class);
    const std::size_t touched =
        touched_limit == nullptr ? limit_bytes : static_cast<std::size_t>(stack.base - touched_limit);
    const std::size_t touched_pages_bytes = (touched + page_bytes - 1) & ~(page_bytes - 1);

    Entry entry;
    entry.base = stack.base;
    entry.warm_bytes = static_cast<std::uint32_t>(std::min(touched_pages_bytes, warm_limit_bytes()));
    entry.is_deep = touched_pages_bytes > entry.warm_bytes;
    shelf.free.push_back(entry);
    shelf.deep += entry.is_deep ? 1 : 0;
    shelf.warm_bytes += entry.warm_bytes;
    warm_bytes_ += entry.warm_bytes;

    if (has_too_many_deep(shelf, limit_bytes)) discard_deep(shelf, stack.size_class);
    if (warm_bytes_ > warm_bytes_max) cool_warmest_shelf();
    if (shelf.free.size() - shelf.reserved > kFreeMax) return_coldest(shelf, stack.size_class, kReturnBatch);
}

void StackPool::put_cold(Stack stack) noexcept {
    Shelf& shelf = shelf_of(stack.size_class);
    expect_taken(shelf.taken);
    assert(shelf.free.size() < shelf.free.capacity());
    --shelf.taken;
    stack::DiscardBatch batch;
    batch.add(stack.limit(), stack.base);
    Entry entry;
    entry.base = stack.base;
    shelf.free.push_back(entry);
    if (shelf.free.size() - shelf.reserved > kFreeMax) return_coldest(shelf, stack.size_class, kReturnBatch);
}

// A batch is full, or the deep stacks would exceed the budget if each had been used to its limit. One is always
// allowed.
bool StackPool::has_too_many_deep(const Shelf& shelf, std::size_t limit_bytes) const noexcept {
    if (shelf.deep <= 1) return false;
    return shelf.deep > kDeepMax || shelf.deep * limit_bytes > warm_bytes_max;
}

// The free stacks hold more memory than the budget. The class whose stacks hold most gives some back, whichever class
// is in use at the moment.
void StackPool::cool_warmest_shelf() noexcept {
    const auto warmest = std::max_element(shelves_.begin(), shelves_.end(), [](const Shelf& one, const Shelf& other) {
        return one.warm_bytes < other.warm_bytes;
    });
    cool(*warmest, static_cast<StackClass>(warmest - shelves_.begin()), warmest->cold + kCoolBatch);
}

// Discards what deep stacks have below their warm pages.
void StackPool::discard_deep(Shelf& shelf, StackClass size_class) noexcept {
    stack::DiscardBatch batch;
    for (std::size_t i = shelf.free.size(); shelf.deep > 0; --i) {
        assert(i > 0);
        Entry& entry = shelf.free[i - 1];
        if (!entry.is_deep) continue;
        entry.is_deep = false;
        --shelf.deep;
        batch.add(Stack{entry.base, size_class}.limit(), entry.base - entry.warm_bytes);
    }
}

// Discards all memory of the first `count` stacks, the coldest.
void StackPool::cool(Shelf& shelf, StackClass size_class, std::size_t count) noexcept {
    count = std::min(count, shelf.free.size());
    stack::DiscardBatch batch;
    for (; shelf.cold < count; ++shelf.cold) {
        Entry& entry = shelf.free[shelf.cold];
        const Stack stack{entry.base, size_class};
        batch.add(entry.is_deep ? stack.limit() : stack.base - entry.warm_bytes, stack.base);
        shelf.deep -= entry.is_deep ? 1 : 0;
        shelf.warm_bytes -= entry.warm_bytes;
        warm_bytes_ -= entry.warm_bytes;
        entry.is_deep = false;
        entry.warm_bytes = 0;
    }
}

void StackPool::return_coldest(Shelf& shelf, StackClass size_class, std::size_t count) noexcept {
    cool(shelf, size_class, count);
    constexpr std::size_t kAtOnce = 64;
    Stack stacks[kAtOnce];
    for (std::size_t done = 0; done < count;) {
        const std::size_t batch = std::min(kAtOnce, count - done);
        for (std::size_t i = 0; i < batch; ++i) stacks[i] = {shelf.free[done + i].base, size_class};
        StackArena::of(size_class).give_back(std::span(stacks, batch));
        done += batch;
    }
    shelf.free.erase(shelf.free.begin(), shelf.free.begin() + static_cast<std::ptrdiff_t>(count));
    shelf.cold -= count;
    shelf.returned += count;
}

void StackPool::trim() noexcept {
    while (trim_some(kFreeMax)) {
    }
}

bool StackPool::trim_some(std::size_t stacks_max) noexcept {
    for (std::size_t i = 0; i < kStackClassCount; ++i) {
        Shelf& shelf = shelves_[i];
        const auto size_class = static_cast<StackClass>(i);
        if (shelf.cold < shelf.free.size()) {
            cool(shelf, size_class, shelf.cold + stacks_max);
            return true;
        }
        const std::size_t unpromised = shelf.free.size() - shelf.reserved;
        if (unpromised > kColdMax) {
            return_coldest(shelf, size_class, std::min(unpromised - kColdMax, stacks_max));
            return true;
        }
    }
    return false;
}

void StackPool::cool_to_budget() noexcept {
    while (warm_bytes_ > warm_bytes_max) cool_warmest_shelf();
}

PoolStatistics StackPool::statistics(StackClass size_class) const noexcept {
    const Shelf& shelf = shelves_[index_of(size_class)];
    PoolStatistics result;
    result.stacks_free = shelf.free.size();
    result.stacks_reserved = shelf.reserved;
    result.stacks_taken = shelf.taken;
    result.warm_bytes = shelf.warm_bytes;
    result.stacks_returned = shelf.returned;
    return result;
}

}  // namespace culm
