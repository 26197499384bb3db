// Records for fibers that wait for several things at once, in chunks whose memory is never given back.
//
// A fiber that waits for one thing uses the record in its control block and never comes here.
// Invariant: a record that is not in use belongs to no fiber and is linked nowhere but in the list of free ones.
#pragma once

#include <cstddef>

#include "culm/runtime/wait.hpp"
#include "flat_array.hpp"

namespace culm::runtime {

class WaitPool {
public:
    WaitPool() = default;
    ~WaitPool();
    WaitPool(const WaitPool&) = delete;
    WaitPool& operator=(const WaitPool&) = delete;

    // Room for that many records more: the next calls of take() cannot fail. False: no memory.
    [[nodiscard]] bool reserve(std::size_t count) noexcept;
    ExtraWait& take() noexcept;
    void give_back(ExtraWait& wait) noexcept;

private:
    static constexpr std::size_t kChunkRecords = 64;

    FlatArray<ExtraWait*> chunks_;
    ExtraWait* free_ = nullptr;
    std::size_t free_count_ = 0;
};

}  // namespace culm::runtime
