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

// Adds up runs of present pages, which come in address order.
class Tally {
public:
    explicit Tally(const Stack& stack) noexcept : base_(stack.base) {}

    void add(const std::byte* start, std::size_t bytes) noexcept {
        if (result_.resident_bytes == 0) result_.depth_bytes = static_cast<std::size_t>(base_ - start);
        result_.resident_bytes += bytes;
    }
    Residency result() const noexcept { return result_; }

private:
    const std::byte* base_;
    Residency result_;
};

Result<Residency> failed(int error) noexcept {
    return Error{error, "read which pages of a stack are in memory", "mount /proc, or do without this number"};
}

Result<Residency> by_scan(const Stack& stack) noexcept {
    Tally tally(stack);
    os::Range runs[64];
    for (std::byte* from = stack.limit(); from < stack.base;) {
        const os::PresentRuns present = os::scan_present(from, stack.base, runs);
        if (present.error != 0) return failed(present.error);
        for (std::size_t i = 0; i < present.count; ++i) {
            tally.add(static_cast<const std::byte*>(runs[i].start), runs[i].bytes);
        }
        if (present.scanned_until <= from) return failed(EIO);
        from = present.scanned_until;
    }
    return tally.result();
}

// Page by page, `kAtOnce` words or bytes per system call.
template <class Word, class Read, class IsPresent>
Result<Residency> by_page(const Stack& stack, Read read, IsPresent is_present) noexcept {
    constexpr std::size_t kAtOnce = 1024 / sizeof(Word);
    const std::size_t page_bytes = kernel_features().page_bytes;
    Tally tally(stack);
    Word words[kAtOnce];
    for (const std::byte* from = stack.limit(); from < stack.base;) {
        const std::size_t left = static_cast<std::size_t>(stack.base - from) / page_bytes;
        const std::span<Word> batch(words, std::min(left, kAtOnce));
        if (const int error = read(from, page_bytes, batch)) return failed(error);
        for (const Word word : batch) {
            if (is_present(word)) tally.add(from, page_bytes);
            from += page_bytes;
        }
    }
    return tally.result();
}

std::byte* page_floor(const void* address) noexcept {
    const std::uintptr_t page_bytes = kernel_features().page_bytes;
    return reinterpret_cast<std::byte*>(reinterpret_cast<std::uintptr_t>(address) / page_bytes * page_bytes);
}

}  // namespace

Result<Residency> stack_residency(const Stack& stack) noexcept {
    if (kernel_features().pagemap_scan) {
        if (Result<Residency> found = by_scan(stack)) return found;
    }
    if (Result<Residency> found = by_page<std::uint64_t>(stack, os::read_pagemap, os::pagemap_entry_is_present)) {
        return found;
    }
    return by_page<unsigned char>(stack, os::read_mincore, [](unsigned char page) { return (page & 1) != 0; });
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
