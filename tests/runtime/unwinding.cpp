// Ending the fibers that are left when a thread or the program ends, with a toy language that unwinds by cancelling.
#include "culm/runtime/unwinding.hpp"

#include "culm/runtime/embedder.hpp"
#include "fixture.hpp"

using namespace culm::testing;
using culm::runtime::Ending;
using culm::runtime::unwind_fibers;

namespace {

// A fiber of the toy language: parks until it is told to end, then cleans up for some time.
struct Worker {
    std::int64_t clean_up_ns = 0;
    bool is_stubborn = false;  // parks again, whatever it is told
    bool is_spared = false;    // at the end of the program
    int told = 0;
    int held = 0;
    bool was_given_up = false;
    bool has_cleaned_up = false;
};

Worker& worker_of(const Fiber& fiber) { return *static_cast<Worker*>(fiber.host); }

void work(Fiber& self, void* argument) {
    auto& worker = *static_cast<Worker*>(argument);
    Scheduler& scheduler = self.scheduler();
    while (scheduler.park() != Wake::kCancelled || worker.is_stubborn) {
    }
    const std::int64_t deadline_ns = scheduler.clock().now_ns() + worker.clean_up_ns;
    worker.has_cleaned_up = scheduler.sleep_until(deadline_ns) == Wake::kTimeout;
}

bool hold(Fiber& fiber, Ending ending) {
    Worker& worker = worker_of(fiber);
    if (ending == Ending::kProgram && worker.is_spared) return false;
    ++worker.held;
    fiber.retain();
    return true;
}

void let_go(Fiber& fiber) {
    --worker_of(fiber).held;
    fiber.release();
}

bool was_told(const Fiber& fiber) { return worker_of(fiber).told > 0; }

void tell(Fiber& fiber) {
    ++worker_of(fiber).told;
    Scheduler::cancel(fiber);
}

bool handle_signals() { return true; }

void give_up(Fiber& fiber) {
    worker_of(fiber).was_given_up = true;
    fiber.scheduler().abandon(fiber);
}

class ToyLanguage : public Simulation {
public:
    ToyLanguage() : Simulation(installed()) {}

    Fiber& start(Worker& worker) {
        auto made = scheduler->start({.body = work, .argument = &worker, .host = &worker});
        REQUIRE(made);
        let_others_run();
        return *made.value();
    }

private:
    static std::uint64_t installed() {
        culm::runtime::Embedder embedder;
        embedder.unwinding = {.hold = hold,
                              .let_go = let_go,
                              .was_told = was_told,
                              .tell = tell,
                              .handle_signals = handle_signals,
                              .give_up = give_up};
        culm::runtime::set_embedder(embedder);
        return 0;
    }
};

}  // namespace

TEST_CASE("each fiber is told once, and has time for a clean-up that waits") {
    ToyLanguage language;
    Worker quick;
    Worker slow{.clean_up_ns = kSecond / 2};
    Fiber& first = language.start(quick);
    Fiber& second = language.start(slow);
    unwind_fibers(*language.scheduler, Ending::kThread);
    for (const Worker* worker : {&quick, &slow}) {
        CHECK(worker->told == 1);
        CHECK(worker->has_cleaned_up);
        CHECK_FALSE(worker->was_given_up);
        CHECK(worker->held == 0);
    }
    first.release();
    second.release();
}

TEST_CASE("a fiber that was told before is not disturbed in its clean-up") {
    ToyLanguage language;
    Worker worker{.clean_up_ns = kSecond / 2};
    Fiber& fiber = language.start(worker);
    tell(fiber);
    let_others_run();
    unwind_fibers(*language.scheduler, Ending::kThread);
    CHECK(worker.told == 1);
    CHECK(worker.has_cleaned_up);
    fiber.release();
}

TEST_CASE("a clean-up that takes longer than the first grace is told again") {
    ToyLanguage language;
    Worker worker{.clean_up_ns = 2 * kSecond};
    Fiber& fiber = language.start(worker);
    unwind_fibers(*language.scheduler, Ending::kThread);
    CHECK(worker.told == 2);
    CHECK_FALSE(worker.has_cleaned_up);
    CHECK(fiber.state() == FiberState::kFinished);
    fiber.release();
}

TEST_CASE("a fiber that will not end is given up with its thread, and whoever joins it goes on") {
    ToyLanguage language;
    Worker worker{.is_stubborn = true};
    Fiber& fiber = language.start(worker);
    unwind_fibers(*language.scheduler, Ending::kThread);
    CHECK(worker.told == 10);
    CHECK(worker.was_given_up);
    CHECK(worker.held == 0);
    CHECK(language.now_ns() == kSecond + 9 * kSecond / 10);
    CHECK(language.scheduler->join(fiber) == Wake::kNotified);
    fiber.release();
}

TEST_CASE("at the end of the program a fiber that will not end stays, and one that is spared is not told") {
    ToyLanguage language;
    Worker stubborn{.is_stubborn = true};
    Worker spared{.is_spared = true};
    Fiber& first = language.start(stubborn);
    Fiber& second = language.start(spared);
    unwind_fibers(*language.scheduler, Ending::kProgram);
    CHECK(stubborn.told == 10);
    CHECK_FALSE(stubborn.was_given_up);
    CHECK(first.state() == FiberState::kParked);
    CHECK(spared.told == 0);
    CHECK(second.state() == FiberState::kParked);
    stubborn.is_stubborn = false;
    for (Fiber* fiber : {&first, &second}) {
        Scheduler::cancel(*fiber);
        CHECK(language.scheduler->join(*fiber) == Wake::kNotified);
        fiber->release();
    }
}
