// In the interpreter a fiber is a thread: pthread_self() tells fibers apart, calls on a thread find the right one.
#include <set>
#include <vector>

#include "harness.hpp"

TEST_CASE("pthread_self names the running fiber in the interpreter, and the thread elsewhere") {
    Program program;
    victim();
    const pthread_t thread = ::pthread_self();
    CHECK(victim().pthread_self() == thread);  // the main fiber
    std::set<pthread_t> seen;
    std::vector<culm::JoinHandle> fibers;
    for (int i = 0; i < 10; ++i) {
        fibers.push_back(culm::spawn([&] {
            Fiber& self = Scheduler::current()->running();
            CHECK_FALSE(culm::runtime::interpose::was_asked_identity(self));
            const pthread_t mine = victim().pthread_self();
            CHECK(culm::runtime::interpose::was_asked_identity(self));
            CHECK(mine == self.identity());
            CHECK(mine != thread);
            seen.insert(mine);
            culm::yield_now();
            CHECK(victim().pthread_self() == mine);
            CHECK(other_victim().pthread_self() == thread);
        }));
    }
    for (culm::JoinHandle& fiber : fibers) fiber.join();
    CHECK(seen.size() == 10);
}

TEST_CASE("a fiber's name stands for its thread") {
    Program program;
    victim();
    static std::atomic<int> signals{0};
    signals = 0;
    struct sigaction action {};
    struct sigaction before {};
    action.sa_handler = [](int) { ++signals; };
    ::sigaction(SIGUSR2, &action, &before);
    char thread_name[32] = {};
    ::pthread_getname_np(::pthread_self(), thread_name, sizeof thread_name);
    auto fiber = culm::spawn([&] {
        const pthread_t self = victim().pthread_self();
        CHECK(victim().pthread_kill(self, SIGUSR2) == 0);
        CHECK(signals == 1);
        clockid_t clock{};
        clockid_t expected{};
        CHECK(victim().pthread_getcpuclockid(self, &clock) == 0);
        CHECK(::pthread_getcpuclockid(::pthread_self(), &expected) == 0);
        CHECK(clock == expected);
        CHECK(victim().pthread_setname_np(self, "fiber name") == 0);
        char name[32] = {};
        CHECK(victim().pthread_getname_np(self, name, sizeof name) == 0);
        CHECK(std::string(name) == thread_name);
        CHECK(victim().pthread_join(self, nullptr) == EINVAL);
    });
    fiber.join();
    auto parked = culm::spawn([] { Scheduler::current()->park(); });
    while (parked.fiber().state() != FiberState::kParked) culm::yield_now();
    CHECK(victim().pthread_kill(parked.fiber().identity(), SIGUSR2) == 0);
    CHECK(signals == 2);
    program->unpark(parked.fiber());
    parked.join();
    ::sigaction(SIGUSR2, &before, nullptr);
}

TEST_CASE("threads without a scheduler are named as always") {
    victim();
    std::thread thread([] { CHECK(victim().pthread_self() == ::pthread_self()); });
    thread.join();
}
