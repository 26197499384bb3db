// The one wait record: tickets, the claim, several records at once, operations that cannot be stopped, and the request
// by which another thread wakes.
#include <sys/epoll.h>

#include <array>
#include <thread>
#include <vector>

#include "../core/child.hpp"
#include "culm/runtime/embedder.hpp"
#include "fixture.hpp"
#include "parking_lot.hpp"

using namespace culm::testing;
using culm::runtime::Abort;
using culm::runtime::Embedder;
using culm::runtime::FdRequest;
using culm::runtime::kFdReadable;
using culm::runtime::kFdWritable;
using culm::runtime::Operation;
using culm::runtime::ParkingLot;
using culm::runtime::Wait;

namespace culm::runtime {
struct FiberProbe {
    static bool is_waiting(const Fiber& fiber) { return fiber.ticket_.load() != 0; }
};
}  // namespace culm::runtime
using culm::runtime::FiberProbe;

namespace {

// An operation in the hands of somebody who cannot be stopped, like the kernel with a buffer.
struct Stubborn {
    Wait* wait = nullptr;
    int aborts = 0;
    bool is_stoppable = false;
    static Stubborn* current;

    static Abort abort(Wait& wait) noexcept {
        ++current->aborts;
        if (!current->is_stoppable) return Abort::kPending;
        CHECK(&wait == current->wait);
        current->wait = nullptr;
        return Abort::kDone;
    }
    Wake run(Scheduler& scheduler, std::int64_t deadline_ns = kNever) {
        static constexpr Operation operation{&Stubborn::abort};
        current = this;
        wait = &scheduler.begin_wait(WaitKind::kOperation, nullptr);
        wait->target.operation = &operation;
        return scheduler.await(deadline_ns);
    }
};
Stubborn* Stubborn::current = nullptr;

}  // namespace

TEST_CASE("a completion names its wait: the second of one wait, and one that comes too late, end nothing") {
    Simulation simulation;
    Scheduler& scheduler = *simulation.scheduler;
    Stubborn operation;
    operation.is_stoppable = true;
    Wake first = Wake::kClosed;
    Wake second = Wake::kClosed;
    auto fiber = small_fiber([&] {
        first = operation.run(scheduler);
        second = operation.run(scheduler, kSecond);
    });
    let_others_run();
    Wait& wait = *operation.wait;
    culm::runtime::ExtraWait late;  // another record of the first wait, whose completion takes its time
    late.fiber = &fiber.fiber();
    late.kind = WaitKind::kOperation;
    late.ticket = wait.ticket;
    late.index = 1;
    CHECK(scheduler.complete(wait));
    CHECK_FALSE(scheduler.complete(wait));
    CHECK_FALSE(scheduler.complete(late));
    let_others_run();
    CHECK(first == Wake::kNotified);
    CHECK(fiber.fiber().wait_kind() == WaitKind::kOperation);
    CHECK_FALSE(scheduler.complete(late));
    CHECK(fiber.fiber().state() == FiberState::kParked);
    fiber.join();
    CHECK(second == Wake::kTimeout);
    CHECK_FALSE(FiberProbe::is_waiting(scheduler.running()));
}

TEST_CASE("an operation that cannot be stopped keeps its fiber until it is complete; the cancel waits") {
    Simulation simulation;
    Scheduler& scheduler = *simulation.scheduler;
    Stubborn operation;
    std::vector<Wake> reasons;
    auto fiber = small_fiber([&] {
        reasons.push_back(operation.run(scheduler));
        reasons.push_back(scheduler.park(kSecond));
        reasons.push_back(scheduler.park(kMillisecond));
    });
    let_others_run();
    Scheduler::cancel(fiber.fiber());
    CHECK(operation.aborts == 1);
    CHECK(fiber.fiber().state() == FiberState::kParked);
    let_others_run();
    CHECK(reasons.empty());
    CHECK(scheduler.complete(*operation.wait));
    fiber.join();
    CHECK(reasons == std::vector{Wake::kNotified, Wake::kCancelled, Wake::kTimeout});
}

