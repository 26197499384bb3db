// A chunk is begun only when all before it are used up: what is promised but never used stays untouched memory.
#include "fd_wait_pool.hpp"

#include <cassert>
#include <cstdlib>
#include <new>

namespace culm::runtime {

FdWaitPool::~FdWaitPool() {
    for (FdWait* chunk : chunks_) std::free(chunk);
    for (FdWait* chunk : reserve_) std::free(chunk);
}

bool FdWaitPool::promise(std::size_t count) noexcept {
    while (capacity_ < promised_ + count) {
        const std::size_t chunks = chunks_.size() + reserve_.size() + 1;
        if (!chunks_.reserve(chunks) || !reserve_.reserve(chunks)) return false;
        void* chunk = std::malloc(kChunkRecords * sizeof(FdWait));
        if (!chunk) return false;
        reserve_.push(static_cast<FdWait*>(chunk));
        capacity_ += kChunkRecords;
    }
    promised_ += count;
    return true;
}

FdWait& FdWaitPool::take() noexcept {
    if (FdWait* wait = free_) {
        free_ = wait->next;
        return *new (wait) FdWait();
    }
    if (used_in_last_ == kChunkRecords) {
        assert(!reserve_.empty());
        chunks_.push(reserve_.pop());
        used_in_last_ = 0;
    }
    return *new (&chunks_[chunks_.size() - 1][used_in_last_++]) FdWait();
}

void FdWaitPool::give_back(FdWait& wait) noexcept {
    assert(!wait.link.linked());
    wait.fiber = nullptr;
    wait.next = free_;
    free_ = &wait;
}

}  // namespace culm::runtime
