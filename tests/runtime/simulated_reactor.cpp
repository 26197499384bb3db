// Waiting for descriptors on the simulated reactor: the rules, without a kernel.
#include <sys/epoll.h>

#include <vector>

#include "fixture.hpp"

using namespace culm::testing;
using culm::runtime::FdRequest;

TEST_CASE("a wait ends when its descriptor is ready, with what came") {
    Simulation simulation;
    Scheduler& scheduler = *simulation.scheduler;
    FdRequest request{5, EPOLLIN | EPOLLOUT, 0};
    auto fiber = small_fiber([&] { CHECK(scheduler.wait_fd(request) == Wake::kNotified); });
    let_others_run();
    CHECK(fiber.fiber().wait_kind() == WaitKind::kFd);
    CHECK(fiber.fiber().wait_object() == 5);
    CHECK(scheduler.statistics().fd_waits == 1);
    simulation.reactor->set_ready(5, EPOLLOUT);
    fiber.join();
    CHECK(request.ready == EPOLLOUT);
    CHECK(scheduler.statistics().fd_waits == 0);
}

TEST_CASE("a deadline ends a wait, and what is ready comes before time passes") {
    Simulation simulation;
    Scheduler& scheduler = *simulation.scheduler;
    FdRequest request{5, EPOLLIN, 0};
    CHECK(scheduler.wait_fd(request, kSecond) == Wake::kTimeout);
    CHECK(request.ready == 0);
    CHECK(simulation.reactor->waiting() == 0);
    simulation.reactor->set_ready(5, EPOLLIN);
    CHECK(scheduler.wait_fd(request, 2 * kSecond) == Wake::kNotified);
    CHECK(simulation.now_ns() == kSecond);
}

TEST_CASE("several waits: all that is ready at once is reported, the others are withdrawn") {
    Simulation simulation;
    Scheduler& scheduler = *simulation.scheduler;
    std::vector<FdRequest> requests;
    for (int fd = 0; fd < 2000; ++fd) requests.push_back({fd, EPOLLIN, 99});
    simulation.reactor->set_ready(7, EPOLLIN);
    simulation.reactor->set_ready(1999, EPOLLIN | EPOLLOUT);
    CHECK(scheduler.wait_fds(requests) == Wake::kNotified);
    for (const FdRequest& request : requests) {
        CHECK(request.ready == (request.fd == 7 || request.fd == 1999 ? EPOLLIN : 0u));
    }
    CHECK(simulation.reactor->waiting() == 0);
    CHECK(scheduler.statistics().fd_waits == 0);
    CHECK(scheduler.wait_fds({}, kSecond) == Wake::kTimeout);
}

TEST_CASE("a bad descriptor among several answers at once") {
    Simulation simulation;
    FdRequest requests[] = {{3, EPOLLIN, 0}, {-1, EPOLLIN, 0}};
    CHECK(simulation.scheduler->wait_fds(requests) == Wake::kNotified);
    CHECK(requests[0].ready == 0);
    CHECK(requests[1].ready == culm::runtime::kFdInvalid);
    CHECK(simulation.reactor->waiting() == 0);
}

TEST_CASE("an event wakes the first waiter of its direction, a hang-up wakes all") {
    Simulation simulation;
    Scheduler& scheduler = *simulation.scheduler;
    std::string log;
    std::vector<culm::JoinHandle> fibers;
    auto wait = [&](char name, std::uint32_t wanted) {
        fibers.push_back(small_fiber([&, name, wanted] {
            FdRequest request{5, wanted, 0};
            scheduler.wait_fd(request);
            log += name;
            simulation.reactor->clear_ready(5, wanted);
        }));
    };
    wait('a', EPOLLIN);
    wait('b', EPOLLIN);
    wait('w', EPOLLOUT);
    wait('c', EPOLLIN);
    let_others_run();
    simulation.reactor->set_ready(5, EPOLLIN | EPOLLOUT);
    fibers[0].join();
    fibers[2].join();
    CHECK(log == "aw");
    simulation.reactor->set_ready(5, EPOLLHUP);
    for (auto& fiber : fibers) fiber.join();
    CHECK(log == "awbc");
}

TEST_CASE("forget_fd tells a waiter that is ready and has not run yet") {
    Simulation simulation;
    Scheduler& scheduler = *simulation.scheduler;
    Wake told[2] = {Wake::kTimeout, Wake::kTimeout};
    auto wait = [&](int mine, int other) {
        FdRequest request{mine, EPOLLIN, 0};
        told[mine - 5] = scheduler.wait_fd(request);
        scheduler.forget_fd(other);
    };
    auto one = small_fiber([&] { wait(5, 6); });
    auto other = small_fiber([&] { wait(6, 5); });
    let_others_run();
    simulation.reactor->set_ready(5, EPOLLIN);
    simulation.reactor->set_ready(6, EPOLLIN);
    one.join();
    other.join();
    CHECK(told[0] == Wake::kNotified);
    CHECK(told[1] == Wake::kClosed);
    FdRequest afresh{6, EPOLLIN, 0};
    simulation.reactor->set_ready(6, EPOLLIN);
    CHECK(scheduler.wait_fd(afresh) == Wake::kNotified);
}

TEST_CASE("forget_fd tells waiters that the descriptor is closed") {
    Simulation simulation;
    Scheduler& scheduler = *simulation.scheduler;
    int closed = 0;
    auto wait = [&] {
        FdRequest request{5, EPOLLIN, 0};
        closed += scheduler.wait_fd(request) == Wake::kClosed ? 1 : 0;
    };
    auto one = small_fiber(wait);
    auto other = small_fiber(wait);
    let_others_run();
    scheduler.forget_fd(5);
    scheduler.forget_fd(-1);
    one.join();
    other.join();
    CHECK(closed == 2);
}

TEST_CASE("with nothing ready and no deadline, a call from another thread ends the wait") {
    Simulation simulation;
    Scheduler& scheduler = *simulation.scheduler;
    // Posted before the wait begins or during it: either must do.
    REQUIRE(scheduler.post([](Scheduler& here, void*) { here.unpark(here.main_fiber()); }, nullptr));
    CHECK(scheduler.park() == Wake::kNotified);
}
