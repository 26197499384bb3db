// The clock of a running program: CLOCK_MONOTONIC, which neither jumps nor counts suspended time.
// Invariant: skip_to never skips; the reactor does the waiting.
#include <ctime>

#include "culm/runtime/clock.hpp"

namespace culm::runtime {
namespace {

std::int64_t read_ns(clockid_t clock) noexcept {
    timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * std::int64_t{1'000'000'000} + now.tv_nsec;
}

class MonotonicClock final : public Clock {
public:
    std::int64_t now_ns() const noexcept override { return read_ns(CLOCK_MONOTONIC); }
    bool skip_to(std::int64_t) noexcept override { return false; }
};

}  // namespace

std::unique_ptr<Clock> make_monotonic_clock() { return std::make_unique<MonotonicClock>(); }

std::int64_t thread_cpu_ns() noexcept { return read_ns(CLOCK_THREAD_CPUTIME_ID); }

}  // namespace culm::runtime
