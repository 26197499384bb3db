// Deadlines on the simulated clock: order, ties, limits, and the heap against a plain model.
#include <algorithm>
#include <random>
#include <vector>

#include "fixture.hpp"

using namespace culm::testing;
using culm::runtime::deadline_after;

TEST_CASE("sleepers wake in the order of their deadlines, equal ones in the order of their calls") {
    Simulation simulation;
    std::string log;
    std::vector<culm::JoinHandle> fibers;
    const std::pair<char, std::int64_t> sleepers[] = {{'a', 30}, {'b', 10}, {'c', 20}, {'d', 10}, {'e', 10}, {'f', 30}};
    for (const auto& [name, deadline_ns] : sleepers) {
        fibers.push_back(small_fiber([&log, name = name, deadline_ns = deadline_ns] {
            CHECK(Scheduler::current()->sleep_until(deadline_ns) == Wake::kTimeout);
            log += name;
        }));
    }
    for (auto& fiber : fibers) fiber.join();
    CHECK(log == "bdecaf");
    CHECK(simulation.now_ns() == 30);
}

TEST_CASE("an hour takes no time on the simulated clock") {
    Simulation simulation;
    CHECK(culm::sleep_for(std::chrono::hours(1)) == Wake::kTimeout);
    CHECK(simulation.now_ns() == 3600 * kSecond);
}

TEST_CASE("deadlines in the past and negative durations give the others a turn and return") {
    Simulation simulation;
    Scheduler& scheduler = *simulation.scheduler;
    culm::sleep_for(std::chrono::seconds(1));
    bool ran = false;
    auto other = small_fiber([&] { ran = true; });
    CHECK(culm::sleep_for(std::chrono::seconds(-5)) == Wake::kTimeout);
    CHECK(ran);
    CHECK(scheduler.sleep_until(0) == Wake::kTimeout);
    CHECK(scheduler.park(0) == Wake::kTimeout);
    CHECK(scheduler.sleep_until(INT64_MIN) == Wake::kTimeout);
    CHECK(simulation.now_ns() == kSecond);
    other.join();
}

TEST_CASE("never is never: no timer is set") {
    Simulation simulation;
    Scheduler& scheduler = *simulation.scheduler;
    auto fiber = small_fiber([&] { CHECK(scheduler.sleep_until(kNever) == Wake::kCancelled); });
    let_others_run();
    CHECK(scheduler.statistics().timers == 0);
    CHECK(scheduler.deadline_of(fiber.fiber()) == kNever);
    scheduler.cancel(fiber.fiber());
    fiber.join();
}

TEST_CASE("a deadline does not overflow") {
    CHECK(deadline_after(5, kNever) == kNever);
    CHECK(deadline_after(kNever - 1, 1) == kNever);
    CHECK(deadline_after(kNever - 2, 1) == kNever - 1);
    CHECK(deadline_after(7, 0) == 7);
    CHECK(deadline_after(7, -1) == 7);
}

TEST_CASE("being notified first takes the fiber out of the timers") {
    Simulation simulation;
    Scheduler& scheduler = *simulation.scheduler;
    auto fiber = small_fiber([&] { CHECK(scheduler.park(kSecond) == Wake::kNotified); });
    let_others_run();
    CHECK(scheduler.deadline_of(fiber.fiber()) == kSecond);
    scheduler.unpark(fiber.fiber());
    CHECK(scheduler.statistics().timers == 0);
    fiber.join();
    CHECK(simulation.now_ns() == 0);
}

TEST_CASE("a thousand sleepers, some cancelled, wake in sorted order") {
    const std::uint32_t seed = std::random_device{}();
    CAPTURE(seed);
    std::mt19937 random(seed);
    Simulation simulation;
    Scheduler& scheduler = *simulation.scheduler;
    std::vector<std::int64_t> expected;
    std::vector<std::int64_t> woken;
    std::vector<culm::JoinHandle> fibers;
    std::vector<std::int64_t> deadlines;
    for (int i = 0; i < 1000; ++i) {
        const std::int64_t deadline_ns = 1 + static_cast<std::int64_t>(random() % 500);
        deadlines.push_back(deadline_ns);
        fibers.push_back(culm::spawn(
            [&scheduler, &woken, deadline_ns] {
                if (scheduler.sleep_until(deadline_ns) == Wake::kTimeout) woken.push_back(deadline_ns);
            },
            {.stack_class = culm::StackClass::k64K}));
    }
    let_others_run();
    for (std::size_t i = 0; i < fibers.size(); ++i) {
        if (random() % 3 == 0) {
            scheduler.cancel(fibers[i].fiber());
        } else {
            expected.push_back(deadlines[i]);
        }
    }
    std::sort(expected.begin(), expected.end());
    for (auto& fiber : fibers) fiber.join();
    CHECK(woken == expected);
}

TEST_CASE("the monotonic clock does not go back and the scheduler wakes at a real deadline") {
    SchedulerForTest scheduler;
    const std::int64_t before_ns = scheduler->clock().now_ns();
    const std::int64_t deadline_ns = before_ns + 2 * kMillisecond;
    CHECK(scheduler->sleep_until(deadline_ns) == Wake::kTimeout);
    CHECK(scheduler->clock().now_ns() >= deadline_ns);
}
