// Residency and discarding of single stacks.
//
// Three ways to learn which pages are present, tried in order: PAGEMAP_SCAN (runs of present pages), pagemap (a word
// per page), mincore (a byte per page, no /proc needed). None of them touches the stack.
#include "culm/residency.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdint>

#include "culm/check.hpp"
#include "culm/kernel.hpp"
#include "os/os.hpp"
#include "stack/discard.hpp"

namespace culm {

namespace {

// Where a stack's runs of present pages go, which come in address order.
struct Visitor {
    VisitPresent visit;
    void* context;
    std::size_t runs = 0;

    void add(const std::byte* start, std::size_t bytes) noexcept {
        visit(context, start, bytes);
        ++runs;
    }
};

Result<void> failed(int error) noexcept {
    return Error{error, "read which pages of a stack are in memory", "mount /proc, or do without this number"};
}

Result<void> by_scan(const Stack& stack, Visitor& visitor) noexcept {
    os::Range runs[64];
    for (std::byte* from = stack.limit(); from < stack.base;) {
        const os::PresentRuns present = os::scan_present(from, stack.base, runs);
        if (present.error != 0) return failed(present.error);
        for (std::size_t i = 0; i < present.count; ++i) {
            visitor.add(static_cast<const std::byte*>(runs[i].start), runs[i].bytes);
        }
        if (present.scanned_until <= from) return failed(EIO);
        from = present.scanned_until;
    }
    return {};
}

// Page by page, `kAtOnce` words or bytes per system call.
template <class Word, class Read, class IsPresent>
Result<void> by_page(const Stack& stack, Visitor& visitor, Read read, IsPresent is_present) noexcept {
    constexpr std::size_t kAtOnce = 1024 / sizeof(Word);
    const std::size_t page_bytes = kernel_features().page_bytes;
    Word words[kAtOnce];
    for (const std::byte* from = stack.limit(); from < stack.base;) {
        const std::size_t left = static_cast<std::size_t>(stack.base - from) / page_bytes;
        const std::span<Word> batch(words, std::min(left, kAtOnce));
        if (const int error = read(from, page_bytes, batch)) return failed(error);
        for (const Word word : batch) {
            if (is_present(word)) visitor.add(from, page_bytes);
            from += page_bytes;
        }
    }
    return {};
}

// Adds up what is visited.
struct Tally {
    const std::byte* base;
    Residency result;

    static void add(void* context, const std::byte* start, std::size_t bytes) noexcept {
        auto& self = *static_cast<Tally*>(context);
        if (self.result.resident_bytes == 0) self.result.depth_bytes = static_cast<std::size_t>(self.base - start);
        self.result.resident_bytes += bytes;
    }
};

std::byte* page_floor(const void* address) noexcept {
    const std::uintptr_t page_bytes = kernel_features().page_bytes;
    return reinterpret_cast<std::byte*>(reinterpret_cast<std::uintptr_t>(address) & ~(page_bytes - 1));
}

// Neighbours with at most so much between them are scanned in one go: a yellow zone, a guard, and the page that makes a
// stride odd.
constexpr std::ptrdiff_t kGapBytesMax = std::ptrdiff_t{256} << 10;

// Adds each run of present pages to the use of the stack that it belongs to. Runs and stacks come in address order.
class UseCounter {
public:
    UseCounter(std::span<const SuspendedStack> stacks, std::span<SuspendedUse> uses) noexcept
        : stacks_(stacks), uses_(uses) {
        for (SuspendedUse& use : uses_) use = {};
    }

    void add(const std::byte* start, std::size_t bytes) noexcept {
        const std::byte* const end = start + bytes;
        while (start < end) {
            while (next_ < stacks_.size() && stacks_[next_].stack.base <= start) ++next_;
            if (next_ == stacks_.size()) return;
            const Stack stack = stacks_[next_].stack;
            start = std::max<const std::byte*>(start, stack.limit());
            if (start >= end) return;
            count(start, std::min<const std::byte*>(end, stack.base));
            start = stack.base;
        }
    }

private:
    void count(const std::byte* start, const std::byte* end) noexcept {
        SuspendedUse& use = uses_[next_];
        Residency& residency = use.residency;
        if (residency.resident_bytes == 0) {
            residency.depth_bytes = static_cast<std::size_t>(stacks_[next_].stack.base - start);
        }
        residency.resident_bytes += static_cast<std::size_t>(end - start);
        const std::byte* const kept = discard_end(stacks_[next_]);
        if (start < kept) use.excess_bytes += static_cast<std::size_t>(std::min(end, kept) - start);
    }

