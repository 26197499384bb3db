// What a fiber keeps apart from the others: errno, exceptions being handled, its place on its own stack.
#include <cerrno>
#include <exception>
#include <string>

#include "culm/runtime/embedder.hpp"
#include "fixture.hpp"

using namespace culm::testing;

namespace {

// noinline: the exception is rethrown by a function that knows nothing of the handler it is called in.
[[gnu::noinline]] std::string rethrown() {
    try {
        throw;
    } catch (const std::string& text) {
        return text;
    }
}

}  // namespace

TEST_CASE("errno belongs to the fiber") {
    SchedulerForTest scheduler;
    auto keep = [](int value) {
        CHECK(errno == 0);
        for (int i = 0; i < 10; ++i) {
            errno = value;
            culm::yield_now();
            CHECK(errno == value);
            culm::sleep_for(std::chrono::microseconds(1));  // polls: system calls of the runtime's own
            CHECK(errno == value);
        }
    };
    auto one = small_fiber([&] { keep(EAGAIN); });
    auto other = small_fiber([&] { keep(EPIPE); });
    errno = 77;
    one.join();
    other.join();
    CHECK(errno == 77);
    errno = 0;
}

TEST_CASE("two fibers parked inside catch blocks rethrow each their own exception") {
    SchedulerForTest scheduler;
    std::string first;
    std::string second;
    auto one = small_fiber([&] {
        try {
            throw std::string("one");
        } catch (const std::string&) {
            scheduler->park();
            first = rethrown();
        }
    });
    auto other = small_fiber([&] {
        try {
            throw std::string("other");
        } catch (const std::string&) {
            scheduler->park();
            second = rethrown();
        }
    });
    let_others_run();
    CHECK_FALSE(std::current_exception());
    scheduler->unpark(one.fiber());
    one.join();
    scheduler->unpark(other.fiber());
    other.join();
    CHECK(first == "one");
    CHECK(second == "other");
}

TEST_CASE("a fiber that runs during unwinding does not see the exception in flight") {
    SchedulerForTest scheduler;
    int seen_in_fiber = -1;
    auto watcher = small_fiber([&] { seen_in_fiber = std::uncaught_exceptions(); });
    struct YieldsInDestructor {
        ~YieldsInDestructor() {
            CHECK(std::uncaught_exceptions() == 1);
            culm::yield_now();
            CHECK(std::uncaught_exceptions() == 1);
        }
    };
    try {
        const YieldsInDestructor yields;
        throw 1;
    } catch (int) {
    }
    CHECK(seen_in_fiber == 0);
    watcher.join();
}

TEST_CASE("pointers into a suspended stack stay valid") {
    SchedulerForTest scheduler;
    int* inside = nullptr;
    auto fiber = small_fiber([&] {
        int local = 1;
        inside = &local;
        scheduler->park();
        CHECK(local == 2);
    });
    let_others_run();
    *inside = 2;
    scheduler->unpark(fiber.fiber());
    fiber.join();
}

TEST_CASE("the hook is told of stacks and switches in order, and may wait after a switch") {
    static std::string log;
    static bool nested_wait_wanted = false;
    culm::runtime::Embedder embedder;
    embedder.lives.given_stack = [](Fiber& fiber) {
        log += 's';
        for (std::uint32_t i = 0; i < fiber.host_stack_bytes; ++i) fiber.host_area()[i] = std::byte{7};
    };
    embedder.switching.exchange = [](Fiber& from, Fiber& to) {
        log += from.is_main() ? '>' : to.is_main() ? '<' : '=';
    };
    embedder.switching.arrived = [](Fiber& now) {
        log += now.is_main() ? 'm' : 'f';
        if (!std::exchange(nested_wait_wanted, false)) return;
        // Dropping a reference may run anything, waiting included.
        CHECK(now.scheduler().sleep_until(now.scheduler().clock().now_ns() + 1) == Wake::kTimeout);
    };
    culm::runtime::set_embedder(embedder);
    {
        Simulation simulation;
        Scheduler& scheduler = *simulation.scheduler;
        log.clear();
        auto made = scheduler.new_fiber(
            [](Fiber& self, void*) {
                int on_stack = 0;
                const auto* here = reinterpret_cast<const std::byte*>(&on_stack);
                // AddressSanitizer may keep locals elsewhere.
                if (!CULM_INSTRUMENTED) CHECK(here < self.host_area());
                self.scheduler().park();
            },
            nullptr);
        REQUIRE(made);
        Fiber& fiber = *made.value();
        fiber.host_stack_bytes = 512;
        scheduler.start(fiber);
        let_others_run();
        CHECK(log == "s><m");
        CHECK(fiber.host_area()[0] == std::byte{7});
        CHECK(fiber.host_area()[511] == std::byte{7});
        log.clear();
        nested_wait_wanted = true;
        scheduler.unpark(fiber);
        CHECK(scheduler.join(fiber) == Wake::kNotified);
        CHECK(simulation.now_ns() == 1);
        fiber.release();
    }
    culm::runtime::set_embedder({});
}
