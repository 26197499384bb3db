// Discarding in batches. What the kernel refuses to discard, because it is locked, stays in memory; nothing else is
// wrong with it.
#include "stack/discard.hpp"

#include <span>

#include "culm/kernel.hpp"

namespace culm {

void stack::DiscardBatch::add(std::byte* start, std::byte* end) noexcept {
    if (start >= end) return;
    ranges_[count_++] = {start, static_cast<std::size_t>(end - start)};
    if (count_ == kRangesMax) flush();
}

void stack::DiscardBatch::flush() noexcept {
    const std::span<const os::Range> ranges(ranges_, count_);
    count_ = 0;
    const KernelFeatures& features = kernel_features();
    std::size_t done = 0;
    if (features.vectored_discard && ranges.size() > 1) done = os::discard_all(ranges, features.self_pidfd).ranges;
    // A vector stops at the first range that is refused; the others may still go.
    for (const os::Range& range : ranges.subspan(done)) refused_ += os::discard(range) == 0 ? 0 : 1;
}

}  // namespace culm
