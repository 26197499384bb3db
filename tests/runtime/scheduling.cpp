// Order, permits, switching straight to a fiber, joining and references.
#include <unistd.h>

#include <sys/epoll.h>

#include <thread>
#include <vector>

#include "culm/stack_pool.hpp"
#include "fixture.hpp"

using namespace culm::testing;

namespace {

std::string order_of_ten(std::uint64_t seed) {
    Simulation simulation(seed);
    std::string order;
    std::vector<culm::JoinHandle> fibers;
    for (char name = 'a'; name < 'k'; ++name) {
        fibers.push_back(small_fiber([&order, name] {
            order += name;
            culm::yield_now();
            order += name;
        }));
    }
    for (auto& fiber : fibers) fiber.join();
    return order;
}

}  // namespace

TEST_CASE("runnable fibers run first in first out") { CHECK(order_of_ten(0) == "abcdefghijabcdefghij"); }

TEST_CASE("a seed draws an order that is the same every time") {
    const std::string seeded = order_of_ten(7);
    CHECK(seeded == order_of_ten(7));
    CHECK(seeded != order_of_ten(8));
    CHECK(seeded != order_of_ten(0));
}

TEST_CASE("a ready pipe is served although two fibers yield for ever") {
    SchedulerForTest scheduler;
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    bool served = false;
    std::uint64_t switches_when_ready = 0;
    auto reader = small_fiber([&] {
        culm::runtime::FdRequest request{ends[0], EPOLLIN, 0};
        scheduler->wait_fd(request);
        served = true;
    });
    let_others_run();
    REQUIRE(write(ends[1], "x", 1) == 1);
    switches_when_ready = scheduler->statistics().switches;
    auto spin = [&] {
        while (!served) culm::yield_now();
    };
    auto one = small_fiber(spin);
    auto other = small_fiber(spin);
    one.join();
    other.join();
    reader.join();
    CHECK(scheduler->statistics().switches - switches_when_ready < 2 * Scheduler::kSwitchesPerCatchUp);
    close(ends[0]);
    close(ends[1]);
}

TEST_CASE("a fiber that yields alone still lets timers and calls in") {
    SchedulerForTest scheduler;
    bool called = false;
    REQUIRE(scheduler->post([](Scheduler&, void* flag) { *static_cast<bool*>(flag) = true; }, &called));
    for (unsigned i = 0; i <= Scheduler::kSwitchesPerCatchUp; ++i) culm::yield_now();
    CHECK(called);
}

TEST_CASE("unpark before park leaves one permit") {
    Simulation simulation;
    Scheduler& scheduler = *simulation.scheduler;
    scheduler.unpark(scheduler.main_fiber());
    scheduler.unpark(scheduler.main_fiber());
    CHECK(scheduler.park() == Wake::kNotified);
    CHECK(scheduler.park(kMillisecond) == Wake::kTimeout);
}

TEST_CASE("only a permit, the deadline or a cancel ends a wait for a permit") {
    Simulation simulation;
    Scheduler& scheduler = *simulation.scheduler;
    Wake reason = Wake::kClosed;
    auto fiber = small_fiber([&] { reason = scheduler.park(kSecond); });
    let_others_run();
    scheduler.forget_fd(0);
    auto joined = small_fiber([] {});
    joined.join();
    CHECK(fiber.fiber().state() == FiberState::kParked);
    fiber.join();
    CHECK(reason == Wake::kTimeout);
}

TEST_CASE("switch_to runs a new fiber at once and a parked one where it stopped") {
    SchedulerForTest scheduler;
    std::string log;
    auto made = scheduler->new_fiber(
        [](Fiber& self, void* argument) {
            auto& text = *static_cast<std::string*>(argument);
            text += 'a';
            self.scheduler().switch_to(self.scheduler().main_fiber());
            text += 'b';
            self.scheduler().switch_to(self.scheduler().main_fiber());
            text += 'c';
            self.scheduler().unpark(self.scheduler().main_fiber());
        },
        &log);
    REQUIRE(made);
    Fiber& fiber = *made.value();
    CHECK(scheduler->switch_to(fiber) == Wake::kNotified);
    log += '1';
    CHECK(scheduler->switch_to(fiber) == Wake::kNotified);
    log += '2';
    CHECK(scheduler->switch_to(fiber) == Wake::kNotified);
    log += '3';
    CHECK(log == "a1b2c3");
    CHECK(fiber.state() == FiberState::kFinished);
    fiber.release();
}

TEST_CASE("switch_to passes the run queue by and takes the target out of the timers") {
    Simulation simulation;
    Scheduler& scheduler = *simulation.scheduler;
    std::string log;
    Wake reason = Wake::kTimeout;
    auto target = small_fiber([&] {
        reason = scheduler.park(kSecond);
        log += 't';
        scheduler.unpark(scheduler.main_fiber());
    });
    let_others_run();
    CHECK(scheduler.statistics().timers == 1);
    auto queued = small_fiber([&] { log += 'q'; });
    CHECK(scheduler.switch_to(target.fiber()) == Wake::kNotified);
    CHECK(reason == Wake::kNotified);
    CHECK(log == "tq");
    CHECK(scheduler.statistics().timers == 0);
    queued.join();
    target.join();
}

