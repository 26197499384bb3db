// Residency and discarding of single stacks.
//
// Three ways to learn which pages are present, tried in order: PAGEMAP_SCAN (runs of present pages), pagemap (a word
// per page), mincore (a byte per page, no /proc needed). None of them touches the stack.
#include "culm/residency.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdint>

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
    return reinterpret_cast<std::byte*>(reinterpret_cast<std::uintptr_t>(address) / page_bytes * page_bytes);
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

std::size_t discard_below(std::span<const SuspendedStack> stacks) noexcept {
    const std::size_t page_bytes = kernel_features().page_bytes;
    stack::DiscardBatch batch;
    std::size_t ranges = 0;
    for (const SuspendedStack& suspended : stacks) {
        if (!suspended.stack.contains(suspended.sp)) continue;
        // One spare page stays, so that the usual depth does not fault again at the next call.
        const auto* kept = static_cast<const std::byte*>(suspended.sp) - kRedZoneBytes;
        std::byte* end = page_floor(kept) - page_bytes;
        if (end <= suspended.stack.limit()) continue;
        batch.add(suspended.stack.limit(), end);
        ++ranges;
    }
    return ranges;
}

}  // namespace culm