TEST_CASE("an operation that can be stopped is, by a cancel, a deadline and a signal") {
    Simulation simulation;
    Scheduler& scheduler = *simulation.scheduler;
    Stubborn operation;
    operation.is_stoppable = true;
    CHECK(operation.run(scheduler, kSecond) == Wake::kTimeout);
    CHECK(operation.aborts == 1);
    CHECK(operation.wait == nullptr);
    Wake reason = Wake::kClosed;
    auto fiber = small_fiber([&] { reason = operation.run(scheduler); });
    let_others_run();
    Scheduler::cancel(fiber.fiber());
    fiber.join();
    CHECK(reason == Wake::kCancelled);
    CHECK(operation.aborts == 2);
    auto interrupter = small_fiber([&] { scheduler.interrupt_main(); });
    CHECK(operation.run(scheduler) == Wake::kInterrupted);
    interrupter.join();
    CHECK(operation.aborts == 3);
}

TEST_CASE("of several descriptors one wins; the others are watched no longer when the fiber runs") {
    Simulation simulation;
    Scheduler& scheduler = *simulation.scheduler;
    for (std::size_t winner = 0; winner < 3; ++winner) {
        std::array<FdRequest, 3> requests{
            {{3, kFdReadable, 0}, {4, kFdReadable | kFdWritable, 0}, {5, kFdReadable, 0}}};
        std::size_t watched = 99;
        auto fiber = small_fiber([&] {
            CHECK(scheduler.wait_fds(requests, kSecond * 9) == Wake::kNotified);
            watched = simulation.reactor->waiting();
        });
        let_others_run();
        CHECK(simulation.reactor->waiting() == 3);
        simulation.reactor->set_ready(requests[winner].fd, kFdReadable);
        fiber.join();
        simulation.reactor->clear_ready(requests[winner].fd, kFdReadable);
        CHECK(watched == 0);
        for (std::size_t i = 0; i < 3; ++i) CHECK((requests[i].ready != 0) == (i == winner));
    }
    CHECK(scheduler.statistics().timers == 0);
}

TEST_CASE("two descriptors that are ready at once are one wake") {
    Simulation simulation;
    Scheduler& scheduler = *simulation.scheduler;
    std::array<FdRequest, 2> requests{{{3, kFdReadable, 0}, {4, kFdReadable, 0}}};
    int wakes = 0;
    Wake after = Wake::kNotified;
    auto fiber = small_fiber([&] {
        CHECK(scheduler.wait_fds(requests) == Wake::kNotified);
        ++wakes;
        after = scheduler.park(kMillisecond);
    });
    let_others_run();
    simulation.reactor->set_ready(3, kFdReadable);
    simulation.reactor->set_ready(4, kFdReadable);
    fiber.join();
    CHECK(wakes == 1);
    CHECK(after == Wake::kTimeout);
    CHECK(requests[0].ready != 0);
    CHECK(requests[1].ready != 0);
}

TEST_CASE("what runs when a fiber arrives may wait itself, and nothing of the wait before ends that") {
    static bool nests = false;
    static Wake nested = Wake::kClosed;
    Embedder embedder;
    embedder.switching.arrived = [](Fiber& now) {
        if (!nests || now.is_main()) return;
        nests = false;
        nested = now.scheduler().park(now.scheduler().clock().now_ns() + kSecond);
    };
    culm::runtime::set_embedder(embedder);
    {
        Simulation simulation;
        Scheduler& scheduler = *simulation.scheduler;
        std::array<FdRequest, 2> requests{{{3, kFdReadable, 0}, {4, kFdReadable, 0}}};
        auto fiber = small_fiber([&] {
            CHECK(scheduler.wait_fds(requests) == Wake::kNotified);
            CHECK(requests[0].ready == kFdReadable);
            CHECK(requests[1].ready == 0);
        });
        let_others_run();
        nests = true;
        simulation.reactor->set_ready(3, kFdReadable);
        simulation.scheduler->sleep_until(simulation.now_ns() + 1);
        CHECK(fiber.fiber().wait_kind() == WaitKind::kPermit);
        simulation.reactor->set_ready(4, kFdReadable);  // the wait for it is over
        scheduler.forget_fd(4);
        CHECK(fiber.fiber().state() == FiberState::kParked);
        fiber.join();
        CHECK(nested == Wake::kTimeout);
    }
    {
        // The value that a switch sends is the switched fiber's own, though it waits once more before it takes it.
        Simulation simulation;
        Scheduler& scheduler = *simulation.scheduler;
        int sent = 7;
        void* received = nullptr;
        auto fiber = small_fiber([&] { received = scheduler.park().value; });
        let_others_run();
        nests = true;
        CHECK(Scheduler::unpark(fiber.fiber(), &sent) == culm::runtime::Sent::kSent);
        let_others_run();
        CHECK(received == nullptr);
        fiber.join();
        CHECK(nested == Wake::kTimeout);
        CHECK(received == &sent);
    }
    culm::runtime::set_embedder({});
}

