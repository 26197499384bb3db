// Calls that other OS threads want to be made on the owning thread.
//
// A post is rare next to a switch: a mutex and an array do. The owner reads one relaxed flag per look.
// Invariant: a call accepted by post() is made by deliver(), unless the process forks or the thread ends first; nothing
// is accepted after close().
#pragma once

#include <atomic>
#include <cstddef>
#include <mutex>

#include "culm/runtime/scheduler.hpp"
#include "flat_array.hpp"

namespace culm::runtime {

class Inbox {
public:
    // Accepts calls from now on; `reactor` is notified when the first arrives.
    void open(Reactor& reactor) noexcept;
    // False: closed, or no memory. Any thread.
    bool post(Scheduler::RemoteCall call, void* argument) noexcept;
    // Makes the owner look around, without a call. Any thread.
    void nudge() noexcept;
    bool pending() const noexcept { return pending_.load(std::memory_order_relaxed); }
    // Makes the calls that are there, in order. Owner only. Returns how many.
    std::size_t deliver(Scheduler& scheduler) noexcept;
    // Refuses all further calls. False, and nothing changes, if calls are waiting.
    bool close_if_empty() noexcept;
    // Refuses all further calls and drops those that wait.
    void close() noexcept;
    // In the child of fork: another thread may have held the lock, and is gone. Keeps the calls if they are intact.
    void reset_after_fork(bool keep_calls) noexcept;

private:
    struct Call {
        Scheduler::RemoteCall call;
        void* argument;
    };

    std::mutex mutex_;
    FlatArray<Call> calls_;       // under mutex_
    Reactor* reactor_ = nullptr;  // under mutex_; null: closed
    std::atomic<bool> pending_{false};
    FlatArray<Call> delivering_;  // owner; swapped with calls_, so that no call is made under the lock
};

}  // namespace culm::runtime
