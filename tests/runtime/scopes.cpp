// Cancel scopes: each rule by itself, and random programs against a model of a few lines.
#include <sys/epoll.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <random>
#include <vector>

#include "../core/child.hpp"
#include "culm/runtime/scope.hpp"
#include "fixture.hpp"

using namespace culm::testing;
using culm::runtime::Scope;

TEST_CASE("a cancelled scope ends every wait inside it, and none outside") {
    Simulation simulation;
    Scheduler& scheduler = *simulation.scheduler;
    int reason = 0;
    Scope scope;
    REQUIRE(scope.enter(scheduler));
    CHECK(scheduler.running().current_scope() == &scope);
    scope.cancel(&reason);
    scope.cancel(nullptr);
    CHECK(scope.is_cancelled());
    CHECK(scope.reason() == &reason);
    CHECK(scheduler.park() == Wake::kCancelled);
    CHECK(scheduler.sleep_until(kSecond) == Wake::kCancelled);
    CHECK(scheduler.sleep_until(0) == Wake::kCancelled);
    culm::runtime::FdRequest request{3, EPOLLIN, 0};
    CHECK(scheduler.wait_fd(request) == Wake::kCancelled);
    CHECK(simulation.reactor->waiting() == 0);
    auto other = small_fiber([] {});
    CHECK(other.join() == Wake::kCancelled);
    CHECK(scheduler.switch_to(other.fiber()) == Wake::kCancelled);
    scope.leave();
    CHECK(scheduler.running().current_scope() == nullptr);
    CHECK(scheduler.sleep_until(kSecond) == Wake::kTimeout);
    CHECK(other.join() == Wake::kNotified);
}

TEST_CASE("a deadline cancels its scope: during a wait, before it, and after it was moved") {
    Simulation simulation;
    Scheduler& scheduler = *simulation.scheduler;
    Scope scope;
    scope.set_deadline(kSecond);
    REQUIRE(scope.enter(scheduler));
    CHECK(scheduler.statistics().timers == 0);  // no timer for what does not wait
    CHECK(scheduler.sleep_until(kMillisecond) == Wake::kTimeout);
    CHECK(scheduler.statistics().timers == 1);
    CHECK(scheduler.park(2 * kMillisecond) == Wake::kTimeout);
    CHECK(scheduler.statistics().timers == 1);  // one for the scope, however often it waits
    auto mover = small_fiber([&] { scope.set_deadline(3 * kSecond); });
    CHECK(scheduler.sleep_until(2 * kSecond) == Wake::kTimeout);
    CHECK_FALSE(scope.is_cancelled());
    CHECK(scheduler.park() == Wake::kCancelled);
    CHECK(simulation.now_ns() == 3 * kSecond);
    CHECK(scope.is_cancelled());
    scope.leave();
    mover.join();
    CHECK(scheduler.statistics().timers == 0);

    Scope late;
    late.set_deadline(kSecond);  // long past
    REQUIRE(late.enter(scheduler));
    CHECK_FALSE(late.is_cancelled());
    CHECK(scheduler.sleep_until(4 * kSecond) == Wake::kCancelled);
    CHECK(simulation.now_ns() == 3 * kSecond);
    late.leave();
}

TEST_CASE("a shield keeps out what is around it, not what is inside; taken away, it lets in") {
    Simulation simulation;
    Scheduler& scheduler = *simulation.scheduler;
    Scope outer;
    Scope shield;
    Scope inner;
    REQUIRE(outer.enter(scheduler));
    shield.set_shielded(true);
    REQUIRE(shield.enter(scheduler));
    outer.cancel();
    CHECK(scheduler.sleep_until(kMillisecond) == Wake::kTimeout);
    Scheduler::cancel(scheduler.running());
    CHECK(scheduler.sleep_until(2 * kMillisecond) == Wake::kTimeout);
    REQUIRE(inner.enter(scheduler));
    inner.cancel();
    CHECK(scheduler.park() == Wake::kCancelled);
    inner.leave();
    auto opener = small_fiber([&] { shield.set_shielded(false); });
    CHECK(scheduler.park() == Wake::kCancelled);
    opener.join();
    shield.leave();
    CHECK(scheduler.park() == Wake::kCancelled);
    outer.leave();
    CHECK(scheduler.sleep_until(4 * kMillisecond) == Wake::kTimeout);
}

