// How other OS threads reach the scheduler of a thread on which fibers are parked by hooks.
//
// A Home stands for one OS thread. It holds a reference to one of the scheduler's control blocks, and a scheduler,
// closed or not, exists for as long as one of its blocks is held; so it can always be posted to. Homes are never freed:
// a thread that ends leaves its own for the next one. Invariant: keeper_ changes only under mutex_, and only the owning
// thread changes it.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

#include "culm/runtime/scheduler.hpp"

namespace culm::runtime::interpose {

class Home {
public:
    static constexpr std::uint16_t kNobody = 0;
    static constexpr std::uint16_t kSeveral = UINT16_MAX;

    // The calling thread's.
    static Home& current() noexcept;
    static std::uint16_t current_id() noexcept;  // kNobody if no fiber of this thread ever parked in a hook

    std::uint16_t id() const noexcept { return id_; }

    // Owner: a fiber is about to be parked by a hook.
    void enter(Scheduler& scheduler) noexcept;

    // Any thread: Scheduler::post to the thread's scheduler. False: the call will not run.
    bool post(Scheduler::RemoteCall call, void* argument) noexcept;

    // The descriptor is about to be closed: fibers parked for it on the threads that `id` means, except the calling
    // one, return EBADF.
    static void announce_close(int fd, std::uint16_t id) noexcept;

    // In the child of fork: only the calling thread is left.
    static void after_fork_in_child() noexcept;

private:
    friend struct HomeOfThread;
    static Home* claim() noexcept;
    void keep(Fiber* keeper) noexcept;
    void forget_later(int fd) noexcept;
    void forget_announced(Scheduler& scheduler) noexcept;

    static constexpr unsigned kAnnouncedMax = 64;

    std::atomic<bool> taken_{false};
    std::atomic<bool> has_announced_{false};
    std::uint16_t id_ = kNobody;  // this and next_ are written before the home is published
    Home* next_ = nullptr;
    Scheduler* scheduler_ = nullptr;  // owner only
    std::mutex mutex_;
    Fiber* keeper_ = nullptr;  // under mutex_
    // Descriptors that other threads are closing, under mutex_. When full the rest is dropped: the reactor's recheck
    // finds those.
    int announced_[kAnnouncedMax] = {};
    unsigned announced_count_ = 0;
};

}  // namespace culm::runtime::interpose