    std::span<const SuspendedStack> stacks_;
    std::span<SuspendedUse> uses_;
    std::size_t next_ = 0;
};

Result<void> sweep(std::span<const SuspendedStack> stacks, UseCounter& counter) noexcept {
    os::Range runs[64];
    std::byte* const end = stacks.back().stack.base;
    for (std::byte* from = stacks.front().stack.limit(); from < end;) {
        const os::PresentRuns present = os::scan_present(from, end, runs);
        if (present.error != 0) return failed(present.error);
        for (std::size_t i = 0; i < present.count; ++i) {
            counter.add(static_cast<const std::byte*>(runs[i].start), runs[i].bytes);
        }
        if (present.scanned_until <= from) return failed(EIO);
        from = present.scanned_until;
    }
    return {};
}

Result<void> sweep_all(std::span<const SuspendedStack> stacks, std::span<SuspendedUse> uses) noexcept {
    UseCounter counter(stacks, uses);
    for (std::size_t first = 0; first < stacks.size();) {
        std::size_t end = first + 1;
        while (end < stacks.size() && stacks[end].stack.limit() - stacks[end - 1].stack.base <= kGapBytesMax) ++end;
        if (Result<void> swept = sweep(stacks.subspan(first, end - first), counter); !swept) return swept;
        first = end;
    }
    return {};
}

}  // namespace

Result<void> visit_present(const Stack& stack, VisitPresent visit, void* context) noexcept {
    Visitor visitor{visit, context};
    Result<void> seen = Error{ENOSYS, "", ""};
    // A way that fails half-way is not followed by another: its runs would come twice.
    if (kernel_features().pagemap_scan) seen = by_scan(stack, visitor);
    if (!seen && visitor.runs == 0) {
        seen = by_page<std::uint64_t>(stack, visitor, os::read_pagemap, os::pagemap_entry_is_present);
    }
    if (!seen && visitor.runs == 0) {
        seen = by_page<unsigned char>(stack, visitor, os::read_mincore,
                                      [](unsigned char page) { return (page & 1) != 0; });
    }
    return seen;
}

Result<Residency> stack_residency(const Stack& stack) noexcept {
    Tally tally{stack.base, {}};
    if (Result<void> seen = visit_present(stack, &Tally::add, &tally); !seen) return seen.error();
    return tally.result;
}

Result<void> measure_suspended(std::span<const SuspendedStack> stacks, std::span<SuspendedUse> uses) noexcept {
    check(uses.size() >= stacks.size(), "measure_suspended() needs as many uses to fill in as there are stacks");
    if (stacks.empty()) return {};
    if (kernel_features().pagemap_scan) {
        if (Result<void> swept = sweep_all(stacks, uses.first(stacks.size()))) return swept;
    }
    UseCounter counter(stacks, uses.first(stacks.size()));
    for (const SuspendedStack& suspended : stacks) {
        auto add = [](void* context, const std::byte* start, std::size_t bytes) {
            static_cast<UseCounter*>(context)->add(start, bytes);
        };
        if (Result<void> seen = visit_present(suspended.stack, add, &counter); !seen) return seen;
    }
    return {};
}

std::byte* discard_end(const SuspendedStack& suspended) noexcept {
    std::byte* const limit = suspended.stack.limit();
    if (!suspended.stack.contains(suspended.sp)) return limit;
    // One spare page stays, so that the usual depth does not fault again at the next call.
    const auto* kept = static_cast<const std::byte*>(suspended.sp) - kRedZoneBytes;
    return std::max(page_floor(kept) - kernel_features().page_bytes, limit);
}

Discarded discard_below(std::span<const SuspendedStack> stacks) noexcept {
    stack::DiscardBatch batch;
    Discarded discarded;
    for (const SuspendedStack& suspended : stacks) {
        std::byte* const end = discard_end(suspended);
        std::byte* start = suspended.stack.limit();
        if (suspended.depth_bytes != 0) start = std::max(start, suspended.stack.base - suspended.depth_bytes);
        if (end <= start) continue;
        batch.add(start, end);
        ++discarded.ranges;
    }
    batch.flush();
    discarded.refused = batch.refused();
    return discarded;
}

}  // namespace culm
