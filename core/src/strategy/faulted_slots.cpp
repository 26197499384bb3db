// Slots that are opened by faults: making and closing them, and the look-up by address that the handler does.
//
// Chunks are only ever added, so the look-up takes no lock. Invariant: chunks_[i] is complete before the count covers
// it.
#include "strategy/faulted_slots.hpp"

#include <algorithm>
#include <cerrno>
#include <new>

#include "stack/capacity.hpp"
#include "strategy/strategy.hpp"

namespace culm::strategy {

namespace {

constexpr std::size_t kSlotsFirst = 16;
constexpr std::size_t kSlotsMax = 1024;

std::size_t stride_bytes(std::size_t limit_bytes) noexcept { return limit_bytes + FaultedSlots::kGuardBytes; }

os::Range between(const std::byte* start, const std::byte* end) noexcept {
    return {const_cast<std::byte*>(start), static_cast<std::size_t>(end - start)};
}

// Closes a range: it loses its memory, its commit charge and its access. That may need one more mapping; where the
// process has none left, the range stays accessible and loses its memory only. True: it is closed.
bool close(os::Range range) noexcept {
    const bool closed = os::reserve_again(range) == 0;
    if (closed) {
        os::forbid_huge_pages(range);
    } else {
        static_cast<void>(os::discard(range));
    }
    return closed;
}

}  // namespace

FaultedSlots::Place FaultedSlots::find(const void* address) const noexcept {
    const auto where = reinterpret_cast<std::uintptr_t>(address);
    const std::size_t count = chunk_count_.load(std::memory_order_acquire);
    for (std::size_t i = 0; i < count; ++i) {
        const Chunk& chunk = chunks_[i];
        const auto start = reinterpret_cast<std::uintptr_t>(chunk.start);
        const std::size_t stride = stride_bytes(chunk.limit_bytes);
        if (where < start || where >= start + chunk.slots * stride) continue;
        const std::size_t slot = (where - start) / stride;
        const bool in_guard = (where - start) % stride < kGuardBytes;
        if (in_guard) return {};
        return {chunk.start + (slot + 1) * stride, chunk.limit_bytes, &chunk.open_from[slot]};
    }
    return {};
}

bool FaultedSlots::holds(const void* address) const noexcept {
    const Place place = find(address);
    return place.base != nullptr && place.open_from->load(std::memory_order_acquire) != nullptr;
}

bool FaultedSlots::open(const void* address) noexcept {
    const Place place = find(address);
    if (place.base == nullptr) return false;
    std::byte* open_from = place.open_from->load(std::memory_order_acquire);
    if (open_from == nullptr) return false;
    std::byte* page = page_floor(address);
    if (page >= open_from) {
        // It is open already. Usually another thread has opened it meanwhile, and the access will succeed when it is
        // made again. An access that no opening can help, such as running code on a stack, faults again at once: so an
        // address that comes twice in a row is refused the second time.
        thread_local const void* let_through = nullptr;
        return std::exchange(let_through, address) != address;
    }
    std::byte* limit = place.base - place.limit_bytes;
    const auto spare = static_cast<std::size_t>(page - limit);
    std::byte* wanted = page - std::min(spare, kWindowBytes - kernel_features().page_bytes);
    if (os::set_access(between(wanted, open_from), os::Access::kReadWrite) != 0) return false;
    // The word is only ever lowered: where another thread has opened more meanwhile, its value stays.
    while (wanted < open_from && !place.open_from->compare_exchange_weak(open_from, wanted)) {
    }
    faults_.fetch_add(1, std::memory_order_relaxed);
    return true;
}

const std::byte* FaultedSlots::open_from(const StrategyStack& stack) const noexcept {
    const Place place = find(stack.base - 1);
    return place.base == nullptr ? nullptr : place.open_from->load(std::memory_order_acquire);
}

FaultedSlots::Shelf* FaultedSlots::shelf_for(std::size_t limit_bytes) noexcept {
    const auto found = std::find_if(shelves_.begin(), shelves_.end(),
                                    [limit_bytes](const Shelf& shelf) { return shelf.limit_bytes == limit_bytes; });
    if (found != shelves_.end()) return &*found;
    if (!stack::ensure_capacity(shelves_, shelves_.size() + 1)) return nullptr;
    Shelf& added = shelves_.emplace_back();
    added.limit_bytes = limit_bytes;
    added.slots_next = kSlotsFirst;
    return &added;
}

Result<void> FaultedSlots::add_chunk(Shelf& shelf) noexcept {
    const std::size_t count = chunk_count_.load(std::memory_order_relaxed);
    if (count == kChunksMax) return Error{ENOMEM, "make a stack", "use fewer different limits, or fewer stacks"};
    const std::size_t slots = shelf.slots_next;
    if (!stack::ensure_capacity(shelf.free, shelf.slots_made + slots)) return no_stack(ENOMEM);
    int error = 0;
    const std::size_t bytes = slots * stride_bytes(shelf.limit_bytes);
    std::byte* start = os::reserve(bytes, os::Access::kNone, error);
    if (start == nullptr) {
        if (slots == 1 || error != ENOMEM) return no_stack(error);
        shelf.slots_next = slots / 2;
        return add_chunk(shelf);
    }
    std::byte* words =
        os::reserve(round_up(slots * sizeof(OpenFrom), kernel_features().page_bytes), os::Access::kReadWrite, error);
    if (words == nullptr) {
        os::release({start, bytes});
        return no_stack(error);
    }
    os::forbid_huge_pages({start, bytes});
    Chunk& chunk = chunks_[count];
    chunk.start = start;
    chunk.limit_bytes = shelf.limit_bytes;
    chunk.slots = slots;
    chunk.open_from = reinterpret_cast<OpenFrom*>(words);
    for (std::size_t i = 0; i < slots; ++i) new (&chunk.open_from[i]) OpenFrom(nullptr);
    chunk_count_.store(count + 1, std::memory_order_release);
    for (std::size_t i = 0; i < slots; ++i) shelf.free.push_back(start + (i + 1) * stride_bytes(shelf.limit_bytes));
    shelf.slots_made += slots;
    shelf.slots_next = std::min(slots * 2, kSlotsMax);
    return {};
}

Result<void> FaultedSlots::open_new(std::byte* base, std::size_t limit_bytes) noexcept {
    std::byte* open_from = base - std::min(limit_bytes, kWindowBytes);
    if (const int error = os::set_access(between(open_from, base), os::Access::kReadWrite)) return no_stack(error);
    find(base - 1).open_from->store(open_from, std::memory_order_release);
    return {};
}

Result<void> FaultedSlots::create(std::size_t limit_bytes, std::span<StrategyStack> stacks) noexcept {
    std::size_t made = 0;
    Result<void> outcome;
    {
        const std::lock_guard lock(mutex_);
        Shelf* shelf = shelf_for(limit_bytes);
        if (shelf == nullptr) return no_stack(ENOMEM);
        for (; made < stacks.size() && outcome; ++made) {
            if (shelf->free.empty()) outcome = add_chunk(*shelf);
            if (!outcome) break;
            std::byte* base = shelf->free.back();
            outcome = open_new(base, limit_bytes);
            if (!outcome) break;
            shelf->free.pop_back();
            stacks[made] = {base, limit_bytes, nullptr};
        }
    }
    if (!outcome) destroy(stacks.first(made));
    return outcome;
}

void FaultedSlots::destroy(std::span<const StrategyStack> stacks) noexcept {
    const std::lock_guard lock(mutex_);
    for (const StrategyStack& stack : stacks) {
        OpenFrom& open_from = *find(stack.base - 1).open_from;
        close(between(open_from.load(std::memory_order_relaxed), stack.base));
        open_from.store(nullptr, std::memory_order_release);
        shelf_for(stack.limit_bytes)->free.push_back(stack.base);
    }
}

std::size_t FaultedSlots::shrink(std::span<const SuspendedStrategyStack> stacks) noexcept {
    std::size_t ranges = 0;
    for (const SuspendedStrategyStack& suspended : stacks) {
        std::byte* end = discard_end(suspended);
        if (end == nullptr) continue;
        const StrategyStack& stack = *suspended.stack;
        OpenFrom& open_from = *find(stack.base - 1).open_from;
        const std::byte* from = open_from.load(std::memory_order_relaxed);
        if (from >= end) continue;
        ++ranges;
        // The first window stays open, so that a stack that is not deep costs one call and no later fault.
        std::byte* window = stack.base - std::min(stack.limit_bytes, kWindowBytes);
        std::byte* closed_to = std::min(end, window);
        if (from < closed_to && close(between(from, closed_to))) open_from.store(closed_to, std::memory_order_release);
        const std::byte* left = std::max<const std::byte*>(from, closed_to);
        if (left < end) static_cast<void>(os::discard(between(left, end)));
    }
    return ranges;
}

}  // namespace culm::strategy
