// Collects ranges to discard and gives them to the kernel many at a time.
//
// One call per range costs a TLB shoot-down each while other threads run; 128 ranges per call are as good as 512, and
// their list is small enough to lie on a fiber's stack.
// Invariant: what was added has been given to the kernel when the object is gone.
#pragma once

#include <cstddef>

#include "os/os.hpp"

namespace culm::stack {

class DiscardBatch {
public:
    DiscardBatch() = default;
    ~DiscardBatch() { flush(); }
    DiscardBatch(const DiscardBatch&) = delete;
    DiscardBatch& operator=(const DiscardBatch&) = delete;

    // Both page aligned; nothing happens when there is nothing between them.
    void add(std::byte* start, std::byte* end) noexcept;
    void flush() noexcept;
    std::size_t refused() const noexcept { return refused_; }  // ranges that the kernel kept, so far

private:
    static constexpr std::size_t kRangesMax = 128;
    os::Range ranges_[kRangesMax];
    std::size_t count_ = 0;
    std::size_t refused_ = 0;
};

}  // namespace culm::stack
