// Cancel at the n-th park, for every n: of programs that use each kind of wait, cancelled by their own thread and by
// another one. Whatever happens, nothing is lost, linked or held afterwards.
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <functional>
#include <thread>
#include <vector>

#include "culm/runtime/io.hpp"
#include "culm/runtime/scope.hpp"
#include "fixture.hpp"
#include "parking_lot.hpp"

using namespace culm::testing;
using culm::runtime::FdRequest;
using culm::runtime::kFdReadable;
using culm::runtime::ParkingLot;
using culm::runtime::Scope;
using culm::runtime::WaitQueue;

namespace {

// A lock for fibers of several threads: what the interpreter's semaphores come down to.
class Semaphore {
public:
    explicit Semaphore(int count) : count_(count) {}

    bool try_take() noexcept {
        int count = count_.load();
        while (count > 0) {
            if (count_.compare_exchange_weak(count, count - 1)) return true;
        }
        return false;
    }
    // False: cancelled.
    bool take(Scheduler& scheduler) {
        while (!try_take()) {
            ParkingLot::get().link(scheduler.begin_wait(WaitKind::kLock, this, true), false);
            if (try_take()) {
                if (scheduler.give_up_wait()) ParkingLot::get().wake_one(this);
                return true;
            }
            const Wake wake = scheduler.await(kNever);
            if (wake == Wake::kCancelled) return false;
        }
        return true;
    }
    void post() {
        count_.fetch_add(1);
        ParkingLot::get().wake_one(this);
    }
    int count() const { return count_.load(); }

private:
    std::atomic<int> count_;
};

// The program under test, and what keeps it going: each wait is ended by a partner fiber. Counts the waits of the
// program and cancels it at the one that is asked for.
struct Course {
    Scheduler& scheduler;
    int cancel_at = 0;       // 0: never
    bool by_thread = false;  // from another OS thread
    int parks = 0;
    int cancelled = 0;  // waits that ended so
    Fiber* program = nullptr;

    // Before each wait of the program.
    void note() {
        if (++parks == cancel_at && !by_thread) Scheduler::cancel(scheduler.running());
        if (parks == cancel_at && by_thread) {
            program->retain();
            std::thread([fiber = program] {
                Scheduler::cancel(*fiber);
                fiber->release();
            }).join();
            while (!program->cancel_requested()) culm::yield_now();  // until the request has been looked at
        }
    }
    Wake seen(Wake wake) {
        if (wake == Wake::kCancelled) ++cancelled;
        return wake;
    }
};

constexpr int kParks = 8;  // of the program below

struct World {
    SchedulerForTest scheduler;
    std::array<int, 2> ends{-1, -1};
    WaitQueue queue;
    Semaphore semaphore{0};
    bool over = false;
    std::atomic<bool> foreign_may_end{false};  // once somebody waits for it

    World() { REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()) == 0); }
    ~World() {
        for (const int end : ends) close(end);
    }
};

// Uses every kind of wait once or more, in a scope with a far deadline.
void run_program(World& world, Course& course) {
    Scheduler& scheduler = *world.scheduler;
    Scope scope;
    scope.set_deadline(scheduler.clock().now_ns() + 3600 * kSecond);
    REQUIRE(scope.enter(scheduler));
    course.note();
    course.seen(scheduler.park());
    course.note();
    course.seen(scheduler.sleep_until(scheduler.clock().now_ns() + 1000));
    course.note();
    course.seen(world.queue.wait(scheduler, WaitKind::kQueue));
    FdRequest request{world.ends[0], kFdReadable, 0};
    course.note();
    if (course.seen(scheduler.wait_fd(request)) == Wake::kNotified) {
        char byte = 0;
        CHECK(read(world.ends[0], &byte, 1) == 1);
    }
    std::array<FdRequest, 2> requests{{{world.ends[0], kFdReadable, 0}, {world.ends[1], kFdReadable, 0}}};
    course.note();
    if (course.seen(scheduler.wait_fds(requests, scheduler.clock().now_ns() + 3600 * kSecond)) == Wake::kNotified) {
        char byte = 0;
        CHECK(read(world.ends[0], &byte, 1) == 1);
    }
    course.note();
    if (world.semaphore.take(scheduler)) {
        world.semaphore.post();
    } else {
        ++course.cancelled;
    }
    auto child = small_fiber([&] { scheduler.sleep_until(scheduler.clock().now_ns() + 1000); });
    course.note();
    course.seen(child.join());
    std::atomic<Fiber*> foreign{nullptr};
    std::thread other([&] {
        auto fiber = culm::spawn([&] {
            while (!world.foreign_may_end) culm::yield_now();
        });
        fiber.fiber().retain();
        foreign = &fiber.fiber();
        fiber.join();
    });
    while (!foreign) culm::yield_now();
    course.note();
    course.seen(scheduler.join(*foreign.load()));
    world.foreign_may_end = true;
    other.join();
    foreign.load()->release();
    scope.leave();
    child.join();
}

