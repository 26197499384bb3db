// sem_wait and its relatives: fibers, OS threads, and both for the same semaphore.
#include <array>
#include <cstdlib>
#include <random>
#include <vector>

#include "harness.hpp"

namespace {

struct Semaphore {
    explicit Semaphore(unsigned value = 0) { ::sem_init(&sem, 0, value); }
    ~Semaphore() { ::sem_destroy(&sem); }
    int value() {
        int result = 0;
        ::sem_getvalue(&sem, &result);
        return result;
    }
    sem_t sem;
};

timespec after_ns(clockid_t clock, long nanoseconds) {
    timespec point{};
    ::clock_gettime(clock, &point);
    point.tv_nsec += nanoseconds;
    point.tv_sec += point.tv_nsec / 1'000'000'000;
    point.tv_nsec %= 1'000'000'000;
    return point;
}

}  // namespace

TEST_CASE("a fiber waits for a post by another fiber") {
    Program program;
    Semaphore semaphore;
    const auto post = [&] { CHECK(victim().sem_post(&semaphore.sem) == 0); };
    const timespec minute = after_ns(CLOCK_MONOTONIC, 60'000'000'000);
    const timespec real_minute = after_ns(CLOCK_REALTIME, 60'000'000'000);
    CHECK_OUTCOME(parked_until([&] { return victim().sem_wait(&semaphore.sem); }, post), 0, kErrnoBefore);
    CHECK_OUTCOME(parked_until([&] { return victim().sem_clockwait(&semaphore.sem, CLOCK_MONOTONIC, &minute); }, post),
                  0, kErrnoBefore);
    CHECK_OUTCOME(parked_until([&] { return victim().sem_timedwait(&semaphore.sem, &real_minute); }, post), 0,
                  kErrnoBefore);
    CHECK(semaphore.value() == 0);
}

TEST_CASE("a semaphore that has a token is taken without parking") {
    Program program;
    Semaphore semaphore(2);
    const unsigned long parks = culm::runtime::interpose::statistics().parks;
    CHECK_OUTCOME(observe([&] { return victim().sem_wait(&semaphore.sem); }), 0, kErrnoBefore);
    const timespec past{0, 0};
    CHECK_OUTCOME(observe([&] { return victim().sem_clockwait(&semaphore.sem, CLOCK_MONOTONIC, &past); }), 0,
                  kErrnoBefore);
    CHECK(culm::runtime::interpose::statistics().parks == parks);
}

TEST_CASE("waits time out, are interrupted and cancelled") {
    Program program;
    Semaphore semaphore;
    const timespec soon = after_ns(CLOCK_MONOTONIC, 2'000'000);
    const timespec real_soon = after_ns(CLOCK_REALTIME, 2'000'000);
    const timespec past{0, 0};
    const timespec wrong{0, -1};
    CHECK_OUTCOME(observe([&] { return victim().sem_clockwait(&semaphore.sem, CLOCK_MONOTONIC, &soon); }), -1,
                  ETIMEDOUT);
    CHECK_OUTCOME(observe([&] { return victim().sem_timedwait(&semaphore.sem, &real_soon); }), -1, ETIMEDOUT);
    CHECK_OUTCOME(observe([&] { return victim().sem_timedwait(&semaphore.sem, &past); }), -1, ETIMEDOUT);
    CHECK_OUTCOME(observe([&] { return victim().sem_timedwait(&semaphore.sem, &wrong); }), -1, EINVAL);
    CHECK_OUTCOME(interrupted([&] { return victim().sem_wait(&semaphore.sem); }), -1, EINTR);
    CHECK_OUTCOME(cancelled([&] { return victim().sem_wait(&semaphore.sem); }), -1, EINTR);
    // None of them left anything behind.
    CHECK(victim().sem_post(&semaphore.sem) == 0);
    CHECK(semaphore.value() == 1);
}

TEST_CASE("fibers are served in the order they came") {
    Program program;
    Semaphore semaphore;
    std::vector<int> order;
    std::vector<culm::JoinHandle> fibers;
    for (int i = 0; i < 5; ++i) {
        fibers.push_back(culm::spawn([&, i] {
            CHECK(victim().sem_wait(&semaphore.sem) == 0);
            order.push_back(i);
        }));
    }
    while (fibers.back().fiber().state() != FiberState::kParked) culm::yield_now();
    CHECK(fibers[0].fiber().wait_kind() == WaitKind::kLock);
    CHECK(fibers[0].fiber().wait_object() == reinterpret_cast<std::uintptr_t>(&semaphore.sem));
    for (int i = 0; i < 5; ++i) CHECK(victim().sem_post(&semaphore.sem) == 0);
    for (culm::JoinHandle& fiber : fibers) fiber.join();
    CHECK(order == std::vector<int>{0, 1, 2, 3, 4});
}

TEST_CASE("a fiber that is notified and beaten to the token waits on, at the front") {
    Program program;
    Semaphore semaphore;
    std::vector<int> order;
    auto first = culm::spawn([&] {
        CHECK(victim().sem_wait(&semaphore.sem) == 0);
        order.push_back(1);
    });
    auto second = culm::spawn([&] {
        CHECK(victim().sem_wait(&semaphore.sem) == 0);
        order.push_back(2);
    });
    while (second.fiber().state() != FiberState::kParked) culm::yield_now();
    CHECK(victim().sem_post(&semaphore.sem) == 0);
    CHECK(victim().sem_wait(&semaphore.sem) == 0);  // the token is here, and nobody else has run yet
    culm::yield_now();
    CHECK(first.fiber().state() == FiberState::kParked);
    CHECK(victim().sem_post(&semaphore.sem) == 0);
    CHECK(victim().sem_post(&semaphore.sem) == 0);
    first.join();
    second.join();
    CHECK(order == std::vector<int>{1, 2});
}

TEST_CASE("a notified fiber that is cancelled passes the token on") {
    Program program;
    Semaphore semaphore;
    Outcome first_outcome;
    auto first = culm::spawn([&] { first_outcome = observe([&] { return victim().sem_wait(&semaphore.sem); }); });
    bool second_done = false;
    auto second = culm::spawn([&] {
        CHECK(victim().sem_wait(&semaphore.sem) == 0);
        second_done = true;
    });
    while (second.fiber().state() != FiberState::kParked) culm::yield_now();
    program->cancel(first.fiber());                 // made ready, has not run
    CHECK(victim().sem_post(&semaphore.sem) == 0);  // still in the queue: notified too
    first.join();
    second.join();
    CHECK(first_outcome.result == -1);
    CHECK(first_outcome.error == EINTR);
    CHECK(second_done);
}

TEST_CASE("destroying a semaphore ends the waits of its fibers") {
    Program program;
    Semaphore semaphore;
    CHECK_OUTCOME(parked_until([&] { return victim().sem_wait(&semaphore.sem); },
                               [&] { CHECK(victim().sem_destroy(&semaphore.sem) == 0); }),
                  -1, EINVAL);
}

TEST_CASE("a waiter whose thread has ended takes no token from those who still wait") {
    Semaphore semaphore;
    Fiber* left = nullptr;
    std::thread([&] {
        // Not a lambda with captures: what a fiber owns is lost when it never runs again.
        auto body = [](Fiber&, void* sem) { victim().sem_wait(static_cast<sem_t*>(sem)); };
        auto started = Scheduler::ensure().value()->start({.body = body, .argument = &semaphore.sem});
        REQUIRE(started);
        left = started.value();
        while (left->state() != FiberState::kParked) culm::yield_now();
    }).join();
    Program program;
    CHECK_OUTCOME(parked_until([&] { return victim().sem_wait(&semaphore.sem); },
                               [&] { CHECK(victim().sem_post(&semaphore.sem) == 0); }),
                  0, kErrnoBefore);
    CHECK(semaphore.value() == 0);
    left->release();
}

TEST_CASE("a post by another OS thread wakes an idle scheduler") {
    Program program;
    Semaphore semaphore;
    for (int round = 0; round < 200; ++round) {
        std::thread poster([&] { victim().sem_post(&semaphore.sem); });
        CHECK_OUTCOME(observe([&] { return victim().sem_wait(&semaphore.sem); }), 0, kErrnoBefore);
        poster.join();
    }
    CHECK(semaphore.value() == 0);
}

TEST_CASE("a thread without a scheduler blocks for real, and is woken by a fiber") {
    Semaphore semaphore;
    CHECK_OUTCOME(on_plain_thread([&] { return victim().sem_wait(&semaphore.sem); },
                                  [&] {
                                      Program program;
                                      culm::spawn([&] { victim().sem_post(&semaphore.sem); }).join();
                                  }),
                  0, kErrnoBefore);
}

TEST_CASE("fibers and OS threads use one semaphore as a lock") {
    Program program;
    Semaphore lock(1);
    long shared = 0;  // guarded by the semaphore
    std::vector<std::thread> threads;
    constexpr int kThreads = 3;
    constexpr int kFibers = 20;
    constexpr int kRounds = 300;
    for (int i = 0; i < kThreads; ++i) {
        threads.emplace_back([&] {
            for (int round = 0; round < kRounds; ++round) {
                victim().sem_wait(&lock.sem);
                ++shared;
                victim().sem_post(&lock.sem);
            }
        });
    }
    std::vector<culm::JoinHandle> fibers;
    for (int i = 0; i < kFibers; ++i) {
        fibers.push_back(culm::spawn([&] {
            for (int round = 0; round < kRounds; ++round) {
                CHECK(victim().sem_wait(&lock.sem) == 0);
                ++shared;
                if (round % 7 == 0) culm::yield_now();
                victim().sem_post(&lock.sem);
            }
        }));
    }
    for (culm::JoinHandle& fiber : fibers) fiber.join();
    for (std::thread& thread : threads) thread.join();
    CHECK(shared == long{kThreads + kFibers} * kRounds);
    CHECK(lock.value() == 1);
}

// Four OS threads, each with a scheduler and fibers, and two without, pass tokens among a few semaphores. Waits time
// out and are cancelled at random; every token is accounted for at the end.
TEST_CASE("stress: no token is lost and no wake-up") {
    const char* given = std::getenv("CULM_TEST_SEED");
    const unsigned seed = given ? static_cast<unsigned>(std::strtoul(given, nullptr, 10)) : std::random_device{}();
    CAPTURE(seed);
    MESSAGE("seed " << seed);
    victim();
    constexpr int kSemaphores = 3;
    constexpr int kFibers = 12;
    constexpr int kRounds = 120;
    std::array<Semaphore, kSemaphores> semaphores;
    std::array<std::atomic<long>, kSemaphores> posted{};
    std::array<std::atomic<long>, kSemaphores> taken{};

    const auto act = [&](std::mt19937& random) {
        const std::size_t which = random() % kSemaphores;
        sem_t* sem = &semaphores[which].sem;
        if (random() % 2 == 0) {
            ++posted[which];
            victim().sem_post(sem);
            return;
        }
        const timespec deadline = after_ns(CLOCK_MONOTONIC, static_cast<long>(random() % 3'000'000));
        if (victim().sem_clockwait(sem, CLOCK_MONOTONIC, &deadline) == 0) ++taken[which];
    };

    const auto with_fibers = [&](unsigned number) {
        Program program;
        std::vector<culm::JoinHandle> fibers;
        for (unsigned i = 0; i < kFibers; ++i) {
            fibers.push_back(culm::spawn([&, i] {
                std::mt19937 random(seed + number * 1000 + i);
                for (int round = 0; round < kRounds; ++round) {
                    act(random);
                    if (random() % 4 == 0) culm::yield_now();
                }
            }));
        }
        std::mt19937 random(seed + number);
        for (int round = 0; round < kRounds; ++round) {
            Fiber& fiber = fibers[random() % kFibers].fiber();
            if (fiber.state() == FiberState::kParked && fiber.wait_kind() == WaitKind::kLock) {
                Scheduler::current()->cancel(fiber);
            }
            culm::yield_now();
        }
        for (culm::JoinHandle& fiber : fibers) fiber.join();
    };
    const auto without = [&](unsigned number) {
        std::mt19937 random(seed + number * 77);
        for (int round = 0; round < kRounds; ++round) act(random);
    };

    std::vector<std::thread> threads;
    for (unsigned i = 0; i < 4; ++i) threads.emplace_back(with_fibers, i);
    for (unsigned i = 0; i < 2; ++i) threads.emplace_back(without, i + 10);
    for (std::thread& thread : threads) thread.join();
    for (std::size_t i = 0; i < kSemaphores; ++i) CHECK(semaphores[i].value() == posted[i] - taken[i]);
}

// Every post must be answered: a lost wake-up would hang here.
TEST_CASE("stress: ping-pong between fibers of several OS threads") {
    victim();
    constexpr int kPairs = 4;
    constexpr int kRounds = 500;
    std::array<Semaphore, kPairs> ping;
    std::array<Semaphore, kPairs> pong;
    const auto side = [&](std::array<Semaphore, kPairs>& waits, std::array<Semaphore, kPairs>& posts) {
        Program program;
        std::vector<culm::JoinHandle> fibers;
        for (std::size_t i = 0; i < kPairs; ++i) {
            fibers.push_back(culm::spawn([&, i] {
                for (int round = 0; round < kRounds; ++round) {
                    CHECK(victim().sem_wait(&waits[i].sem) == 0);
                    CHECK(victim().sem_post(&posts[i].sem) == 0);
                }
            }));
        }
        for (culm::JoinHandle& fiber : fibers) fiber.join();
    };
    for (Semaphore& each : ping) ::sem_post(&each.sem);
    std::thread one([&] { side(ping, pong); });
    std::thread two([&] { side(pong, ping); });
    one.join();
    two.join();
    for (Semaphore& each : ping) CHECK(each.value() == 1);
}
