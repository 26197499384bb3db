// The clock of a running program: CLOCK_MONOTONIC, which neither jumps nor counts suspended time.
// Invariant: skip_to never skips; the reactor does the waiting.
#include <ctime>

#include "culm/runtime/clock.hpp"

namespace culm::runtime {
namespace {

class MonotonicClock final : public Clock {
public:
    std::int64_t now_ns() const noexcept override {
        timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec * std::int64_t{1'000'000'000} + now.tv_nsec;
    }
    bool skip_to(std::int64_t) noexcept override { return false; }
};

}  // namespace

std::unique_ptr<Clock> make_monotonic_clock() { return std::make_unique<MonotonicClock>(); }

}  // namespace culm::runtime
