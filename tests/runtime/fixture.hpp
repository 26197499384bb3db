// What most tests of the runtime need: a scheduler for the length of a test, fibers from lambdas, a log of what ran.
//
// Invariant: a test leaves its thread without a scheduler, which proves that no fiber was left over.
#pragma once

#include <doctest/doctest.h>

#include <string>
#include <utility>

#include "culm/runtime/scheduler.hpp"
#include "culm/runtime/spawn.hpp"
#include "culm/runtime/wait_queue.hpp"

namespace culm::testing {

using runtime::Fiber;
using runtime::FiberState;
using runtime::kNever;
using runtime::Scheduler;
using runtime::SchedulerOptions;
using runtime::WaitKind;
using runtime::Wake;

inline constexpr std::int64_t kMillisecond = 1'000'000;
inline constexpr std::int64_t kSecond = 1'000'000'000;

class SchedulerForTest {
public:
    explicit SchedulerForTest(SchedulerOptions options = {}) {
        auto made = Scheduler::create(std::move(options));
        REQUIRE(made);
        scheduler_ = made.value();
    }
    ~SchedulerForTest() {
        const auto closed = Scheduler::close_current();
        CHECK(static_cast<bool>(closed));
    }
    SchedulerForTest(const SchedulerForTest&) = delete;
    SchedulerForTest& operator=(const SchedulerForTest&) = delete;

    Scheduler* operator->() const { return scheduler_; }
    Scheduler& operator*() const { return *scheduler_; }

private:
    Scheduler* scheduler_ = nullptr;
};

// Time and readiness are the test's; nothing waits for real.
struct Simulation {
    static SchedulerOptions options(runtime::SimulatedReactor*& reactor, std::uint64_t seed = 0) {
        auto made = runtime::make_simulated_reactor();
        reactor = made.get();
        SchedulerOptions result;
        result.clock = runtime::make_simulated_clock();
        result.reactor = std::move(made);
        result.seed = seed;
        return result;
    }

    runtime::SimulatedReactor* reactor = nullptr;
    SchedulerForTest scheduler;

    explicit Simulation(std::uint64_t seed = 0) : scheduler(options(reactor, seed)) {}
    std::int64_t now_ns() const { return scheduler->clock().now_ns(); }
};

// Lets everything runnable run once.
inline void let_others_run() { Scheduler::current()->yield_now(); }

template <class Function>
JoinHandle small_fiber(Function&& function, const char* name = nullptr) {
    return spawn(std::forward<Function>(function), {.name = name, .stack_class = StackClass::k256K});
}

}  // namespace culm::testing
