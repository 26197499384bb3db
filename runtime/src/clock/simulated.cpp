// The clock of a test: it stands still while anything can run and jumps to the next deadline when nothing can.
// Invariant: it never goes back, and never jumps to kNever, since nothing would be left to happen there.
#include "culm/runtime/clock.hpp"

namespace culm::runtime {
namespace {

class SimulatedClock final : public Clock {
public:
    explicit SimulatedClock(std::int64_t start_ns) noexcept : now_ns_(start_ns) {}

    std::int64_t now_ns() const noexcept override { return now_ns_; }
    bool skip_to(std::int64_t deadline_ns) noexcept override {
        if (deadline_ns == kNever) return false;
        if (deadline_ns > now_ns_) now_ns_ = deadline_ns;
        return true;
    }

private:
    std::int64_t now_ns_;
};

}  // namespace

std::unique_ptr<Clock> make_simulated_clock(std::int64_t start_ns) {
    return std::make_unique<SimulatedClock>(start_ns);
}

}  // namespace culm::runtime
