// FdWait records, off the stacks, in chunks whose unused part is never touched.
//
// Each fiber is promised one record when it is made, so that waiting for one descriptor cannot fail; waiting for more
// asks for the others first.
// Invariant: capacity is at least promised fibers plus the extra records in use.
#pragma once

#include <cstddef>

#include "culm/runtime/reactor.hpp"
#include "flat_array.hpp"

namespace culm::runtime {

class FdWaitPool {
public:
    FdWaitPool() = default;
    ~FdWaitPool();
    FdWaitPool(const FdWaitPool&) = delete;
    FdWaitPool& operator=(const FdWaitPool&) = delete;

    // Promises one record, or `count` extra ones for a wait that is about to begin. False: no memory.
    [[nodiscard]] bool promise(std::size_t count = 1) noexcept;
    void return_promise(std::size_t count = 1) noexcept { promised_ -= count; }

    FdWait& take() noexcept;  // cannot fail within what was promised
    void give_back(FdWait& wait) noexcept;

    // Calls visit for each record in use.
    template <class Visit>
    void for_each_in_use(Visit visit) noexcept {
        for (std::size_t chunk = 0; chunk < chunks_.size(); ++chunk) {
            const std::size_t used = chunk + 1 < chunks_.size() ? kChunkRecords : used_in_last_;
            for (std::size_t i = 0; i < used; ++i) {
                if (chunks_[chunk][i].fiber) visit(chunks_[chunk][i]);
            }
        }
    }

private:
    static constexpr std::size_t kChunkRecords = 4096;  // one page touched for each: malloc's own words

    FlatArray<FdWait*> chunks_;
    FlatArray<FdWait*> reserve_;  // chunks not begun
    FdWait* free_ = nullptr;      // linked by next
    std::size_t used_in_last_ = kChunkRecords;
    std::size_t capacity_ = 0;
    std::size_t promised_ = 0;
};

}  // namespace culm::runtime
