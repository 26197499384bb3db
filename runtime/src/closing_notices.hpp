// How a thread that closes a descriptor tells the fibers of other threads that wait for it.
//
// Each scheduler has a board of notices. A descriptor's number remembers on which board its waiters look: one, or
// several. Whoever is about to close the descriptor pins a notice to those boards and nudges their owners, who end the
// waits with Wake::kClosed. An owner reads its board before it waits for any descriptor, so that a file opened since
// under the same number is not mistaken for the closed one.
// Boards are never freed: a thread that ends leaves its own to the next one.
// Invariant: a board's scheduler exists for as long as it is set, which its lock guards.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

namespace culm::runtime {

class Scheduler;

class ClosingNotices {
public:
    // A board for the calling thread's scheduler; null without memory.
    static ClosingNotices* claim(Scheduler& scheduler) noexcept;
    void release() noexcept;

    // Owner: a fiber of this thread is about to wait for the descriptor.
    void note_wait(int fd) noexcept;
    // Owner: ends the waits for what has been announced.
    void forget_announced() noexcept {
        if (has_announced_.load(std::memory_order_acquire)) [[unlikely]]
            forget_all();
    }

    // Any thread: the descriptor is about to be closed. Fibers of the calling thread are not told here, but by the
    // forget_fd() of its own scheduler.
    static void announce(int fd) noexcept;
    // The same for each descriptor of the range (both ends included) that anybody has waited for; `visit` is called
    // first.
    static void announce_range(unsigned first, unsigned last, void (*visit)(int fd)) noexcept;

    // In the child of fork: only the calling thread is left.
    static void after_fork_in_child() noexcept;

private:
    static constexpr std::uint16_t kNobody = 0;
    static constexpr std::uint16_t kSeveral = UINT16_MAX;
    static constexpr unsigned kAnnouncedMax = 64;

    void pin(int fd) noexcept;
    void forget_all() noexcept;

    std::atomic<bool> taken_{false};
    std::atomic<bool> has_announced_{false};
    std::uint16_t id_ = kNobody;  // this and next_ are written before the board is published
    ClosingNotices* next_ = nullptr;
    std::mutex mutex_;
    Scheduler* scheduler_ = nullptr;  // under mutex_; null: nobody's
    // Under mutex_. When full, further notices are dropped: the reactor's recheck finds what they would have told.
    int announced_[kAnnouncedMax] = {};
    unsigned announced_count_ = 0;
};

}  // namespace culm::runtime
