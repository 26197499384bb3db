// Stack arenas: reserving chunks, carving slots from them, and the list of free slots.
//
// Slots are carved in address order and in batches that double, so that the first stack is cheap and the hundred
// thousandth is one of 512 guarded by one system call. A chunk that does not fit (RLIMIT_AS, strict overcommit) is
// tried again at half the size, down to a single slot.
// Invariant: the free list has room for every slot ever carved, so that giving back cannot fail.
#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstdint>
#include <mutex>
#include <new>
#include <vector>

#include "context/machine.hpp"
#include "culm/check.hpp"
#include "culm/kernel.hpp"
#include "culm/stack_arena.hpp"
#include "culm/testing/overrides.hpp"
#include "os/os.hpp"
#include "stack/capacity.hpp"
#include "stack/chunk_table.hpp"
#include "stack/guard.hpp"

namespace culm {

namespace {

constexpr std::size_t kCarveBatchMin = 16;
constexpr std::size_t kCarveBatchMax = 512;
// What one page of page-table entries covers with 4 KB pages.
constexpr std::uintptr_t kPageTableSpanBytes = std::uintptr_t{2} << 20;

struct ChunkSizes {
    std::size_t slots_first;
    std::size_t slots_max;
    std::size_t guard_bytes;
    std::size_t yellow_bytes;
};
constexpr std::size_t kSmallGuardBytes = std::size_t{4} << 10;
constexpr std::size_t kLargeGuardBytes = std::size_t{64} << 10;
constexpr std::size_t kSmallYellowBytes = std::size_t{16} << 10;
constexpr std::size_t kLargeYellowBytes = std::size_t{64} << 10;
constexpr ChunkSizes kChunkSizes[kStackClassCount] = {
    {4096, 65536, kSmallGuardBytes, kSmallYellowBytes}, {4096, 32768, kSmallGuardBytes, kSmallYellowBytes},
    {4096, 16384, kLargeGuardBytes, kLargeYellowBytes}, {1024, 4096, kLargeGuardBytes, kLargeYellowBytes},
    {64, 1024, kLargeGuardBytes, kLargeYellowBytes},    {8, 64, kLargeGuardBytes, kLargeYellowBytes},
};

std::size_t round_up(std::size_t bytes, std::size_t unit) noexcept { return (bytes + unit - 1) / unit * unit; }

constinit std::atomic<StrideRule> stride_rule{StrideRule::kOddPages};

// In whole pages, so that the upper half of the zone can be opened by itself.
std::size_t yellow_bytes_for(StackClass size_class) noexcept {
    const std::size_t wanted = kChunkSizes[static_cast<std::size_t>(size_class)].yellow_bytes;
    return round_up(wanted, 2 * kernel_features().page_bytes);
}

// Limit plus yellow zone plus guard, in an odd number of pages unless the rule was overridden.
std::size_t stride_bytes_for(StackClass size_class) noexcept {
    const std::size_t page_bytes = kernel_features().page_bytes;
    const std::size_t guard_bytes =
        std::max(kChunkSizes[static_cast<std::size_t>(size_class)].guard_bytes, machine::stack_probe_bytes());
    const std::size_t closed_bytes = guard_bytes + yellow_bytes_for(size_class);
    const std::size_t pages = round_up(stack_limit_bytes(size_class) + closed_bytes, page_bytes) / page_bytes;
    if (stride_rule.load(std::memory_order_relaxed) == StrideRule::kPowerOfTwo)
        return std::bit_ceil(pages) * page_bytes;
    return (pages | 1) * page_bytes;
}

}  // namespace

struct StackArena::State {
    Result<void> take(std::span<Stack> out) noexcept;
    void give_back(std::span<const Stack> stacks) noexcept;
    ArenaStatistics statistics() noexcept;

    std::mutex mutex;  // guards everything below
    StackClass size_class = kDefaultStackClass;
    std::vector<std::byte*> free;        // bases; the last is handed out first
    stack::ChunkEntry* chunk = nullptr;  // the one being carved
    std::size_t chunk_slots = 0;         // in it
    bool chunk_is_accessible = true;
    std::size_t chunk_slots_next = 0;
    std::size_t carve_batch_next = kCarveBatchMin;
    ArenaStatistics counts;
    os::Range scratch[kCarveBatchMax];

private:
    void lay_out() noexcept;
    Result<void> reserve_chunk() noexcept;
    std::byte* reserve_slots(std::size_t& slots, int& error) noexcept;
    Result<void> carve(std::size_t wanted) noexcept;
};

// All arenas of the process, built once and never destroyed: threads that end late still return stacks.
struct StackArena::All {
    All() noexcept;
    static All& instance() noexcept;
    static void lock_all() noexcept;
    static void unlock_all() noexcept;

