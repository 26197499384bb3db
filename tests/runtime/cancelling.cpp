// Cancelling a fiber in each state and in each kind of wait: once per request, and no queue keeps the fiber.
#include <sys/epoll.h>

#include <vector>

#include "culm/stack_pool.hpp"
#include "fixture.hpp"

using namespace culm::testing;

TEST_CASE("cancel of a new fiber discards it") {
    SchedulerForTest scheduler;
    bool ran = false;
    auto made = scheduler->new_fiber([](Fiber&, void* flag) { *static_cast<bool*>(flag) = true; }, &ran);
    REQUIRE(made);
    scheduler->cancel(*made.value());
    CHECK(made.value()->state() == FiberState::kFinished);
    CHECK_FALSE(ran);
    CHECK(scheduler->stack_pool().statistics(culm::kDefaultStackClass).stacks_reserved == 0);
    made.value()->release();
}

TEST_CASE("cancel of a ready or running fiber ends its next wait, once") {
    Simulation simulation;
    Scheduler& scheduler = *simulation.scheduler;
    std::vector<Wake> reasons;
    auto fiber = small_fiber([&] {
        reasons.push_back(scheduler.park());
        reasons.push_back(scheduler.park(kMillisecond));
        scheduler.cancel(scheduler.running());
        CHECK(scheduler.running().cancel_requested());
        culm::yield_now();  // not a wait
        reasons.push_back(scheduler.sleep_until(0));
        reasons.push_back(scheduler.sleep_until(kSecond));
    });
    scheduler.cancel(fiber.fiber());
    scheduler.cancel(fiber.fiber());
    fiber.join();
    CHECK(reasons == std::vector{Wake::kCancelled, Wake::kTimeout, Wake::kCancelled, Wake::kTimeout});
}

TEST_CASE("cancel ends every kind of wait and empties its queue") {
    Simulation simulation;
    Scheduler& scheduler = *simulation.scheduler;
    culm::runtime::WaitQueue queue;
    auto forever = small_fiber([&] { scheduler.park(); });
    Wake reason = Wake::kTimeout;
    auto cancelled = [&](auto wait) {
        auto fiber = small_fiber([&] { reason = wait(); });
        let_others_run();
        CHECK(fiber.fiber().state() == FiberState::kParked);
        scheduler.cancel(fiber.fiber());
        CHECK(fiber.fiber().state() == FiberState::kReady);
        fiber.join();
        return reason == Wake::kCancelled;
    };
    CHECK(cancelled([&] { return scheduler.park(); }));
    CHECK(cancelled([&] { return scheduler.sleep_until(kSecond); }));
    CHECK(cancelled([&] { return forever.join(kSecond); }));
    CHECK(cancelled([&] { return queue.wait(scheduler, WaitKind::kLock); }));
    CHECK(cancelled([&] {
        culm::runtime::FdRequest request{3, EPOLLIN, 0};
        return scheduler.wait_fd(request);
    }));
    CHECK(queue.empty());
    CHECK(scheduler.statistics().timers == 0);
    CHECK(scheduler.statistics().fd_waits == 0);
    CHECK(simulation.reactor->waiting() == 0);
    scheduler.cancel(forever.fiber());
    forever.join();
    scheduler.cancel(forever.fiber());  // finished: nothing
}

TEST_CASE("a cancel that waits ends a wait in a queue before it begins") {
    Simulation simulation;
    Scheduler& scheduler = *simulation.scheduler;
    culm::runtime::WaitQueue queue;
    scheduler.cancel(scheduler.main_fiber());
    CHECK(queue.wait(scheduler, WaitKind::kQueue) == Wake::kCancelled);
    CHECK(queue.empty());
    scheduler.cancel(scheduler.main_fiber());
    auto fiber = small_fiber([] {});
    CHECK(fiber.join() == Wake::kCancelled);
    CHECK(fiber.join() == Wake::kNotified);
}

TEST_CASE("the main fiber is interrupted ahead of the run queue, in any wait") {
    Simulation simulation;
    Scheduler& scheduler = *simulation.scheduler;
    std::string log;
    auto interrupter = small_fiber([&] {
        auto queued = small_fiber([&] { log += 'q'; });
        scheduler.interrupt_main();
        scheduler.interrupt_main();  // it is ready already
        queued.join();
    });
    CHECK(scheduler.sleep_until(kSecond) == Wake::kInterrupted);
    log += 'm';
    CHECK(simulation.now_ns() == 0);
    scheduler.interrupt_main();  // not parked: nothing
    interrupter.join();
    CHECK(log == "mq");
}
