// Where the scheduler's idea of now comes from. Times are nanoseconds on the clock's own scale, as std::int64_t.
//
// The monotonic clock reads CLOCK_MONOTONIC. The simulated clock stands still until nothing can run, then jumps to the
// next deadline: a test of an hour's sleep takes no time and gives the same result every run.
// Invariant: now_ns() never goes back.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>

namespace culm::runtime {

inline constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();

class Clock {
public:
    virtual ~Clock() = default;
    virtual std::int64_t now_ns() const noexcept = 0;
    // Nothing can run before `deadline_ns`. True: the clock has jumped there, do not wait. False: wait for real.
    virtual bool skip_to(std::int64_t deadline_ns) noexcept = 0;
};

std::unique_ptr<Clock> make_monotonic_clock();
std::unique_ptr<Clock> make_simulated_clock(std::int64_t start_ns = 0);

// CPU time that the calling OS thread has spent; for statistics only.
std::int64_t thread_cpu_ns() noexcept;

// now + duration without overflow; a negative duration counts as zero.
constexpr std::int64_t deadline_after(std::int64_t now_ns, std::int64_t duration_ns) noexcept {
    if (duration_ns <= 0) return now_ns;
    return duration_ns > kNever - now_ns ? kNever : now_ns + duration_ns;
}

}  // namespace culm::runtime
