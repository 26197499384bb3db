// Rounds of telling the fibers to end and waiting for their ends. See culm/runtime/unwinding.hpp.
#include "culm/runtime/unwinding.hpp"

#include <algorithm>

#include "culm/runtime/scheduler.hpp"
#include "embedder.hpp"
#include "flat_array.hpp"

namespace culm::runtime {

namespace {

// In each round a fiber is told once. All fibers together have the grace for their clean-ups.
constexpr int kRoundsMax = 10;
constexpr std::int64_t kFirstGraceNs = 1'000'000'000;
constexpr std::int64_t kGraceNs = 100'000'000;
// However long one wait took, no more than this is taken off the grace: where the process got no processor meanwhile,
// the clean-ups have not had that time either.
constexpr std::int64_t kWaitNsMax = 10'000'000;

// The fibers that have to end, each held by the embedding language. Empty if memory ran out.
class HeldFibers {
public:
    HeldFibers(Scheduler& scheduler, Ending ending) noexcept : running_(&scheduler.running()), ending_(ending) {
        if (!fibers_.reserve(scheduler.statistics().fibers)) return;
        scheduler.for_each_fiber(&HeldFibers::hold, this);
    }

    bool empty() const noexcept { return fibers_.empty(); }
    Fiber** begin() noexcept { return fibers_.begin(); }
    Fiber** end() noexcept { return fibers_.end(); }

private:
    static void hold(Fiber& fiber, void* context) {
        auto& self = *static_cast<HeldFibers*>(context);
        if (&fiber == self.running_ || !detail::embedder.unwinding.hold(fiber, self.ending_)) return;
        self.fibers_.push(&fiber);
    }

    FlatArray<Fiber*> fibers_;
    const Fiber* running_;
    Ending ending_;
};

bool has_finished(const Fiber& fiber) noexcept { return fiber.state() == FiberState::kFinished; }

// Switches: until the fiber's end, or until the grace is used up, or a signal's handler wants the waiting to end.
void await_end(Scheduler& scheduler, Fiber& fiber, std::int64_t& grace_ns) noexcept {
    while (!has_finished(fiber) && grace_ns > 0) {
        const std::int64_t before_ns = scheduler.clock().now_ns();
        const Wake wake = scheduler.join(fiber, deadline_after(before_ns, std::min(grace_ns, kWaitNsMax)));
        if (wake == Wake::kInterrupted && !detail::embedder.unwinding.handle_signals()) {
            grace_ns = 0;
            return;
        }
        grace_ns -= std::clamp<std::int64_t>(scheduler.clock().now_ns() - before_ns, 1, kWaitNsMax);
    }
}

// False: there was nobody to tell.
bool unwind_round(Scheduler& scheduler, Ending ending, bool is_first) noexcept {
    const Unwinding& language = detail::embedder.unwinding;
    HeldFibers held(scheduler, ending);
    if (held.empty()) return false;
    for (Fiber* fiber : held) {
        if (is_first && language.was_told(*fiber)) continue;  // it is cleaning up already: not to be disturbed in that
        if (!has_finished(*fiber)) language.tell(*fiber);
    }
    // Each has its turn before the grace begins, however many they are.
    scheduler.yield_now();
    std::int64_t grace_ns = is_first ? kFirstGraceNs : kGraceNs;
    for (Fiber* fiber : held) {
        await_end(scheduler, *fiber, grace_ns);
        language.let_go(*fiber);
    }
    return true;
}

}  // namespace

void unwind_fibers(Scheduler& scheduler, Ending ending) noexcept {
    const Unwinding& language = detail::embedder.unwinding;
    if (!language.hold) return;
    for (int round = 0; round < kRoundsMax && unwind_round(scheduler, ending, round == 0); ++round) {
    }
    if (ending != Ending::kThread) return;
    for (HeldFibers left(scheduler, ending); Fiber * fiber : left) {
        if (!has_finished(*fiber)) language.give_up(*fiber);
        language.let_go(*fiber);
    }
}

}  // namespace culm::runtime
