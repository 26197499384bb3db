// The waiting that poll, select and epoll_wait have in common: make the real call with a timeout of zero, park until
// some descriptor is ready, make the real call again for the exact result.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <new>
#include <span>

#include "gate.hpp"

namespace culm::runtime::interpose {

// Parks until one of the descriptors is ready or being closed, or the deadline passes; without descriptors until the
// deadline. 0: make the real call again. ETIMEDOUT, EINTR or ECANCELED: the call ends. `deadline_ns` in the past only
// yields.
int wait_for_any(Scheduler& scheduler, std::span<FdRequest> requests, std::int64_t deadline_ns, BackOff& back_off,
                 bool again) noexcept;

// Room for what is waited for: on the stack up to kInline, else on the heap.
class Requests {
public:
    explicit Requests(std::size_t count_max) noexcept {
        if (count_max <= kInline) return;
        heap_.reset(new (std::nothrow) FdRequest[count_max]);
        all_ = heap_.get();
    }
    explicit operator bool() const noexcept { return all_ != nullptr; }
    void add(int fd, std::uint32_t wanted) noexcept { all_[count_++] = {fd, wanted, 0}; }
    std::span<FdRequest> span() noexcept { return {all_, count_}; }

private:
    static constexpr std::size_t kInline = 16;
    std::array<FdRequest, kInline> inline_;
    std::unique_ptr<FdRequest[]> heap_;
    FdRequest* all_ = inline_.data();
    std::size_t count_ = 0;
};

// try_now() makes the real call with a timeout of zero. fill(requests) says what to wait for; it is called once, after
// a first try that found nothing. Returns what the last try did, or -1 with errno.
template <class Try, class Fill>
int try_and_wait(Scheduler& scheduler, std::int64_t deadline_ns, std::size_t count_max, Try try_now,
                 Fill fill) noexcept {
    const int errno_before = errno;
    if (const int found = try_now(); found != 0) return found;
    Requests requests(count_max);
    if (!requests) {
        errno = ENOMEM;
        return -1;
    }
    fill(requests);
    BackOff back_off;
    for (bool again = false;; again = true) {
        const int failure = wait_for_any(scheduler, requests.span(), deadline_ns, back_off, again);
        if (failure != 0 && failure != ETIMEDOUT) {
            errno = failure;
            return -1;
        }
        errno = errno_before;
        if (const int found = try_now(); found != 0 || failure == ETIMEDOUT) return found;
    }
}

// Whether a wait under `mask` is the same as one under the thread's present mask: only then may it park. A mask belongs
// to the OS thread, whose other fibers must not run under it.
bool mask_is_present(const sigset_t* mask) noexcept;

}  // namespace culm::runtime::interpose
