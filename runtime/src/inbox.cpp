// The flag is written under the lock, so that the first arrival after a delivery always sees that it is the first; the
// reactor is notified under it too, so that it cannot be destroyed in between.
#include "inbox.hpp"
#include "scheduler_inside.hpp"

#include <cstdlib>
#include <new>
#include <utility>

namespace culm::runtime {

Inbox::~Inbox() {
    while (Call* call = calls_.pop()) std::free(call);
}

void Inbox::open(Reactor& reactor) noexcept {
    const std::lock_guard lock(mutex_);
    reactor_ = &reactor;
}

// Under the lock.
void Inbox::note_arrival() noexcept {
    const bool first = !pending_.exchange(true, std::memory_order_relaxed);
    if (first) reactor_->notify();
}

bool Inbox::add(Fiber& fiber) noexcept {
    const std::lock_guard lock(mutex_);
    if (!reactor_) return false;
    fibers_.push(fiber);
    note_arrival();
    return true;
}

bool Inbox::post(Scheduler::RemoteCall call, void* argument) noexcept {
    void* memory = std::malloc(sizeof(Call));
    if (!memory) return false;
    auto* made = new (memory) Call{nullptr, call, argument};
    const std::lock_guard lock(mutex_);
    if (!reactor_) {
        std::free(made);
        return false;
    }
    calls_.push(*made);
    note_arrival();
    return true;
}

void Inbox::nudge() noexcept {
    const std::lock_guard lock(mutex_);
    if (reactor_) reactor_->notify();
}

std::size_t Inbox::deliver(Scheduler& scheduler) noexcept {
    Fibers fibers;
    Calls calls;
    {
        const std::lock_guard lock(mutex_);
        pending_.store(false, std::memory_order_relaxed);
        std::swap(fibers, fibers_);
        std::swap(calls, calls_);
    }
    // From the answer on, another thread may add the fiber again, and it may be gone.
    while (Fiber* fiber = fibers.pop()) scheduler.inside().answer(*fiber);
    std::size_t count = 0;
    for (; Call* call = calls.pop(); ++count) {
        const Call made = *call;
        std::free(call);
        made.call(scheduler, made.argument);
    }
    return count;
}

bool Inbox::close_if_empty() noexcept {
    const std::lock_guard lock(mutex_);
    if (!calls_.empty() || !fibers_.empty()) return false;
    reactor_ = nullptr;
    return true;
}

void Inbox::close() noexcept {
    Fibers fibers;
    Calls calls;
    {
        const std::lock_guard lock(mutex_);
        reactor_ = nullptr;
        std::swap(fibers, fibers_);
        std::swap(calls, calls_);
        pending_.store(false, std::memory_order_relaxed);
    }
    while (Fiber* fiber = fibers.pop()) Scheduler::Inside::refuse(*fiber);
    while (Call* call = calls.pop()) std::free(call);
}

void Inbox::reset_after_fork(bool keep_contents) noexcept {
    const bool intact = mutex_.try_lock();
    if (intact) {
        mutex_.unlock();
    } else {
        new (&mutex_) std::mutex();
    }
    if (!intact || !keep_contents) {
        // It was asked by threads that do not exist here. A list that one of them was changing cannot be walked, so the
        // calls and the references to fibers are leaked.
        fibers_ = {};
        calls_ = {};
    }
    pending_.store(!calls_.empty() || !fibers_.empty(), std::memory_order_relaxed);
}

}  // namespace culm::runtime