    State states[kStackClassCount];
    StackArena arenas[kStackClassCount];
};

StackArena::All::All() noexcept {
    for (std::size_t i = 0; i < kStackClassCount; ++i) {
        states[i].size_class = static_cast<StackClass>(i);
        arenas[i].state_ = &states[i];
    }
    // The lock of every arena is held across a fork, so that the child finds none half changed by another thread. If
    // memory runs out for these hooks, a fork in such a moment leaves that arena broken in the child.
    static_cast<void>(os::at_fork(lock_all, unlock_all, unlock_all));
}

StackArena::All& StackArena::All::instance() noexcept {
    alignas(All) static std::byte storage[sizeof(All)];
    static All* const all = new (storage) All;
    return *all;
}

void StackArena::All::lock_all() noexcept {
    for (State& state : instance().states) state.mutex.lock();
}

void StackArena::All::unlock_all() noexcept {
    for (State& state : instance().states) state.mutex.unlock();
}

// The sizes follow from what the kernel has, which is known at the first stack and not before.
void StackArena::State::lay_out() noexcept {
    if (counts.stride_bytes != 0) return;
    counts.stride_bytes = stride_bytes_for(size_class);
    counts.guard_bytes = counts.stride_bytes - stack_limit_bytes(size_class);
    counts.yellow_bytes = yellow_bytes_for(size_class);
    chunk_slots_next = kChunkSizes[static_cast<std::size_t>(size_class)].slots_first;
}

// Reserves `slots` slots and a pad page; halves `slots` until it fits. Where it had to be halved, address space is
// short and the rest of the program needs some too: then only a quarter of what fits is taken.
std::byte* StackArena::State::reserve_slots(std::size_t& slots, int& error) noexcept {
    const auto access = chunk_is_accessible ? os::Access::kReadWrite : os::Access::kNone;
    const std::size_t page_bytes = kernel_features().page_bytes;
    bool is_short = false;
    for (;;) {
        const std::size_t bytes = slots * counts.stride_bytes + page_bytes;
        std::byte* start = os::reserve(bytes, access, error);
        if (start != nullptr && (!is_short || slots < 4)) return start;
        if (start != nullptr) {
            os::release({start, bytes});
            slots /= 4;
            is_short = false;
            continue;
        }
        // EAGAIN: after mlockall(MCL_FUTURE) every new mapping is locked, and RLIMIT_MEMLOCK counts its addresses even
        // though no memory lies behind them.
        if ((error != ENOMEM && error != EAGAIN) || slots == 1) return nullptr;
        is_short = true;
        slots /= 2;
    }
}

Result<void> StackArena::State::reserve_chunk() noexcept {
    // NORESERVE means nothing under strict overcommit: reserve without access and open each stack when it is carved.
    chunk_is_accessible = kernel_features().overcommit_mode != 2;
    std::size_t slots = chunk_slots_next;
    int error = 0;
    std::byte* start = reserve_slots(slots, error);
    if (start == nullptr) {
        return Error{
            error == EAGAIN ? ENOMEM : error, "reserve address space for stacks",
            error == EAGAIN
                ? "memory is locked by mlockall(): use a smaller stack limit, or raise the limit of it (ulimit -l)"
                : "use a smaller stack limit, run fewer fibers at once, or raise the address-space limit (ulimit -v)"};
    }
    const std::size_t page_bytes = kernel_features().page_bytes;
    const os::Range whole{start, slots * counts.stride_bytes + page_bytes};
    stack::ChunkEntry* entry = stack::claim_chunk_entry();
    if (entry == nullptr) {
        os::release(whole);
        return Error{ENOMEM, "reserve address space for stacks",
                     "the address space is too fragmented for more stacks: raise the address-space limit (ulimit -v)"};
    }
    os::forbid_huge_pages(whole);
    os::leave_out_of_core_dumps(whole);

    // The pad goes to whichever end keeps the first base off a boundary between two page-table pages.
    const bool pad_first = (reinterpret_cast<std::uintptr_t>(start) + counts.stride_bytes) % kPageTableSpanBytes == 0;
    entry->start = pad_first ? start + page_bytes : start;
    entry->stride_bytes = counts.stride_bytes;
    entry->guard_bytes = counts.guard_bytes;
    entry->yellow_bytes = counts.yellow_bytes;
    entry->size_class = size_class;
    stack::publish_chunk_entry(*entry);

    chunk = entry;
    chunk_slots = slots;
    counts.chunks += 1;
    counts.reserved_bytes += whole.bytes;
    const std::size_t slots_max = kChunkSizes[static_cast<std::size_t>(size_class)].slots_max;
    chunk_slots_next = std::min(slots * 2, slots_max);
    return {};
}

// Makes at least one more slot, up to `wanted` or the usual batch, whichever is more.
Result<void> StackArena::State::carve(std::size_t wanted) noexcept {
    const std::size_t carved = chunk == nullptr ? 0 : chunk->carved.load(std::memory_order_relaxed);
    if (carved == chunk_slots) {
        if (Result<void> reserved = reserve_chunk(); !reserved) return reserved;
        return carve(wanted);  // once: a new chunk has slots
    }
    // Opening a stack under strict overcommit charges its whole limit, so nothing is made ahead there.
    std::size_t batch = chunk_is_accessible ? std::max(wanted, carve_batch_next) : wanted;
    batch = std::min({batch, chunk_slots - carved, kCarveBatchMax});
    if (!stack::ensure_capacity(free, counts.slots_carved + batch)) {
        return Error{ENOMEM, "list free stacks", "free memory, or run fewer fibers at once"};
    }

    stack::SlotRun run;
    run.start = chunk->start + carved * counts.stride_bytes;
    run.stride_bytes = counts.stride_bytes;
    run.guard_bytes = counts.guard_bytes;
    run.slots = batch;
    run.is_accessible = chunk_is_accessible;
    const Result<std::size_t> guarded = stack::guard_slots(run, scratch);
    if (!guarded) return guarded.error();
    const std::size_t made = guarded.value();

    chunk->carved.store(carved + made, std::memory_order_release);
    counts.slots_carved += made;
    carve_batch_next = std::min(carve_batch_next * 2, kCarveBatchMax);
    // Highest first, so that neighbours are handed out one after the other and share page-table pages.
    for (std::size_t slot = made; slot > 0; --slot) free.push_back(run.start + slot * counts.stride_bytes);
    return {};
}

Result<void> StackArena::State::take(std::span<Stack> out) noexcept {
    const std::lock_guard lock(mutex);
    lay_out();
    while (free.size() < out.size()) {
        if (Result<void> carved = carve(out.size() - free.size()); !carved) return carved;
    }
    for (Stack& stack : out) {
        stack = {free.back(), size_class};
        free.pop_back();
    }
    return {};
}

void StackArena::State::give_back(std::span<const Stack> stacks) noexcept {
    const std::lock_guard lock(mutex);
    for (const Stack& stack : stacks) {
        check(stack.size_class == size_class,
              "StackArena::give_back() of a stack of another class: give it to the arena of its own class");
        check(free.size() < counts.slots_carved,
              "StackArena::give_back() of more stacks than were taken: give each back once, to the arena it came from");
        free.push_back(stack.base);
    }
}

ArenaStatistics StackArena::State::statistics() noexcept {
    const std::lock_guard lock(mutex);
    lay_out();
    ArenaStatistics result = counts;
    result.slots_free = free.size();
    return result;
}

void override_stride_rule(StrideRule rule) noexcept { stride_rule.store(rule, std::memory_order_relaxed); }

StackArena& StackArena::of(StackClass size_class) noexcept { return All::instance().arenas[index_of(size_class)]; }

Result<void> StackArena::take(std::span<Stack> out) noexcept { return state_->take(out); }

void StackArena::give_back(std::span<const Stack> stacks) noexcept { state_->give_back(stacks); }

ArenaStatistics StackArena::statistics() const noexcept { return state_->statistics(); }

}  // namespace culm
