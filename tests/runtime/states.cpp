// The state machine: every legal move, every illegal one, and what a fiber says about itself in each state.
#include <csignal>
#include <set>
#include <utility>
#include <vector>

#include "../core/child.hpp"
#include "fiber_moves.hpp"
#include "fixture.hpp"

namespace culm::runtime {
struct FiberProbe {
    static void put_in(Fiber& fiber, FiberState state) { fiber.state_ = state; }
    static void move(Fiber& fiber, FiberState state) { fiber.move_to(state); }
};
}  // namespace culm::runtime

using namespace culm::testing;
using culm::runtime::FiberProbe;

namespace {
constexpr FiberState kStates[] = {FiberState::kNew, FiberState::kReady, FiberState::kRunning, FiberState::kParked,
                                  FiberState::kFinished};

// What a fiber was seen to be, one look after each operation that changes its state.
using Trace = std::vector<FiberState>;

struct Observed {
    Trace trace;
    Fiber* fiber = nullptr;
    void look() { trace.push_back(fiber->state()); }
};

void make_observed(Scheduler& scheduler, Observed& observed) {
    auto made = scheduler.new_fiber(
        [](Fiber& self, void* argument) {
            auto& own = *static_cast<Observed*>(argument);
            own.look();
            self.scheduler().yield_now();
            own.look();
            self.scheduler().park();
            own.look();
            self.scheduler().park();
            own.look();
        },
        &observed, culm::StackClass::k64K);
    REQUIRE(made);
    observed.fiber = made.value();
    observed.look();
}

}  // namespace

TEST_CASE("the legal moves are exactly those that the scheduler's operations make") {
    using enum FiberState;
    SchedulerForTest scheduler;
    Observed lives, runs_at_once, is_discarded, is_abandoned;
    for (Observed* one : {&lives, &runs_at_once, &is_discarded, &is_abandoned}) make_observed(*scheduler, *one);

    scheduler->start(*lives.fiber);
    lives.look();
    scheduler->run_now(*runs_at_once.fiber);
    runs_at_once.look();  // it has yielded
    let_others_run();
    lives.look();  // it has yielded
    let_others_run();
    lives.look();  // it has parked
    scheduler->unpark(*lives.fiber);
    lives.look();
    let_others_run();
    lives.look();  // it has parked again
    scheduler->run_now(*lives.fiber);
    lives.look();
    CHECK(lives.trace ==
          Trace{kNew, kReady, kRunning, kReady, kRunning, kParked, kReady, kRunning, kParked, kRunning, kFinished});

    runs_at_once.look();  // it has parked
    scheduler->abandon(*runs_at_once.fiber);
    runs_at_once.look();
    CHECK(runs_at_once.trace == Trace{kNew, kRunning, kReady, kRunning, kParked, kFinished});

    scheduler->discard(*is_discarded.fiber);
    is_discarded.look();
    CHECK(is_discarded.trace == Trace{kNew, kFinished});
    scheduler->start(*is_abandoned.fiber);
    is_abandoned.look();
    scheduler->abandon(*is_abandoned.fiber);
    is_abandoned.look();
    CHECK(is_abandoned.trace == Trace{kNew, kReady, kFinished});

    std::set<std::pair<FiberState, FiberState>> made;
    for (Observed* one : {&lives, &runs_at_once, &is_discarded, &is_abandoned}) {
        for (std::size_t i = 1; i < one->trace.size(); ++i) made.insert({one->trace[i - 1], one->trace[i]});
        one->fiber->release();
    }
    for (const FiberState from : kStates) {
        for (const FiberState to : kStates) {
            CAPTURE(static_cast<int>(from));
            CAPTURE(static_cast<int>(to));
            CHECK(is_legal_move(from, to) == (made.count({from, to}) == 1));
        }
    }
}

TEST_CASE("a legal move is made and an illegal one ends the process") {
    SchedulerForTest scheduler;
    auto made = scheduler->new_fiber([](Fiber&, void*) {}, nullptr);
    REQUIRE(made);
    Fiber& fiber = *made.value();
    for (const FiberState from : kStates) {
        for (const FiberState to : kStates) {
            CAPTURE(static_cast<int>(from));
            CAPTURE(static_cast<int>(to));
            const auto end = run_in_child([&] {
                std::signal(SIGABRT, SIG_DFL);
                FiberProbe::put_in(fiber, from);
                FiberProbe::move(fiber, to);
                return fiber.state() == to ? 0 : 1;
            });
            if (is_legal_move(from, to)) {
                CHECK(end.exited_with(0));
            } else {
                CHECK(end.died_of(SIGABRT));
            }
        }
    }
    scheduler->discard(fiber);
    fiber.release();
}

TEST_CASE("a fiber goes through its states and says what it waits for") {
    SchedulerForTest scheduler;
    auto made =
        scheduler->new_fiber([](Fiber& self, void*) { self.scheduler().park(); }, nullptr, culm::StackClass::k64K);
    REQUIRE(made);
    Fiber& fiber = *made.value();
    fiber.set_name("waiter");
    CHECK(fiber.state() == FiberState::kNew);
    CHECK_FALSE(fiber.stack());
    CHECK(fiber.host_area() == nullptr);
    CHECK(std::string(fiber.name()) == "waiter");
    CHECK(fiber.id() > scheduler->main_fiber().id());
    CHECK(fiber.identity() != scheduler->main_fiber().identity());

    scheduler->start(fiber);
    CHECK(fiber.state() == FiberState::kReady);
    CHECK(scheduler->statistics().ready == 1);
    let_others_run();
    CHECK(fiber.state() == FiberState::kParked);
    CHECK(fiber.wait_kind() == WaitKind::kPermit);
    CHECK(fiber.stack().contains(fiber.suspended_sp()));
    CHECK(Scheduler::fiber_of_stack(fiber.stack()) == &fiber);

    scheduler->unpark(fiber);
    CHECK(scheduler->join(fiber) == Wake::kNotified);
    CHECK(fiber.state() == FiberState::kFinished);
    CHECK_FALSE(fiber.stack());
    fiber.release();
}

TEST_CASE("the main fiber is the thread's own") {
    SchedulerForTest scheduler;
    CHECK(scheduler->main_fiber().is_main());
    CHECK(&scheduler->running() == &scheduler->main_fiber());
    CHECK(scheduler->main_fiber().identity() == scheduler->thread_identity());
    CHECK_FALSE(scheduler->main_fiber().stack());
}

TEST_CASE("misuse ends the process: join of oneself, a switch to oneself or to a finished fiber") {
    SchedulerForTest scheduler;
    auto aborts = [](auto body) {
        return run_in_child([&] {
                   std::signal(SIGABRT, SIG_DFL);
                   body();
                   return 0;
               })
            .died_of(SIGABRT);
    };
    CHECK(aborts([&] { scheduler->join(scheduler->main_fiber()); }));
    CHECK(aborts([&] { scheduler->switch_to(scheduler->main_fiber()); }));
    auto finished = small_fiber([] {});
    finished.join();
    CHECK(aborts([&] { scheduler->switch_to(finished.fiber()); }));
    CHECK(aborts([&] { scheduler->start(finished.fiber()); }));
    CHECK(aborts([&] { scheduler->discard(finished.fiber()); }));
}
