// select and pselect. The sets are copied first, because each real call overwrites them; the caller's are written once,
// at the end, and left alone on error. select's timeout becomes the time not slept, as Linux does. A pselect whose mask
// differs from the thread's goes to libc (see poll.cpp).
#include <poll.h>

#include <cstring>

#include "hooks.hpp"
#include "readiness.hpp"

namespace culm::runtime::interpose {

namespace {

// The three sets, as many words as the kernel would read: a caller's set may be shorter or longer than fd_set.
class Sets {
public:
    Sets(int count, fd_set* readable, fd_set* writable, fd_set* exceptional) noexcept
        : count_(count), words_((static_cast<std::size_t>(count) + kBits - 1) / kBits) {
        callers_[0] = reinterpret_cast<Word*>(readable);
        callers_[1] = reinterpret_cast<Word*>(writable);
        callers_[2] = reinterpret_cast<Word*>(exceptional);
        if (words_ > kInlineWords) {
            heap_.reset(new (std::nothrow) Word[words_ * 6]);
            all_ = heap_.get();
        }
        if (!all_) return;
        for (int i = 0; i < 3; ++i) {
            if (callers_[i]) std::memcpy(wanted(i), callers_[i], words_ * sizeof(Word));
        }
    }
    explicit operator bool() const noexcept { return all_ != nullptr; }

    int try_now() noexcept {
        fd_set* sets[3] = {};
        for (int i = 0; i < 3; ++i) {
            if (!callers_[i]) continue;
            std::memcpy(found(i), wanted(i), words_ * sizeof(Word));
            sets[i] = reinterpret_cast<fd_set*>(found(i));
        }
        timeval none{0, 0};
        return real.select(count_, sets[0], sets[1], sets[2], &none);
    }

    std::size_t wanted_count() const noexcept {
        std::size_t sum = 0;
        for (int fd = 0; fd < count_; ++fd) sum += wanted_events(fd) != 0 ? 1 : 0;
        return sum;
    }

    void fill(Requests& requests) const noexcept {
        for (int fd = 0; fd < count_; ++fd) {
            if (const std::uint32_t events = wanted_events(fd); events != 0) requests.add(fd, events);
        }
    }

    void write_back() noexcept {
        for (int i = 0; i < 3; ++i) {
            if (callers_[i]) std::memcpy(callers_[i], found(i), words_ * sizeof(Word));
        }
    }

private:
    using Word = unsigned long;
    static constexpr std::size_t kBits = 8 * sizeof(Word);
    static constexpr std::size_t kInlineWords = FD_SETSIZE / kBits;

    Word* wanted(int i) const noexcept { return all_ + static_cast<std::size_t>(i) * words_; }
    Word* found(int i) const noexcept { return all_ + static_cast<std::size_t>(i + 3) * words_; }

    std::uint32_t wanted_events(int fd) const noexcept {
        constexpr std::uint32_t kEvents[3] = {POLLIN, POLLOUT, POLLPRI};
        const auto bit = static_cast<std::size_t>(fd);
        std::uint32_t events = 0;
        for (int i = 0; i < 3; ++i) {
            if (callers_[i] && (wanted(i)[bit / kBits] >> (bit % kBits) & 1) != 0) events |= kEvents[i];
        }
        return events;
    }

    int count_;
    std::size_t words_;
    Word* callers_[3];
    Word inline_[kInlineWords * 6];
    std::unique_ptr<Word[]> heap_;
    Word* all_ = inline_;
};

int select_waiting(Scheduler& scheduler, int count, fd_set* readable, fd_set* writable, fd_set* exceptional,
                   std::int64_t deadline_ns) noexcept {
    Sets sets(count, readable, writable, exceptional);
    if (!sets) {
        errno = ENOMEM;
        return -1;
    }
    const int found = try_and_wait(
        scheduler, deadline_ns, sets.wanted_count(), [&]() noexcept { return sets.try_now(); },
        [&](Requests& requests) noexcept { sets.fill(requests); });
    if (found >= 0) sets.write_back();
    return found;
}

}  // namespace

namespace hooks {

int select(int count, fd_set* readable, fd_set* writable, fd_set* exceptional, timeval* timeout) noexcept {
    constexpr std::int64_t kMicrosecond = 1'000;
    Scheduler* scheduler = gate();
    const bool odd = count < 0 || (timeout && (timeout->tv_sec < 0 || timeout->tv_usec < 0));
    if (!scheduler || odd || (timeout && timeout->tv_sec == 0 && timeout->tv_usec == 0)) {
        return real.select(count, readable, writable, exceptional, timeout);
    }
    std::int64_t deadline = kNever;
    if (timeout) {
        // Microseconds beyond a second are accepted, as glibc does.
        const timespec duration{timeout->tv_sec + timeout->tv_usec / 1'000'000,
                                timeout->tv_usec % 1'000'000 * kMicrosecond};
        deadline = deadline_in(*scheduler, nanoseconds(duration));
    }
    const int found = select_waiting(*scheduler, count, readable, writable, exceptional, deadline);
    if (timeout && deadline != kNever) {
        const int failure = errno;
        const std::int64_t left = std::max<std::int64_t>(deadline - scheduler->clock().now_ns(), 0);
        timeout->tv_sec = left / kNanosecondsPerSecond;
        timeout->tv_usec = left % kNanosecondsPerSecond / kMicrosecond;
        errno = failure;
    }
    return found;
}

int pselect(int count, fd_set* readable, fd_set* writable, fd_set* exceptional, const timespec* timeout,
            const sigset_t* mask) noexcept {
    Scheduler* scheduler = gate();
    const bool odd = count < 0 || (timeout && (!valid(*timeout) || nanoseconds(*timeout) == 0));
    if (!scheduler || odd || !mask_is_present(mask)) {
        return real.pselect(count, readable, writable, exceptional, timeout, mask);
    }
    return select_waiting(*scheduler, count, readable, writable, exceptional,
                          timeout ? deadline_in(*scheduler, nanoseconds(*timeout)) : kNever);
}

}  // namespace hooks

}  // namespace culm::runtime::interpose
