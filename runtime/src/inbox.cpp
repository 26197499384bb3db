// The flag is written under the lock, so that the first post after a delivery always sees that it is the first; the
// reactor is notified under it too, so that it cannot be destroyed in between.
#include "inbox.hpp"

#include <new>

namespace culm::runtime {

void Inbox::open(Reactor& reactor) noexcept {
    const std::lock_guard lock(mutex_);
    reactor_ = &reactor;
}

bool Inbox::post(Scheduler::RemoteCall call, void* argument) noexcept {
    const std::lock_guard lock(mutex_);
    if (!reactor_) return false;
    if (!calls_.reserve(calls_.size() + 1)) return false;
    calls_.push({call, argument});
    const bool first = !pending_.exchange(true, std::memory_order_relaxed);
    if (first) reactor_->notify();
    return true;
}

void Inbox::nudge() noexcept {
    const std::lock_guard lock(mutex_);
    if (reactor_) reactor_->notify();
}

std::size_t Inbox::deliver(Scheduler& scheduler) noexcept {
    {
        const std::lock_guard lock(mutex_);
        pending_.store(false, std::memory_order_relaxed);
        delivering_.swap(calls_);
    }
    const std::size_t count = delivering_.size();
    for (const Call& call : delivering_) call.call(scheduler, call.argument);
    delivering_.clear();
    return count;
}

bool Inbox::close_if_empty() noexcept {
    const std::lock_guard lock(mutex_);
    if (!calls_.empty()) return false;
    reactor_ = nullptr;
    return true;
}

void Inbox::close() noexcept {
    const std::lock_guard lock(mutex_);
    reactor_ = nullptr;
    calls_.clear();
    pending_.store(false, std::memory_order_relaxed);
}

void Inbox::reset_after_fork(bool keep_calls) noexcept {
    const bool intact = mutex_.try_lock();
    if (intact) {
        mutex_.unlock();
    } else {
        new (&mutex_) std::mutex();
        new (&calls_) FlatArray<Call>();  // the half-written array is leaked
    }
    if (!keep_calls) calls_.clear();
    pending_.store(!calls_.empty(), std::memory_order_relaxed);
}

}  // namespace culm::runtime
