// The state machine: every legal move, every illegal one, and what a fiber says about itself in each state.
#include <csignal>

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
}

TEST_CASE("the table of legal moves is the documented one") {
    const bool legal[5][5] = {
        // new   ready  run    parked finished
        {false, true, true, false, true},    // new
        {false, false, true, false, true},   // ready
        {false, true, false, true, true},    // running
        {false, true, true, false, true},    // parked
        {false, false, false, false, false}  // finished
    };
    for (const FiberState from : kStates) {
        for (const FiberState to : kStates) {
            CAPTURE(static_cast<int>(from));
            CAPTURE(static_cast<int>(to));
            CHECK(is_legal_move(from, to) == legal[static_cast<int>(from)][static_cast<int>(to)]);
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
