// fork: the child goes on with the forking fiber alone, or with all; the parent notices nothing.
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <thread>

#include "culm/runtime/forking.hpp"
#include "fixture.hpp"

using namespace culm::testing;
using culm::runtime::FdRequest;

namespace {

// After a fork with several fibers ThreadSanitizer, which takes them for threads that are gone, stops following
// synchronisation in the child and reports switches between them as races.
#ifdef __SANITIZE_THREAD__
constexpr bool kFollowedAfterFork = false;
#else
constexpr bool kFollowedAfterFork = true;
#endif

int exit_code_of(pid_t child) {
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + status;
}

// Enough of the runtime to know that it works: timers, descriptors, new fibers, calls from outside.
bool works() {
    Scheduler& scheduler = *Scheduler::current();
    int ends[2];
    if (pipe(ends) != 0) return false;
    bool readable = false;
    auto reader = small_fiber([&] {
        FdRequest request{ends[0], EPOLLIN, 0};
        readable = scheduler.wait_fd(request) == Wake::kNotified && request.ready == EPOLLIN;
    });
    if (culm::sleep_for(std::chrono::milliseconds(1)) != Wake::kTimeout) return false;
    if (write(ends[1], "x", 1) != 1) return false;
    reader.join();
    scheduler.forget_fd(ends[0]);
    close(ends[0]);
    close(ends[1]);
    Fiber& self = scheduler.running();
    if (!scheduler.post([](Scheduler& here, void* fiber) { here.unpark(*static_cast<Fiber*>(fiber)); }, &self))
        return false;
    return readable && scheduler.park() == Wake::kNotified;
}

}  // namespace

TEST_CASE("a fiber forks: the child goes on with it alone, the parent with all") {
    SchedulerForTest scheduler;
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    int others_woken = 0;
    auto sleeper = small_fiber([&] {
        scheduler->park();
        ++others_woken;
    });
    auto waiter = small_fiber([&] {
        FdRequest request{ends[0], EPOLLIN, 0};
        scheduler->wait_fd(request);
        ++others_woken;
    });
    pid_t child = -1;
    auto forker = small_fiber([&] {
        child = fork();
        if (child != 0) return;
        if (scheduler->statistics().fibers != 1) _exit(1);
        if (scheduler->statistics().fd_waits != 0) _exit(2);
        if (sleeper.fiber().state() != FiberState::kFinished) _exit(3);
        scheduler->unpark(sleeper.fiber());
        if (!works()) _exit(4);
        _exit(others_woken == 0 ? 0 : 5);
    });
    forker.join();
    CHECK(exit_code_of(child) == 0);
    CHECK(works());
    scheduler->unpark(sleeper.fiber());
    REQUIRE(write(ends[1], "x", 1) == 1);
    sleeper.join();
    waiter.join();
    CHECK(others_woken == 2);
    close(ends[0]);
    close(ends[1]);
}

TEST_CASE("when the last fiber of such a child ends, the process ends with status 0") {
    SchedulerForTest scheduler;
    pid_t child = -1;
    bool in_child = false;
    auto forker = small_fiber([&] {
        child = fork();
        if (child != 0) return;
        in_child = true;
        small_fiber([] { culm::sleep_for(std::chrono::milliseconds(1)); });
        // No leak check here: what the abandoned stacks refer to counts as lost.
        std::atexit([] { _exit(0); });
    });
    forker.join();
    REQUIRE_FALSE(in_child);
    CHECK(exit_code_of(child) == 0);
}

TEST_CASE("the main fiber forks") {
    SchedulerForTest scheduler;
    auto parked = small_fiber([&] { scheduler->park(); });
    let_others_run();
    const pid_t child = fork();
    if (child == 0) {
        if (scheduler->statistics().fibers != 0) _exit(1);
        if (!works()) _exit(2);
        _exit(Scheduler::close_current() ? 0 : 3);
    }
    CHECK(exit_code_of(child) == 0);
    CHECK(works());
    scheduler->unpark(parked.fiber());
    parked.join();
}

TEST_CASE("keep_fibers: all go on in both processes") {
    if (!kFollowedAfterFork) return;
    SchedulerForTest scheduler;
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    int woken = 0;
    auto waiter = small_fiber([&] {
        FdRequest request{ends[0], EPOLLIN, 0};
        scheduler->wait_fd(request);
        ++woken;
    });
    auto sleeper = small_fiber([&] {
        culm::sleep_for(std::chrono::milliseconds(2));
        ++woken;
    });
    let_others_run();
    culm::runtime::keep_fibers_after_fork(true);
    const pid_t child = fork();
    culm::runtime::keep_fibers_after_fork(false);
    if (child != 0) CHECK(exit_code_of(child) == 0);
    const bool written = write(ends[1], "x", 1) == 1;
    waiter.join();
    sleeper.join();
    if (child == 0) _exit(written && woken == 2 && works() ? 0 : 1);
    CHECK(woken == 2);
    close(ends[0]);
    close(ends[1]);
}

TEST_CASE("the schedulers of other threads are given up in the child") {
    SchedulerForTest scheduler;
    Fiber* foreign = nullptr;
    Scheduler& here = *scheduler;
    std::thread other([&] {
        auto made = Scheduler::ensure();
        REQUIRE(made);
        foreign = &made.value()->main_fiber();
        foreign->retain();
        here.post([](Scheduler& owner, void*) { owner.unpark(owner.main_fiber()); }, nullptr);
        made.value()->park();
    });
    scheduler->park();
    const pid_t child = fork();
    if (child == 0) {
        if (foreign->scheduler().post([](Scheduler&, void*) {}, nullptr)) _exit(1);
        if (!foreign->scheduler().lost_in_fork()) _exit(3);
        if (scheduler->lost_in_fork()) _exit(4);
        _exit(works() ? 0 : 2);
    }
    CHECK(exit_code_of(child) == 0);
    CHECK(foreign->scheduler().post([](Scheduler& owner, void*) { owner.unpark(owner.main_fiber()); }, nullptr));
    other.join();
    foreign->release();
}