TEST_CASE("what was started within a scope ends with it, whatever it waits for, and nothing else does") {
    Simulation simulation;
    Scheduler& scheduler = *simulation.scheduler;
    Scope nursery;
    REQUIRE(nursery.enter(scheduler));
    std::vector<Wake> reasons;
    std::vector<std::unique_ptr<Scope>> outermost;
    std::vector<culm::JoinHandle> children;
    struct Child {
        std::vector<Wake>* reasons;
        bool shields;
        static void run(Fiber& self, void* argument) {
            const Child child = *static_cast<Child*>(argument);
            Scope scope;
            scope.set_shielded(child.shields);
            static_cast<void>(scope.enter(self.scheduler()));
            child.reasons->push_back(self.scheduler().park(self.scheduler().clock().now_ns() + kSecond));
            scope.leave();
        }
    };
    Child plain{&reasons, false};
    Child shielded{&reasons, true};
    for (Child* child : {&plain, &shielded, &plain}) {
        outermost.push_back(std::make_unique<Scope>());
        REQUIRE(outermost.back()->enter_for_task(scheduler, &nursery));
        auto started = scheduler.start({.body = &Child::run,
                                        .argument = child,
                                        .stack_class = culm::StackClass::k64K,
                                        .scope = outermost.back().get()});
        REQUIRE(started);
        children.emplace_back(started.value());
    }
    auto stranger = small_fiber([&] { CHECK(scheduler.park(2 * kSecond) == Wake::kTimeout); });
    let_others_run();
    nursery.cancel();
    let_others_run();
    CHECK(reasons == std::vector{Wake::kCancelled, Wake::kCancelled});
    CHECK(children[1].fiber().state() == FiberState::kParked);
    nursery.set_shielded(true);  // waits of our own now see the cancelled scope all the same
    CHECK(scheduler.park() == Wake::kCancelled);
    {
        Scope clean_up;
        clean_up.set_shielded(true);
        REQUIRE(clean_up.enter(scheduler));
        for (auto& child : children) CHECK(child.join() == Wake::kNotified);
        clean_up.leave();
    }
    CHECK(reasons.back() == Wake::kTimeout);
    for (const auto& scope : outermost) CHECK(scope->fiber() == nullptr);  // left by themselves
    nursery.leave();
    stranger.join();
}

TEST_CASE("a task that is not started after all leaves its scope to its maker") {
    SchedulerForTest scheduler;
    Scope outermost;
    REQUIRE(outermost.enter_for_task(*scheduler, nullptr));
    auto made = scheduler->new_fiber({.body = [](Fiber&, void*) {}, .scope = &outermost});
    REQUIRE(made);
    scheduler->discard(*made.value());
    made.value()->release();
    outermost.leave();
}

TEST_CASE("scopes used in a wrong order end the process with a sentence") {
    SchedulerForTest scheduler;
    CHECK(run_misuse([&] {
              Scope outer;
              Scope inner;
              static_cast<void>(outer.enter(*scheduler));
              static_cast<void>(inner.enter(*scheduler));
              outer.leave();
          }).ended_by_check("out of order"));
    CHECK(run_misuse([&] {
              Scope scope;
              scope.leave();
          }).ended_by_check("had not been entered"));
    CHECK(run_misuse([&] {
              Scope scope;
              static_cast<void>(scope.enter(*scheduler));
              static_cast<void>(scope.enter(*scheduler));
          }).ended_by_check("entered twice"));
    CHECK(run_misuse([&] {
              Scope scope;
              static_cast<void>(scope.enter(*scheduler));
          }).ended_by_check("destroyed before it was left"));
    CHECK(run_misuse([&] {
              Scope scope;
              static_cast<void>(scope.enter(*scheduler));
              small_fiber([&] { scope.leave(); }).join();
          }).ended_by_check("left by another fiber"));
    CHECK(run_misuse([&] {
              auto* scope = new Scope;
              small_fiber([&] { static_cast<void>(scope->enter(*scheduler)); }).join();
          }).ended_by_check("a fiber ended inside a cancel scope"));
}

namespace {

// Random programs of nested scopes and sleeps. Sleeps last whole microseconds, and whatever cancels comes at a number
// of nanoseconds past one that nothing else has, so that nothing happens at the same time as anything else.
struct Block {
    std::int64_t deadline_ns = kNever;
    std::int64_t cancelled_at_ns = kNever;
    bool is_shielded = false;
    struct Step {
        std::int64_t sleep_ns = 0;     // or, if it is 0,
        std::unique_ptr<Block> block;  // another one inside
    };
    std::vector<Step> steps;
};

struct Outcome {
    std::int64_t at_ns;
    Wake wake;
    bool operator==(const Outcome&) const = default;
};

class Programs {
public:
    explicit Programs(std::uint32_t seed) : random_(seed) {}

    std::unique_ptr<Block> block(int depth) {
        auto made = std::make_unique<Block>();
        if (below(3) == 0) made->deadline_ns = moment_ns();
        if (below(4) == 0) made->cancelled_at_ns = moment_ns();
        made->is_shielded = below(4) == 0;
        const int steps = 1 + below(4);
        for (int i = 0; i < steps; ++i) {
            Block::Step step;
            if (depth > 0 && below(2) == 0) {
                step.block = block(depth - 1);
            } else {
                step.sleep_ns = 1000 * (1 + below(30));
            }
            made->steps.push_back(std::move(step));
        }
        return made;
    }
    std::int64_t moment_ns() { return 1000 * below(200) + ++moments_; }
    int below(int bound) { return static_cast<int>(random_() % static_cast<unsigned>(bound)); }

private:
    std::mt19937 random_;
    std::int64_t moments_ = 0;  // far fewer than a thousand
};

// What should happen.
class Model {
public:
    explicit Model(std::vector<std::int64_t> fiber_cancels) : fiber_cancels_(std::move(fiber_cancels)) {}

