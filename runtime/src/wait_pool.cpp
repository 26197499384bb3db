// See wait_pool.hpp.
#include "wait_pool.hpp"

#include <cassert>
#include <cstdlib>
#include <new>

namespace culm::runtime {

WaitPool::~WaitPool() {
    for (ExtraWait* chunk : chunks_) std::free(chunk);
}

bool WaitPool::reserve(std::size_t count) noexcept {
    while (free_count_ < count) {
        if (!chunks_.reserve(chunks_.size() + 1)) return false;
        void* memory = std::malloc(kChunkRecords * sizeof(ExtraWait));
        if (!memory) return false;
        auto* chunk = static_cast<ExtraWait*>(memory);
        chunks_.push(chunk);
        for (std::size_t i = 0; i < kChunkRecords; ++i) give_back(*new (chunk + i) ExtraWait());
    }
    return true;
}

ExtraWait& WaitPool::take() noexcept {
    assert(free_count_ > 0);
    ExtraWait* wait = free_;
    free_ = wait->next;
    --free_count_;
    return *new (wait) ExtraWait();
}

void WaitPool::give_back(ExtraWait& wait) noexcept {
    assert(!wait.link.linked());
    wait.fiber = nullptr;
    wait.ticket = 0;
    wait.next = free_;
    free_ = &wait;
    ++free_count_;
}

}  // namespace culm::runtime