TEST_CASE("a value sent from another thread and one sent by a switch both arrive, each once") {
    SchedulerForTest scheduler;
    int by_thread = 1;
    int by_switch = 2;
    std::vector<void*> received;
    auto fiber = small_fiber([&] {
        received.push_back(scheduler->park().value);
        received.push_back(scheduler->park().value);
        Scheduler::unpark(scheduler->main_fiber());
    });
    let_others_run();
    std::thread([&] {
        CHECK(Scheduler::unpark(fiber.fiber(), &by_thread) == culm::runtime::Sent::kSent);
        CHECK(Scheduler::unpark(fiber.fiber(), &by_thread) == culm::runtime::Sent::kBusy);
    }).join();
    // The thread's request has not been looked at yet.
    CHECK(scheduler->switch_to(fiber.fiber(), &by_switch) == Wake::kNotified);
    fiber.join();
    CHECK(received == std::vector<void*>{&by_switch, &by_thread});
}

TEST_CASE("a value that is on its way is not overtaken; a permit without one is the same permit") {
    Simulation simulation;
    Scheduler& scheduler = *simulation.scheduler;
    int one = 1;
    int two = 2;
    std::vector<void*> received;
    auto fiber = small_fiber([&] {
        received.push_back(scheduler.park().value);
        received.push_back(scheduler.park().value);
    });
    let_others_run();
    using culm::runtime::Sent;
    CHECK(Scheduler::unpark(fiber.fiber(), &one) == Sent::kSent);
    CHECK(Scheduler::unpark(fiber.fiber(), &two) == Sent::kBusy);
    CHECK(fiber.fiber().value_sent() == &one);
    let_others_run();
    CHECK(Scheduler::unpark(fiber.fiber(), &two) == Sent::kSent);
    fiber.join();
    CHECK(received == std::vector<void*>{&one, &two});
    CHECK(Scheduler::unpark(scheduler.main_fiber(), &one) == Sent::kSent);
    CHECK(Scheduler::unpark(scheduler.main_fiber(), &two) == Sent::kBusy);
    CHECK(Scheduler::unpark(scheduler.main_fiber()) == Sent::kSent);
    CHECK(scheduler.main_fiber().value_of_permit() == &one);
    CHECK(scheduler.park().value == &one);
    CHECK(scheduler.park(0) == Wake::kTimeout);
}

TEST_CASE("the parking lot: first come first served per key, closed for all, passed on") {
    Simulation simulation;
    Scheduler& scheduler = *simulation.scheduler;
    ParkingLot& lot = ParkingLot::get();
    const int one = 0;
    const int two = 0;
    std::vector<std::string> log;
    auto waiter = [&](const char* name, const void* key, bool at_front = false) {
        return small_fiber([&scheduler, &lot, &log, name, key, at_front] {
            lot.link(scheduler.begin_wait(WaitKind::kLock, key, true), at_front);
            const Wake wake = scheduler.await(kNever);
            log.push_back(std::string(name) + (wake == Wake::kNotified ? "" : wake == Wake::kClosed ? "!" : "?"));
        });
    };
    auto a = waiter("a", &one);
    let_others_run();
    auto b = waiter("b", &two);
    let_others_run();
    auto c = waiter("c", &one);
    let_others_run();
    auto d = waiter("d", &one, true);
    let_others_run();
    CHECK(lot.wake_one(&one));
    let_others_run();
    CHECK(log == std::vector<std::string>{"d"});
    Scheduler::cancel(a.fiber());
    let_others_run();
    CHECK(log.back() == "a?");
    CHECK(lot.wake_one(&one));
    let_others_run();
    CHECK(log.back() == "c");
    CHECK_FALSE(lot.wake_one(&one));
    lot.wake_all(&two, true);
    b.join();
    CHECK(log.back() == "b!");
    for (auto* fiber : {&a, &c, &d}) fiber->join();
}