TEST_CASE("run_now puts the caller at the front of the run queue") {
    SchedulerForTest scheduler;
    std::string log;
    auto queued = small_fiber([&] { log += 'q'; });
    auto made = scheduler->new_fiber([](Fiber&, void* text) { *static_cast<std::string*>(text) += 'n'; }, &log);
    REQUIRE(made);
    scheduler->run_now(*made.value());
    log += 'm';
    CHECK(log == "nm");
    made.value()->release();
    queued.join();
}

TEST_CASE("a permit left before switch_to is taken, and the switch still happens") {
    SchedulerForTest scheduler;
    bool ran = false;
    auto made = scheduler->new_fiber([](Fiber&, void* flag) { *static_cast<bool*>(flag) = true; }, &ran);
    REQUIRE(made);
    scheduler->unpark(scheduler->main_fiber());
    CHECK(scheduler->switch_to(*made.value()) == Wake::kNotified);  // nobody else would have woken main
    CHECK(ran);
    made.value()->release();
}

TEST_CASE("join returns for finished, discarded and new fibers alike") {
    Simulation simulation;
    Scheduler& scheduler = *simulation.scheduler;
    auto finished = small_fiber([] {});
    CHECK(finished.join() == Wake::kNotified);
    CHECK(finished.join() == Wake::kNotified);

    auto made = scheduler.new_fiber([](Fiber&, void*) {}, nullptr);
    REQUIRE(made);
    Fiber& fresh = *made.value();
    CHECK(scheduler.join(fresh, kMillisecond) == Wake::kTimeout);
    Wake reason = Wake::kTimeout;
    auto joiner = small_fiber([&] { reason = scheduler.join(fresh); });
    let_others_run();
    CHECK(joiner.fiber().wait_kind() == WaitKind::kJoin);
    CHECK(joiner.fiber().wait_object() == fresh.id());
    scheduler.discard(fresh);
    joiner.join();
    CHECK(reason == Wake::kNotified);
    fresh.release();
}

TEST_CASE("a wait queue is first come first served, and front goes first") {
    Simulation simulation;
    Scheduler& scheduler = *simulation.scheduler;
    culm::runtime::WaitQueue queue;
    std::string log;
    std::vector<culm::JoinHandle> fibers;
    for (char name : {'a', 'b', 'c', 'd'}) {
        fibers.push_back(small_fiber([&, name] {
            const Wake reason =
                queue.wait(scheduler, WaitKind::kQueue, name == 'b' ? kMillisecond : kNever, name == 'd');
            log += name;
            log += reason == Wake::kNotified ? '+' : '-';
        }));
    }
    let_others_run();
    CHECK(queue.notify_one() == &fibers[3].fiber());
    scheduler.sleep_until(2 * kMillisecond);
    CHECK(log == "d+b-");
    queue.notify_all();
    CHECK(queue.empty());
    for (auto& fiber : fibers) fiber.join();
    CHECK(log == "d+b-a+c+");
    CHECK(queue.notify_one() == nullptr);
}

TEST_CASE("a control block outlives its fiber for as long as it is held") {
    SchedulerForTest scheduler;
    auto handle = small_fiber([] {}, "held");
    Fiber& fiber = handle.fiber();
    fiber.retain();
    handle.join();
    handle = culm::JoinHandle();
    CHECK(fiber.state() == FiberState::kFinished);
    CHECK(std::string(fiber.name()) == "held");
    fiber.release();
}

TEST_CASE("for_each_fiber visits started fibers, abandon takes one out") {
    SchedulerForTest scheduler;
    auto bare_fiber = [&](Fiber::Body body) {  // owns nothing that abandoning it would lose
        auto made = scheduler->new_fiber(body, nullptr, culm::StackClass::k256K);
        REQUIRE(made);
        scheduler->start(*made.value());
        return culm::JoinHandle(made.value());
    };
    auto parked = bare_fiber([](Fiber& self, void*) { self.scheduler().park(); });
    auto joiner = small_fiber([&] { parked.join(); });
    let_others_run();
    auto ready = bare_fiber([](Fiber&, void*) {});
    auto count = [&] {
        int visited = 0;
        scheduler->for_each_fiber([](Fiber&, void* number) { ++*static_cast<int*>(number); }, &visited);
        return visited;
    };
    CHECK(count() == 3);
    CHECK(scheduler->statistics().fibers == 3);
    scheduler->abandon(parked.fiber());
    scheduler->abandon(ready.fiber());  // never ran: only its promise goes back
    CHECK(count() == 1);
    CHECK(joiner.join() == Wake::kNotified);
    CHECK(parked.fiber().state() == FiberState::kFinished);
    CHECK(scheduler->stack_pool().statistics(culm::StackClass::k256K).stacks_taken == 1);
}

TEST_CASE("close refuses while fibers are unfinished or new, and create while there is a scheduler") {
    SchedulerForTest scheduler;
    CHECK(Scheduler::create({}).error().code == EEXIST);
    CHECK(Scheduler::ensure().value() == Scheduler::current());
    auto parked = small_fiber([&] { scheduler->park(); });
    let_others_run();
    CHECK(Scheduler::close_current().error().code == EBUSY);
    scheduler->unpark(parked.fiber());
    parked.join();
    auto made = scheduler->new_fiber([](Fiber&, void*) {}, nullptr);
    REQUIRE(made);
    CHECK(Scheduler::close_current().error().code == EBUSY);
    made.value()->release();  // gives its promise of a stack back
    auto closer = small_fiber([] { CHECK(Scheduler::close_current().error().code == EBUSY); });
    closer.join();
}
