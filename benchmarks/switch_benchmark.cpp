// What a switch and a fiber's life cost in C++, without an embedding language.
//
//   culm_switch_benchmark --benchmark_repetitions=5 --benchmark_report_aggregates_only
//
// Invariant: every benchmark leaves the thread's scheduler without fibers.
#include <benchmark/benchmark.h>

#include <vector>

#include "culm/runtime/spawn.hpp"

namespace {

using culm::runtime::Fiber;
using culm::runtime::Scheduler;

Scheduler& scheduler() {
    auto made = Scheduler::ensure();
    if (!made) culm::abort_with(made.error());
    return *made.value();
}

Fiber& new_fiber(Fiber::Body body, void* argument = nullptr) {
    auto fiber = scheduler().new_fiber(body, argument, culm::StackClass::k256K);
    if (!fiber) culm::abort_with(fiber.error());
    return *fiber.value();
}

// Two fibers that switch straight to each other; the main fiber only starts each round.
struct Pair {
    Fiber* fibers[2];
    std::int64_t left = 0;
    bool over = false;
};

void bounce(Fiber& self, void* argument) {
    Pair& pair = *static_cast<Pair*>(argument);
    Scheduler& here = self.scheduler();
    Fiber& partner = *pair.fibers[pair.fibers[0] == &self ? 1 : 0];
    while (!pair.over) {
        while (--pair.left > 0) here.switch_to(partner);
        here.switch_to(here.main_fiber());
    }
    here.unpark(here.main_fiber());
}

void ping_pong(benchmark::State& state) {
    constexpr std::int64_t kRound = 10000;
    Scheduler& here = scheduler();
    Pair pair;
    for (Fiber*& fiber : pair.fibers) fiber = &new_fiber(bounce, &pair);
    while (state.KeepRunningBatch(kRound)) {
        pair.left = kRound;
        here.switch_to(*pair.fibers[0]);
    }
    pair.over = true;
    for (Fiber* fiber : pair.fibers) {
        pair.left = 0;
        while (fiber->state() != culm::runtime::FiberState::kFinished) here.switch_to(*fiber);
        fiber->release();
    }
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(ping_pong);

// Through the run queue, round robin over as many fibers as the argument says.
void yield_round(benchmark::State& state) {
    Scheduler& here = scheduler();
    bool over = false;
    const auto count = static_cast<std::size_t>(state.range(0));
    for (std::size_t i = 0; i < count; ++i) {
        Fiber& fiber = new_fiber(
            [](Fiber& self, void* stop) {
                while (!*static_cast<bool*>(stop)) self.scheduler().yield_now();
            },
            &over);
        here.start(fiber);
        fiber.release();
    }
    here.yield_now();
    for (auto _ : state) here.yield_now();
    over = true;
    here.yield_now();
    state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(count + 1));
}
BENCHMARK(yield_round)->Arg(1)->Arg(100)->Arg(1000)->Arg(10000);

// A thousand trivial fibers made, started, run and finished.
void spawn_and_finish(benchmark::State& state) {
    constexpr int kBatch = 1000;
    Scheduler& here = scheduler();
    for (auto _ : state) {
        for (int i = 0; i < kBatch; ++i) {
            Fiber& fiber = new_fiber([](Fiber&, void*) {});
            here.start(fiber);
            fiber.release();
        }
        here.yield_now();
    }
    state.SetItemsProcessed(state.iterations() * kBatch);
}
BENCHMARK(spawn_and_finish);

// A thousand fibers go to sleep for a moment each: the timer queue under load.
void sleep_round(benchmark::State& state) {
    constexpr int kFibers = 1000;
    Scheduler& here = scheduler();
    bool over = false;
    for (int i = 0; i < kFibers; ++i) {
        Fiber& fiber = new_fiber(
            [](Fiber& self, void* stop) {
                Scheduler& mine = self.scheduler();
                while (!*static_cast<bool*>(stop)) mine.sleep_until(mine.clock().now_ns() + 1000);
            },
            &over);
        here.start(fiber);
        fiber.release();
    }
    const std::uint64_t before = here.statistics().switches;
    for (auto _ : state) here.sleep_until(here.clock().now_ns() + 1000);
    const auto switches = static_cast<std::int64_t>(here.statistics().switches - before);
    over = true;
    while (here.statistics().fibers > 0) here.sleep_until(here.clock().now_ns() + 1000);
    state.SetItemsProcessed(switches);
}
BENCHMARK(sleep_round);

}  // namespace

BENCHMARK_MAIN();