// Ends whatever the program waits for, again and again, until it is over.
void keep_going(World& world, Course& course) {
    while (!world.over) {
        Fiber& program = *course.program;
        if (program.state() == FiberState::kParked) {
            switch (program.wait_kind()) {
                case WaitKind::kPermit:
                    Scheduler::unpark(program);
                    break;
                case WaitKind::kQueue:
                    world.queue.notify_one();
                    break;
                case WaitKind::kFd: {
                    CHECK(write(world.ends[1], "x", 1) == 1);
                    const int served = course.parks;
                    while (course.parks == served && program.state() == FiberState::kParked) culm::yield_now();
                    break;
                }
                case WaitKind::kLock:
                    if (world.semaphore.count() == 0) world.semaphore.post();
                    break;
                case WaitKind::kJoin:
                    world.foreign_may_end = course.parks == kParks;
                    break;
                default:
                    break;
            }
        }
        culm::yield_now();
    }
}

int run_course(int cancel_at, bool by_thread) {
    World world;
    Scheduler& scheduler = *world.scheduler;
    Course course{.scheduler = scheduler, .cancel_at = cancel_at, .by_thread = by_thread};
    auto program = small_fiber([&] {
        course.program = &scheduler.running();
        run_program(world, course);
        world.over = true;
    });
    auto partner = small_fiber([&] { keep_going(world, course); });
    program.join();
    partner.join();
    CAPTURE(cancel_at);
    CAPTURE(by_thread);
    CHECK(course.cancelled == (cancel_at == 0 ? 0 : 1));
    CHECK_FALSE(program.fiber().cancel_requested());
    CHECK(world.queue.empty());
    CHECK(world.semaphore.count() <= 1);
    CHECK_FALSE(ParkingLot::get().wake_one(&world.semaphore));
    CHECK(scheduler.reactor().waiting() == 0);
    const auto now = scheduler.statistics();
    CHECK(now.timers == 0);
    CHECK(now.fd_waits == 0);
    CHECK(now.fibers == 0);
    return course.parks;
}

}  // namespace

TEST_CASE(
    "cancel at the n-th park, for every n, from the own thread and from another: one wait ends, nothing is left") {
    const int parks = run_course(0, false);
    CHECK(parks == kParks);
    for (int n = 1; n <= parks; ++n) {
        run_course(n, false);
        run_course(n, true);
    }
}

TEST_CASE("cancelled by another thread at any moment: the program ends, each wait at most once, and nothing is left") {
    for (int round = 0; round < 60; ++round) {
        World world;
        Scheduler& scheduler = *world.scheduler;
        Course course{.scheduler = scheduler};
        std::atomic<Fiber*> target{nullptr};
        auto program = small_fiber([&] {
            course.program = &scheduler.running();
            course.program->retain();
            target = course.program;
            run_program(world, course);
            world.over = true;
        });
        std::thread canceller([&] {
            while (!target) std::this_thread::yield();
            for (int i = 0; i < 5; ++i) {
                Scheduler::cancel(*target.load());
                std::this_thread::yield();
            }
            target.load()->release();
        });
        auto partner = small_fiber([&] { keep_going(world, course); });
        program.join();
        partner.join();
        canceller.join();
        CHECK(course.cancelled <= 5);
        CHECK(world.queue.empty());
        CHECK_FALSE(ParkingLot::get().wake_one(&world.semaphore));
        CHECK(scheduler.reactor().waiting() == 0);
        CHECK(scheduler.statistics().timers == 0);
    }
}

TEST_CASE("joins across threads: joined before, while and after a fiber ends; cancelled and timed out") {
    for (int round = 0; round < 100; ++round) {
        std::atomic<Fiber*> shared{nullptr};
        std::atomic<bool> may_end{false};
        std::thread other([&] {
            auto fiber = culm::spawn([&] {
                while (!may_end) culm::yield_now();
            });
            fiber.fiber().retain();
            shared = &fiber.fiber();
            fiber.join();
        });
        while (!shared) std::this_thread::yield();
        {
            SchedulerForTest scheduler;
            Fiber& foreign = *shared.load();
            if (round % 4 == 0) may_end = true;
            CHECK(scheduler->join(foreign, round % 4 == 0 ? kNever : scheduler->clock().now_ns() + 1) ==
                  (round % 4 == 0 ? Wake::kNotified : Wake::kTimeout));
            auto joiner = small_fiber([&] { CHECK(scheduler->join(foreign) != Wake::kTimeout); });
            let_others_run();
            if (round % 3 == 0) joiner.cancel();
            may_end = true;
            CHECK(scheduler->join(foreign) == Wake::kNotified);
            joiner.join();
        }
        other.join();
        shared.load()->release();
    }
}
