// One Home per OS thread that parks fibers in hooks, linked in a list that only grows.
#include "home.hpp"

#include <cassert>
#include <new>

namespace culm::runtime::interpose {

namespace {

std::atomic<Home*> homes{nullptr};

}  // namespace

struct HomeOfThread {
    Home* home = nullptr;
    ~HomeOfThread() {
        if (!home) return;
        home->keep(nullptr);
        home->scheduler_ = nullptr;
        home->taken_.store(false);
        home = nullptr;
    }
};

namespace {

thread_local HomeOfThread this_thread;

}  // namespace

Home* Home::claim() noexcept {
    for (Home* home = homes.load(std::memory_order_acquire); home; home = home->next_) {
        bool taken = false;
        if (home->taken_.compare_exchange_strong(taken, true)) return home;
    }
    auto* home = new (std::nothrow) Home;
    assert(home != nullptr);
    home->taken_.store(true);
    home->next_ = homes.load(std::memory_order_acquire);
    do {
        // Beyond 65534 threads at a time homes share the id that means several.
        const unsigned id = home->next_ ? home->next_->id_ + 1U : 1U;
        home->id_ = id < kSeveral ? static_cast<std::uint16_t>(id) : kSeveral;
    } while (!homes.compare_exchange_weak(home->next_, home, std::memory_order_acq_rel));
    return home;
}

Home& Home::current() noexcept {
    if (!this_thread.home) this_thread.home = claim();
    return *this_thread.home;
}

std::uint16_t Home::current_id() noexcept { return this_thread.home ? this_thread.home->id_ : kNobody; }

void Home::keep(Fiber* keeper) noexcept {
    Fiber* before = nullptr;
    if (keeper) keeper->retain();
    {
        std::lock_guard lock(mutex_);
        before = keeper_;
        keeper_ = keeper;
    }
    if (before) before->release();
}

void Home::enter(Scheduler& scheduler) noexcept {
    if (scheduler_ != &scheduler) [[unlikely]] {
        keep(&scheduler.main_fiber());
        scheduler_ = &scheduler;
    }
    if (has_announced_.load(std::memory_order_acquire)) [[unlikely]]
        forget_announced(scheduler);
}

bool Home::post(Scheduler::RemoteCall call, void* argument) noexcept {
    std::lock_guard lock(mutex_);
    return keeper_ && keeper_->scheduler().post(call, argument);
}

void Home::forget_later(int fd) noexcept {
    std::lock_guard lock(mutex_);
    if (!keeper_ || announced_count_ == kAnnouncedMax) return;
    announced_[announced_count_++] = fd;
    has_announced_.store(true, std::memory_order_release);
    // The call only hurries the owner: whatever parks there first looks at the list too, so that a descriptor opened
    // since under the same number is not mistaken for this one.
    keeper_->scheduler().post(
        [](Scheduler& scheduler, void* home) { static_cast<Home*>(home)->forget_announced(scheduler); }, this);
}

void Home::forget_announced(Scheduler& scheduler) noexcept {
    int fds[kAnnouncedMax];
    unsigned count = 0;
    {
        std::lock_guard lock(mutex_);
        for (; count < announced_count_; ++count) fds[count] = announced_[count];
        announced_count_ = 0;
        has_announced_.store(false, std::memory_order_relaxed);
    }
    for (unsigned i = 0; i < count; ++i) scheduler.forget_fd(fds[i]);
}

void Home::announce_close(int fd, std::uint16_t id) noexcept {
    if (id == kNobody || (id == current_id() && id != kSeveral)) return;
    for (Home* home = homes.load(std::memory_order_acquire); home; home = home->next_) {
        if (home == this_thread.home) continue;
        if (id == kSeveral || home->id_ == id) home->forget_later(fd);
    }
}

void Home::after_fork_in_child() noexcept {
    for (Home* home = homes.load(); home; home = home->next_) {
        new (&home->mutex_) std::mutex;  // whoever held it does not exist here
        home->announced_count_ = 0;
        home->has_announced_.store(false);
        if (home == this_thread.home) continue;
        home->keep(nullptr);
        home->scheduler_ = nullptr;
        home->taken_.store(false);
    }
}

}  // namespace culm::runtime::interpose
