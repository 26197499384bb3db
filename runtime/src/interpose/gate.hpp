// The test each hook begins with, and the way in which a hook parks.
//
//   Scheduler* scheduler = gate();
//   if (!scheduler) return real.recv(...);           // exactly libc, errno and all
//   ... try without blocking; on EAGAIN a Patience decides whether and how long to wait ...
//
// Invariant: a hook parks, links and changes anything of the scheduler only between Parking's constructor and
// destructor, which take and give back the embedding language's lock, and never while that lock is being taken (calls
// made meanwhile go straight to libc).
#pragma once

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <ctime>

#include "culm/runtime/fiber.hpp"
#include "culm/runtime/scheduler.hpp"
#include "culm/runtime/yellow_zone.hpp"
#include "embedder.hpp"
#include "fiber_notes.hpp"
#include "loading.hpp"

namespace culm::runtime::interpose {

struct Counters {
    std::atomic<unsigned long> parks{0};
    std::atomic<unsigned long> direct{0};
};
inline constinit Counters counters;

// True on a thread that is inside the embedding language's part of a park.
inline constinit thread_local bool in_embedder = false;

// Parks the running fiber for good if it is about to run out of stack and the undertaker takes it over.
void end_if_out_of_stack(Scheduler& scheduler) noexcept;

// The scheduler to cooperate with; null: the call must behave exactly like libc.
inline Scheduler* gate() noexcept {
    Scheduler* scheduler = Scheduler::current();
    if (scheduler == nullptr || in_embedder || scheduler->at_work()) return nullptr;
    Fiber& self = scheduler->running();
    settle_overflow(self);
    const auto may_park = detail::embedder.calls.may_park;
    const Consent consent = may_park ? may_park(self) : Consent::kUnlessMutexHeld;
    if (consent == Consent::kYes || (consent == Consent::kUnlessMutexHeld && FiberNotes(self).held_mutexes() == 0)) {
        if (has_overflown(self)) [[unlikely]]
            end_if_out_of_stack(*scheduler);
        return scheduler;
    }
    counters.direct.fetch_add(1, std::memory_order_relaxed);
    return nullptr;
}

// Holds the language's lock while the running fiber is parked by a hook.
class Parking {
public:
    explicit Parking(Scheduler& scheduler) noexcept;
    ~Parking();
    Parking(const Parking&) = delete;
    Parking& operator=(const Parking&) = delete;

    // 0 for kNotified, else the errno the caller sees. Tells the language when the fiber was cancelled.
    int outcome(Wake wake) noexcept;
    // The same for a wait for a lock of the interpreter, which knows no other failure than EINTR and ETIMEDOUT.
    // ECANCELED: the fiber was cancelled, and that has to be put off until the lock was got.
    int lock_outcome(Wake wake) noexcept;

private:
    Fiber& self_;
    bool lock_taken_ = false;
};

// Parks until the deadline (on the scheduler's clock): 0 when it has passed, else EINTR or ECANCELED.
int sleep_parked(Scheduler& scheduler, std::int64_t deadline_ns) noexcept;
// Lets the other fibers run; the first call yields, later ones sleep 1, 2, 4, 8 and then 10 ms, at most until the
// deadline. For conditions that no descriptor announces.
class BackOff {
public:
    int wait(Scheduler& scheduler, std::int64_t deadline_ns) noexcept;

private:
    unsigned rounds_ = 0;
};

// What a blocking call does between two attempts that said EAGAIN.
class Patience {
public:
    enum class Timeout : std::uint8_t { kNone, kReceive, kSend };  // SO_RCVTIMEO, SO_SNDTIMEO

    Patience(Scheduler& scheduler, int fd, std::uint32_t wanted, Timeout timeout) noexcept
        : scheduler_(scheduler), fd_(fd), wanted_(wanted), timeout_(timeout) {}

    // The caller's descriptor blocks; false: EAGAIN (or a short count) is the answer it wants.
    bool may_wait() noexcept;
    // Parks until the descriptor is ready. 0: try again. Else the errno to fail with: EAGAIN (also when the socket's
    // timeout has passed), EINTR, ECANCELED, EBADF.
    int wait() noexcept;

private:
    Scheduler& scheduler_;
    int fd_;
    std::uint32_t wanted_;
    Timeout timeout_;
    bool asked_ = false;
    bool blocking_ = false;
    bool waited_ = false;
    bool reactor_failed_ = false;
    std::int64_t deadline_ns_ = kNever;
    BackOff back_off_;
};

// Repeats attempt() (which must not block and says EAGAIN) with patience. Keeps errno on success.
template <class Attempt>
ssize_t with_patience(Patience& patience, const Attempt& attempt) noexcept {
    const int errno_before = errno;
    for (;;) {
        const ssize_t done = attempt();
        if (done >= 0) {
            errno = errno_before;
            return done;
        }
        if (errno != EAGAIN) return done;
        if (const int failure = patience.wait(); failure != 0) {
            errno = failure;
            return -1;
        }
    }
}

constexpr std::int64_t kNanosecondsPerSecond = 1'000'000'000;

inline bool valid(const timespec& time) noexcept {
    return time.tv_sec >= 0 && time.tv_nsec >= 0 && time.tv_nsec < kNanosecondsPerSecond;
}
// Saturates at kNever. `time` is valid.
inline std::int64_t nanoseconds(const timespec& time) noexcept {
    if (time.tv_sec >= kNever / kNanosecondsPerSecond) return kNever;
    return time.tv_sec * kNanosecondsPerSecond + time.tv_nsec;
}
inline std::int64_t deadline_in(Scheduler& scheduler, std::int64_t duration_ns) noexcept {
    return deadline_after(scheduler.clock().now_ns(), duration_ns);
}
// A point on `clock` as a deadline of the scheduler.
inline std::int64_t deadline_at(Scheduler& scheduler, clockid_t clock, const timespec& point) noexcept {
    timespec now{};
    ::clock_gettime(clock, &now);
    return deadline_in(scheduler, nanoseconds(point) - nanoseconds(now));
}

}  // namespace culm::runtime::interpose
