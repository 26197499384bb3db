// nanosleep, clock_nanosleep, usleep, sleep. Hours pass at once on the simulated clock.
#include <vector>

#include "harness.hpp"

namespace {

constexpr std::int64_t kSecond = 1'000'000'000;

// A scheduler whose clock jumps.
struct SimulatedProgram {
    SimulatedProgram() {
        victim();
        culm::runtime::SchedulerOptions options;
        options.clock = culm::runtime::make_simulated_clock(kSecond);
        const auto made = Scheduler::create(std::move(options));
        REQUIRE(made);
    }
    ~SimulatedProgram() { CHECK(Scheduler::close_current()); }
    std::int64_t now() const { return Scheduler::current()->clock().now_ns(); }
};

timespec after(clockid_t clock, std::int64_t seconds) {
    timespec point{};
    ::clock_gettime(clock, &point);
    point.tv_sec += seconds;
    return point;
}

}  // namespace

TEST_CASE("each kind of sleep takes the time it says") {
    SimulatedProgram program;
    const std::int64_t begin = program.now();
    const timespec hour{3600, 500};
    SUBCASE("nanosleep") {
        CHECK_OUTCOME(observe([&] { return victim().nanosleep(&hour, nullptr); }), 0, kErrnoBefore);
        CHECK(program.now() == begin + 3600 * kSecond + 500);
    }
    SUBCASE("clock_nanosleep") {
        CHECK_OUTCOME(observe([&] { return victim().clock_nanosleep(CLOCK_MONOTONIC, 0, &hour, nullptr); }), 0,
                      kErrnoBefore);
        CHECK(program.now() == begin + 3600 * kSecond + 500);
    }
    SUBCASE("usleep") {
        CHECK_OUTCOME(observe([&] { return victim().usleep(3'000'001); }), 0, kErrnoBefore);
        CHECK(program.now() == begin + 3 * kSecond + 1000);
    }
    SUBCASE("sleep") {
        CHECK_OUTCOME(observe([&] { return victim().sleep(86'400); }), 0, kErrnoBefore);
        CHECK(program.now() == begin + 86'400 * kSecond);
    }
    SUBCASE("a point in time") {
        for (const clockid_t clock : {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME}) {
            const std::int64_t start = program.now();
            const timespec point = after(clock, 1000);
            CHECK_OUTCOME(observe([&] { return victim().clock_nanosleep(clock, TIMER_ABSTIME, &point, nullptr); }), 0,
                          kErrnoBefore);
            CHECK(program.now() - start > 990 * kSecond);
            CHECK(program.now() - start <= 1000 * kSecond);
        }
    }
}

TEST_CASE("sleepers wake in the order of their times") {
    SimulatedProgram program;
    std::vector<int> order;
    std::vector<culm::JoinHandle> fibers;
    for (const int seconds : {5, 1, 4, 2, 3}) {
        fibers.push_back(culm::spawn([&order, seconds] {
            victim().sleep(static_cast<unsigned>(seconds));
            order.push_back(seconds);
        }));
    }
    for (culm::JoinHandle& fiber : fibers) fiber.join();
    CHECK(order == std::vector<int>{1, 2, 3, 4, 5});
}

TEST_CASE("a sleep of no time, and one until a point that has passed, let others run") {
    Program program;
    victim();
    const timespec zero{0, 0};
    const timespec past = after(CLOCK_MONOTONIC, -1);
    int ran = 0;
    const auto count = [&] { culm::spawn([&] { ++ran; }); };
    count();
    CHECK_OUTCOME(observe([&] { return victim().nanosleep(&zero, nullptr); }), 0, kErrnoBefore);
    CHECK(ran == 1);
    count();
    CHECK_OUTCOME(observe([&] { return victim().sleep(0); }), 0, kErrnoBefore);
    CHECK(ran == 2);
    count();
    CHECK_OUTCOME(observe([&] { return victim().usleep(0); }), 0, kErrnoBefore);
    CHECK(ran == 3);
    count();
    CHECK_OUTCOME(observe([&] { return victim().clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &past, nullptr); }), 0,
                  kErrnoBefore);
    CHECK(ran == 4);
}

TEST_CASE("a signal ends a sleep and tells what was left") {
    Program program;
    const timespec hour{3600, 0};
    timespec left{};
    CHECK_OUTCOME(interrupted([&] { return victim().nanosleep(&hour, &left); }), -1, EINTR);
    CHECK(left.tv_sec >= 3500);
    CHECK(left.tv_sec < 3600);
    left = {};
    CHECK_OUTCOME(interrupted([&] { return victim().clock_nanosleep(CLOCK_MONOTONIC, 0, &hour, &left); }), EINTR,
                  kErrnoBefore);
    CHECK(left.tv_sec >= 3500);
    const Outcome slept = interrupted([&] { return victim().sleep(3600); });
    CHECK(slept.result >= 3500);
    CHECK(slept.result <= 3600);
    const timespec point = after(CLOCK_REALTIME, 3600);
    CHECK_OUTCOME(interrupted([&] { return victim().clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &point, &left); }),
                  EINTR, kErrnoBefore);
}

TEST_CASE("a cancellation ends a sleep") {
    Program program;
    const timespec hour{3600, 0};
    CHECK_OUTCOME(cancelled([&] { return victim().nanosleep(&hour, nullptr); }), -1, ECANCELED);
    CHECK_OUTCOME(cancelled([&] { return victim().usleep(4'000'000'000U); }), -1, ECANCELED);
    CHECK_OUTCOME(cancelled([&] { return victim().clock_nanosleep(CLOCK_MONOTONIC, 0, &hour, nullptr); }), ECANCELED,
                  kErrnoBefore);
}

TEST_CASE("bad arguments fail as in libc") {
    Program program;
    const timespec negative{-1, 0};
    const timespec wrong{0, 1'000'000'000};
    CHECK_OUTCOME(observe([&] { return victim().nanosleep(&negative, nullptr); }), -1, EINVAL);
    CHECK_OUTCOME(observe([&] { return victim().nanosleep(&wrong, nullptr); }), -1, EINVAL);
    CHECK_OUTCOME(observe([&] { return victim().nanosleep(nullptr, nullptr); }), -1, EFAULT);
    CHECK_OUTCOME(observe([&] { return victim().clock_nanosleep(12345, 0, &wrong, nullptr); }), EINVAL, kErrnoBefore);
}

TEST_CASE("a thread without a scheduler sleeps for real") {
    victim();
    const timespec short_time{0, 1'000'000};
    CHECK_OUTCOME(on_plain_thread([&] { return victim().nanosleep(&short_time, nullptr); }, [] {}), 0, kErrnoBefore);
    CHECK_OUTCOME(on_plain_thread([&] { return victim().usleep(1000); }, [] {}), 0, kErrnoBefore);
}