    void run(const Block& block) {
        const std::int64_t entered_ns = now_ns_;
        scopes_.push_back({block.deadline_ns, std::max(block.cancelled_at_ns, entered_ns), block.is_shielded});
        if (block.cancelled_at_ns == kNever) scopes_.back().cancelled_at_ns = kNever;
        for (const Block::Step& step : block.steps) {
            if (step.block) {
                run(*step.block);
            } else {
                sleep(step.sleep_ns);
            }
        }
        scopes_.pop_back();
    }
    std::vector<Outcome> outcomes;

private:
    struct Entered {
        std::int64_t deadline_ns;
        std::int64_t cancelled_at_ns;
        bool is_shielded;
    };

    void sleep(std::int64_t duration_ns) {
        const std::int64_t until_ns = now_ns_ + duration_ns;
        std::int64_t cancel_ns = kNever;
        bool sees_all = true;
        for (auto scope = scopes_.rbegin(); scope != scopes_.rend() && sees_all; ++scope) {
            cancel_ns = std::min({cancel_ns, scope->deadline_ns, scope->cancelled_at_ns});
            sees_all = !scope->is_shielded;
        }
        if (sees_all && !fiber_cancels_.empty()) cancel_ns = std::min(cancel_ns, fiber_cancels_.front());
        const bool cancelled = cancel_ns < until_ns;
        now_ns_ = cancelled ? std::max(now_ns_, cancel_ns) : until_ns;
        outcomes.push_back({now_ns_, cancelled ? Wake::kCancelled : Wake::kTimeout});
        // One cancelled wait takes all cancels of the fiber that have come until then, if it could see them.
        if (!cancelled || !sees_all) return;
        std::erase_if(fiber_cancels_, [this](std::int64_t at_ns) { return at_ns <= now_ns_; });
    }

    std::int64_t now_ns_ = 0;
    std::vector<Entered> scopes_;
    std::vector<std::int64_t> fiber_cancels_;  // sorted
};

// What does happen.
class Run {
public:
    explicit Run(Scheduler& scheduler) : scheduler_(scheduler) {}

    void run(const Block& block) {
        Scope scope;
        scope.set_deadline(block.deadline_ns);
        scope.set_shielded(block.is_shielded);
        REQUIRE(scope.enter(scheduler_));
        auto entered = std::make_shared<bool>(true);
        if (block.cancelled_at_ns != kNever) {
            cancellers.push_back(small_fiber([&scope, entered, at_ns = block.cancelled_at_ns, this] {
                // Past already: at the next wait, as a deadline would.
                if (at_ns > scheduler_.clock().now_ns()) scheduler_.sleep_until(at_ns);
                if (*entered) scope.cancel();
            }));
            if (block.cancelled_at_ns <= scheduler_.clock().now_ns()) scope.cancel();
        }
        for (const Block::Step& step : block.steps) {
            if (step.block) {
                run(*step.block);
                continue;
            }
            const Wake wake = scheduler_.sleep_until(scheduler_.clock().now_ns() + step.sleep_ns);
            outcomes.push_back({scheduler_.clock().now_ns(), wake});
        }
        *entered = false;
        scope.leave();
    }
    std::vector<Outcome> outcomes;
    std::deque<culm::JoinHandle> cancellers;

private:
    Scheduler& scheduler_;
};

}  // namespace

TEST_CASE("random programs of nested scopes do what the model says") {
    const std::uint32_t first_seed = std::random_device{}();
    std::size_t cancelled = 0;
    std::size_t slept = 0;
    for (std::uint32_t seed = first_seed; seed != first_seed + 400; ++seed) {
        CAPTURE(seed);
        Programs programs(seed);
        const auto program = programs.block(4);
        std::vector<std::int64_t> fiber_cancels;
        for (int i = programs.below(3); i > 0; --i) fiber_cancels.push_back(programs.moment_ns());
        std::sort(fiber_cancels.begin(), fiber_cancels.end());
        Model model(fiber_cancels);
        model.run(*program);

        Simulation simulation;
        Scheduler& scheduler = *simulation.scheduler;
        Run run(scheduler);
        auto fiber = small_fiber([&] { run.run(*program); });
        auto canceller = small_fiber([&] {
            for (const std::int64_t at_ns : fiber_cancels) {
                scheduler.sleep_until(at_ns);
                Scheduler::cancel(fiber.fiber());
            }
        });
        fiber.join();
        canceller.join();
        for (auto& each : run.cancellers) each.join();
        REQUIRE(run.outcomes == model.outcomes);
        CHECK(scheduler.statistics().timers == 0);
        for (const Outcome& outcome : model.outcomes) ++(outcome.wake == Wake::kCancelled ? cancelled : slept);
    }
    CHECK(cancelled > 400);
    CHECK(slept > 400);
}
