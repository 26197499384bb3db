// A position in the caller's vector of buffers, for calls that must go on after a short count.
// Invariant: the caller's vector is never written to.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace culm::runtime::interpose {

class VectorCursor {
public:
    static constexpr int kWindow = 16;  // buffers handed to the kernel at once when going on

    VectorCursor(const iovec* vectors, std::size_t count) noexcept : vectors_(vectors), count_(count) {}

    std::size_t total() const noexcept {
        std::size_t sum = 0;
        for (std::size_t i = 0; i < count_; ++i) sum += vectors_[i].iov_len;
        return sum;
    }
    void advance(std::size_t bytes) noexcept {
        skip_ += bytes;
        while (index_ < count_ && skip_ >= vectors_[index_].iov_len) skip_ -= vectors_[index_++].iov_len;
    }
    bool done() const noexcept { return index_ >= count_; }

    // The buffers from here on, at most kWindow of them and at most bytes_max long in all. Returns how many.
    int window(iovec (&out)[kWindow], std::size_t bytes_max = SIZE_MAX) const noexcept {
        int used = 0;
        std::size_t skip = skip_;
        for (std::size_t i = index_; i < count_ && used < kWindow && bytes_max > 0; ++i, skip = 0) {
            const std::size_t bytes = std::min(vectors_[i].iov_len - skip, bytes_max);
            if (bytes == 0) continue;
            out[used++] = {static_cast<char*>(vectors_[i].iov_base) + skip, bytes};
            bytes_max -= bytes;
        }
        return used;
    }

private:
    const iovec* vectors_;
    std::size_t count_;
    std::size_t index_ = 0;
    std::size_t skip_ = 0;
};

}  // namespace culm::runtime::interpose
