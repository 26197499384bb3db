// Several OS threads: calls posted from outside, schedulers side by side, control blocks released elsewhere, and
// threads that end with or without having closed their scheduler.
#include <atomic>
#include <set>
#include <thread>
#include <vector>

#include "culm/stack_arena.hpp"
#include "culm/stack_pool.hpp"
#include "fixture.hpp"

using namespace culm::testing;

namespace {

struct Tally {
    int calls = 0;
    int wanted = 0;
};

void count_call(Scheduler& scheduler, void* argument) {
    auto& tally = *static_cast<Tally*>(argument);
    if (++tally.calls == tally.wanted) scheduler.unpark(scheduler.main_fiber());
}

}  // namespace

TEST_CASE("every call posted by four threads is made, on the owning thread") {
    constexpr int kThreads = 4;
    constexpr int kCalls = 2000;
    SchedulerForTest scheduler;
    Tally tally;
    tally.wanted = kThreads * kCalls;
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i) {
        threads.emplace_back([&] {
            for (int call = 0; call < kCalls; ++call) {
                if (!scheduler->post(count_call, &tally)) std::abort();
            }
        });
    }
    CHECK(scheduler->park() == Wake::kNotified);
    CHECK(tally.calls == kThreads * kCalls);
    CHECK(scheduler->statistics().remote_calls == kThreads * kCalls);
    for (auto& thread : threads) thread.join();
}

TEST_CASE("a posted call starts and unparks fibers while others run") {
    SchedulerForTest scheduler;
    std::atomic<bool> posted{false};
    bool woken = false;
    auto sleeper = small_fiber([&] {
        scheduler->park();
        woken = true;
    });
    auto spinner = small_fiber([&] {
        while (!woken) culm::yield_now();
    });
    std::thread poster([&] {
        Fiber& fiber = sleeper.fiber();
        posted =
            scheduler->post([](Scheduler& here, void* target) { here.unpark(*static_cast<Fiber*>(target)); }, &fiber);
    });
    spinner.join();
    sleeper.join();
    poster.join();
    CHECK(posted);
    CHECK(woken);
}

TEST_CASE("each thread has its own scheduler, and they run side by side") {
    std::atomic<int> finished{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&] {
            std::vector<culm::JoinHandle> fibers;
            for (int fiber = 0; fiber < 50; ++fiber) {
                fibers.push_back(small_fiber([&] {
                    culm::yield_now();
                    culm::sleep_for(std::chrono::microseconds(10));
                    ++finished;
                }));
            }
            for (auto& fiber : fibers) fiber.join();
        });  // the thread's end closes the scheduler
    }
    for (auto& thread : threads) thread.join();
    CHECK(finished == 200);
    CHECK(Scheduler::current() == nullptr);
}

TEST_CASE("control blocks may be released on another thread, and after their scheduler was closed") {
    std::vector<Fiber*> held;
    std::set<const Fiber*> blocks;  // every control block that the closed scheduler ever had
    Scheduler* gone = nullptr;
    std::thread([&] {
        SchedulerForTest scheduler;
        gone = &*scheduler;
        blocks.insert(&scheduler->main_fiber());
        for (int i = 0; i < 100; ++i) {
            auto fiber = small_fiber([] {}, "held");
            fiber.fiber().retain();
            held.push_back(&fiber.fiber());
            fiber.join();
        }
    }).join();
    blocks.insert(held.begin(), held.end());
    for (Fiber* fiber : held) CHECK(fiber->state() == FiberState::kFinished);
    // The closed scheduler refuses calls for as long as one of its blocks is held.
    CHECK_FALSE(held[0]->scheduler().post([](Scheduler&, void*) {}, nullptr));
    CHECK(&held[0]->scheduler() == gone);
    {
        SchedulerForTest scheduler;  // while blocks are held, no other scheduler may use their memory
        CHECK(blocks.count(&scheduler->main_fiber()) == 0);
    }
    std::thread([&] {
        for (std::size_t i = 0; i < 50; ++i) held[i]->release();
    }).join();
    for (std::size_t i = 50; i < held.size(); ++i) held[i]->release();

    // Now the next scheduler uses the closed one's blocks again, all of them, wherever they were released.
    SchedulerForTest scheduler;
    blocks.erase(&scheduler->main_fiber());
    std::vector<culm::JoinHandle> fibers;
    for (std::size_t i = 0; i < held.size(); ++i) {
        fibers.push_back(small_fiber([] {}));
        blocks.erase(&fibers.back().fiber());
    }
    CHECK(blocks.empty());
    for (auto& fiber : fibers) fiber.join();
}

TEST_CASE("a task made on one thread runs on the one that starts it, and stays there") {
    std::thread::id ran_on;
    culm::task task([&] { ran_on = std::this_thread::get_id(); });
    std::thread::id started_on;
    std::thread starter([&] {
        started_on = std::this_thread::get_id();
        auto fiber = std::move(task).start();
        REQUIRE(fiber);
        CHECK(fiber.value().join() == Wake::kNotified);
    });
    starter.join();
    CHECK(ran_on == started_on);
    CHECK(Scheduler::current() == nullptr);  // making a task needs no scheduler
}

TEST_CASE("a thread may end with fibers left: they never run again, their stacks go with it, requests are refused") {
    Fiber* left = nullptr;
    bool ran_on = false;
    culm::StackArena& arena = culm::StackArena::of(culm::StackClass::k256K);
    const auto stacks_out = [&] { return arena.statistics().slots_carved - arena.statistics().slots_free; };
    const std::size_t out_before = stacks_out();
    std::thread([&] {
        // Not a lambda with captures: what a fiber owns is lost when it never runs again.
        auto body = [](Fiber& self, void* flag) {
            self.scheduler().park();
            *static_cast<bool*>(flag) = true;
        };
        auto started = Scheduler::ensure().value()->start(
            {.body = body, .argument = &ran_on, .stack_class = culm::StackClass::k256K});
        REQUIRE(started);
        left = started.value();
        let_others_run();
    }).join();
    CHECK(left->state() == FiberState::kFinished);
    CHECK_FALSE(left->stack());
    CHECK(stacks_out() == out_before);
    CHECK_FALSE(left->scheduler().post([](Scheduler&, void*) {}, nullptr));
    CHECK_FALSE(Scheduler::cancel(*left));
    CHECK(Scheduler::unpark(*left) == culm::runtime::Sent::kClosed);
    SchedulerForTest scheduler;
    CHECK(scheduler->join(*left) == Wake::kNotified);
    left->release();
    CHECK_FALSE(ran_on);
}

TEST_CASE("posting races with closing: a call is made or refused, never lost") {
    for (int round = 0; round < 50; ++round) {
        std::atomic<int> accepted{0};
        int made = 0;
        std::atomic<bool> begun{false};
        Fiber* anchor = nullptr;
        std::thread poster;
        {
            SchedulerForTest scheduler;
            anchor = &scheduler->main_fiber();
            anchor->retain();
            poster = std::thread([&] {
                begun = true;
                while (
                    anchor->scheduler().post([](Scheduler&, void* number) { ++*static_cast<int*>(number); }, &made)) {
                    ++accepted;
                    if (accepted == 200) return;
                }
            });
            while (!begun) culm::yield_now();
        }
        poster.join();
        CHECK(made == accepted);
        anchor->release();
    }
}
