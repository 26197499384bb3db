// What other OS threads want of the owning thread: fibers with requests, and calls.
//
// A fiber is linked through its control block, so that a wake, a cancel or a permit cannot fail for want of memory; a
// call brings a record of its own. Both are rare in comparison with switches, so that a mutex and two lists are fast
// enough. Whenever the owner looks at its timers it also reads one relaxed flag here. Invariant: what add() or post()
// accepted is delivered, unless the process forks or the thread ends first; nothing is accepted after close().
#pragma once

#include <atomic>
#include <cstddef>
#include <mutex>

#include "culm/runtime/scheduler.hpp"

namespace culm::runtime {

class Inbox {
public:
    Inbox() = default;
    ~Inbox();
    Inbox(const Inbox&) = delete;
    Inbox& operator=(const Inbox&) = delete;

    // Accepts from now on; `reactor` is notified when the first thing arrives.
    void open(Reactor& reactor) noexcept;
    // The fiber has requests and is not in the inbox yet; a reference to it goes with it. False: closed. Any thread.
    bool add(Fiber& fiber) noexcept;
    // False: closed, or no memory. Any thread.
    bool post(Scheduler::RemoteCall call, void* argument) noexcept;
    // Wakes the owner if it is idle; it is asked for nothing. Any thread.
    void nudge() noexcept;
    bool pending() const noexcept { return pending_.load(std::memory_order_relaxed); }
    // Answers the requests and makes the calls that are there, in order. Owner only. Returns how many calls.
    std::size_t deliver(Scheduler& scheduler) noexcept;
    // Refuses everything further. False, and nothing changes, if something waits.
    bool close_if_empty() noexcept;
    // Refuses everything further, and tells those whose requests wait that they will not be answered.
    void close() noexcept;
    // In the child of fork: another thread may have held the lock, and is gone. Keeps what is there if it is intact.
    void reset_after_fork(bool keep_contents) noexcept;

private:
    struct Call {
        Call* next;
        Scheduler::RemoteCall call;
        void* argument;
    };
    // First in, first out.
    template <class T, T* T::*Next>
    struct Chain {
        T* first = nullptr;
        T* last = nullptr;
        bool empty() const noexcept { return first == nullptr; }
        void push(T& item) noexcept {
            item.*Next = nullptr;
            (last ? last->*Next : first) = &item;
            last = &item;
        }
        T* pop() noexcept {
            T* item = first;
            if (!item) return nullptr;
            first = item->*Next;
            if (!first) last = nullptr;
            return item;
        }
    };
    using Fibers = Chain<Fiber, &Fiber::next_request_>;
    using Calls = Chain<Call, &Call::next>;

    void note_arrival() noexcept;

    std::mutex mutex_;
    Fibers fibers_;               // under mutex_
    Calls calls_;                 // under mutex_
    Reactor* reactor_ = nullptr;  // under mutex_; null: closed
    std::atomic<bool> pending_{false};
};

}  // namespace culm::runtime