TEST_CASE("a wake that comes while its fiber has linked itself and not parked yet is not lost") {
    SchedulerForTest scheduler;
    ParkingLot& lot = ParkingLot::get();
    const int key = 0;
    for (int round = 0; round < 200; ++round) {
        lot.link(scheduler->begin_wait(WaitKind::kLock, &key, true), false);
        std::thread([&] { CHECK(lot.wake_one(&key)); }).join();
        if (round % 2 == 0) {
            CHECK(scheduler->await(kNever) == Wake::kNotified);
        } else {
            CHECK(scheduler->give_up_wait());
        }
        // The request that told of it finds nothing to wake any more.
        CHECK(scheduler->park(scheduler->clock().now_ns()) == Wake::kTimeout);
    }
}

TEST_CASE("that a lock was destroyed ends the wait for it, and is not said of the next wait") {
    SchedulerForTest scheduler;
    ParkingLot& lot = ParkingLot::get();
    const int key = 0;
    for (const bool gives_up : {false, true}) {
        CAPTURE(gives_up);
        lot.link(scheduler->begin_wait(WaitKind::kLock, &key, true), false);
        std::thread([&] { lot.wake_all(&key, true); }).join();
        if (gives_up) {
            CHECK(scheduler->give_up_wait());
        } else {
            CHECK(scheduler->await(kNever) == Wake::kClosed);
        }
        auto unparker = small_fiber([&] { Scheduler::unpark(scheduler->main_fiber()); });
        CHECK(scheduler->park() == Wake::kNotified);
        unparker.join();
    }
}

TEST_CASE("threads wake fibers of other threads by key: every wake reaches one fiber, none is lost") {
    constexpr int kFibers = 50;
    constexpr int kRounds = 40;
    SchedulerForTest scheduler;
    ParkingLot& lot = ParkingLot::get();
    const int key = 0;
    int woken = 0;
    std::vector<culm::JoinHandle> fibers;
    for (int i = 0; i < kFibers; ++i) {
        fibers.push_back(small_fiber([&] {
            for (int round = 0; round < kRounds; ++round) {
                lot.link(scheduler->begin_wait(WaitKind::kLock, &key, true), false);
                CHECK(scheduler->await(kNever) == Wake::kNotified);
                ++woken;
            }
        }));
    }
    std::vector<std::thread> threads;
    for (int i = 0; i < 2; ++i) {
        threads.emplace_back([&] {
            for (int left = kFibers * kRounds / 2; left > 0;) left -= lot.wake_one(&key) ? 1 : 0;
        });
    }
    for (auto& fiber : fibers) fiber.join();
    for (auto& thread : threads) thread.join();
    CHECK(woken == kFibers * kRounds);
    CHECK_FALSE(lot.wake_one(&key));
}

TEST_CASE("misuse of a wait ends the process: two at once, a join of oneself, an empty handle") {
    SchedulerForTest scheduler;
    CHECK(run_misuse([&] {
              scheduler->begin_wait(WaitKind::kSleep, nullptr);
              scheduler->begin_wait(WaitKind::kSleep, nullptr);
          }).died_of(SIGABRT));
    const auto self_join = run_misuse([&] { scheduler->join(scheduler->running()); });
    CHECK(self_join.ended_by_check("a fiber cannot join itself"));
    const auto empty = run_misuse([&] {
        auto handle = small_fiber([] {});
        auto moved = std::move(handle);
        moved.join();
        handle.join();
    });
    CHECK(empty.ended_by_check("this JoinHandle is empty"));
    const auto twice = run_misuse([&] {
        culm::task task([] {});
        static_cast<void>(std::move(task).start());
        static_cast<void>(std::move(task).start());
    });
    CHECK(twice.ended_by_check("a task was started twice"));
}
