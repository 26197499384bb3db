// While a fiber holds a pthread mutex its calls block the thread.
#include <vector>

#include "fiber_notes.hpp"
#include "harness.hpp"

namespace {

struct Mutex {
    explicit Mutex(int kind = PTHREAD_MUTEX_ERRORCHECK) {
        pthread_mutexattr_t attributes;
        ::pthread_mutexattr_init(&attributes);
        ::pthread_mutexattr_settype(&attributes, kind);
        ::pthread_mutex_init(&mutex, &attributes);
        ::pthread_mutexattr_destroy(&attributes);
    }
    ~Mutex() { ::pthread_mutex_destroy(&mutex); }
    pthread_mutex_t mutex;
};

}  // namespace

namespace {

unsigned held_mutexes(culm::runtime::Fiber& fiber) {
    return culm::runtime::interpose::FiberNotes(fiber).held_mutexes();
}

}  // namespace

TEST_CASE("a call made with a mutex held blocks the thread and is counted") {
    Program program;
    const VictimCalls& calls = other_victim();
    Mutex mutex;
    Pair pair = socket_pair();
    bool other_ran = false;
    bool other_had_run = true;
    char byte = 0;
    const auto before = culm::runtime::interpose::statistics();
    auto holder = culm::spawn([&] {
        CHECK(calls.mutex_lock(&mutex.mutex) == 0);
        CHECK(held_mutexes(Scheduler::current()->running()) == 1);
        std::thread feeder([&] { ::send(pair.far, "x", 1, 0); });
        CHECK_OUTCOME(observe([&] { return calls.recv(pair.near, &byte, 1, 0); }), 1, kErrnoBefore);
        other_had_run = other_ran;
        feeder.join();
        CHECK(calls.mutex_unlock(&mutex.mutex) == 0);
    });
    culm::spawn([&] { other_ran = true; });
    holder.join();
    CHECK_FALSE(other_had_run);
    const auto after = culm::runtime::interpose::statistics();
    CHECK(after.direct == before.direct + 1);
    CHECK(after.parks == before.parks);
    // With the mutex released calls park again.
    CHECK_OUTCOME(
        parked_until([&] { return calls.recv(pair.near, &byte, 1, 0); }, [&] { ::send(pair.far, "y", 1, 0); }), 1,
        kErrnoBefore);
}

TEST_CASE("the count follows what was really locked") {
    Program program;
    const VictimCalls& calls = other_victim();
    Fiber& fiber = program->running();
    Mutex mutex;
    Mutex other;
    CHECK(held_mutexes(fiber) == 0);
    CHECK(calls.mutex_lock(&mutex.mutex) == 0);
    CHECK(calls.mutex_lock(&mutex.mutex) == EDEADLK);
    CHECK(calls.mutex_trylock(&mutex.mutex) == EBUSY);
    CHECK(held_mutexes(fiber) == 1);
    CHECK(calls.mutex_trylock(&other.mutex) == 0);
    CHECK(held_mutexes(fiber) == 2);
    CHECK(calls.mutex_unlock(&other.mutex) == 0);
    CHECK(calls.mutex_unlock(&mutex.mutex) == 0);
    CHECK(held_mutexes(fiber) == 0);
    // Locked before there was a scheduler, or by the interpreter: never below zero.
    Mutex plain(PTHREAD_MUTEX_NORMAL);
    ::pthread_mutex_lock(&plain.mutex);
    CHECK(calls.mutex_unlock(&plain.mutex) == 0);
    CHECK(held_mutexes(fiber) == 0);
}

TEST_CASE("a mutex that a parked fiber holds parks the fibers that want it, in their order") {
    Program program;
    const VictimCalls& calls = other_victim();
    for (const int kind : {PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_RECURSIVE, PTHREAD_MUTEX_ERRORCHECK}) {
        Mutex mutex(kind);
        std::vector<int> order;
        auto holder = culm::spawn([&] {
            CHECK(calls.mutex_lock(&mutex.mutex) == 0);
            Scheduler::current()->park();
            order.push_back(0);
            CHECK(calls.mutex_unlock(&mutex.mutex) == 0);
        });
        std::vector<culm::JoinHandle> fibers;
        for (int i = 1; i <= 3; ++i) {
            fibers.push_back(culm::spawn([&, i] {
                CHECK(calls.mutex_trylock(&mutex.mutex) == EBUSY);
                CHECK(calls.mutex_lock(&mutex.mutex) == 0);
                CHECK(held_mutexes(Scheduler::current()->running()) == 1);
                order.push_back(i);
                CHECK(calls.mutex_unlock(&mutex.mutex) == 0);
            }));
        }
        while (fibers.back().fiber().state() != FiberState::kParked) culm::yield_now();
        CHECK(fibers.front().fiber().wait_kind() == WaitKind::kLock);
        program->unpark(holder.fiber());
        holder.join();
        for (culm::JoinHandle& fiber : fibers) fiber.join();
        CHECK(order == std::vector<int>{0, 1, 2, 3});
    }
}

TEST_CASE("a mutex knows nothing of a waiter that was given up: the next one gets it") {
    Program program;
    Mutex mutex(PTHREAD_MUTEX_NORMAL);
    auto holder = culm::spawn([&] {
        CHECK(other_victim().mutex_lock(&mutex.mutex) == 0);
        Scheduler::current()->park();
        CHECK(other_victim().mutex_unlock(&mutex.mutex) == 0);
    });
    while (holder.fiber().state() != FiberState::kParked) culm::yield_now();
    // Not a lambda with captures: what a fiber owns is lost when it never runs again.
    auto body = [](Fiber&, void* wanted) { other_victim().mutex_lock(static_cast<pthread_mutex_t*>(wanted)); };
    auto started = program->start({.body = body, .argument = &mutex.mutex});
    REQUIRE(started);
    Fiber* left = started.value();
    while (left->state() != FiberState::kParked) culm::yield_now();
    CHECK(left->wait_kind() == WaitKind::kLock);
    bool next_has_had_it = false;
    auto next = culm::spawn([&] {
        CHECK(other_victim().mutex_lock(&mutex.mutex) == 0);
        next_has_had_it = true;
        CHECK(other_victim().mutex_unlock(&mutex.mutex) == 0);
    });
    while (next.fiber().state() != FiberState::kParked) culm::yield_now();
    program->abandon(*left);
    left->release();  // its memory may be used again from here on
    program->unpark(holder.fiber());
    holder.join();
    next.join();
    CHECK(next_has_had_it);
}

TEST_CASE("each fiber has its own count") {
    Program program;
    const VictimCalls& calls = other_victim();
    Mutex mutex;
    CHECK(calls.mutex_lock(&mutex.mutex) == 0);
    culm::spawn([&] { CHECK(held_mutexes(Scheduler::current()->running()) == 0); }).join();
    CHECK(calls.mutex_unlock(&mutex.mutex) == 0);
}

TEST_CASE("the interpreter's mutexes are not counted") {
    Program program;
    Mutex mutex;
    CHECK(victim().mutex_lock(&mutex.mutex) == 0);
    CHECK(held_mutexes(program->running()) == 0);
    CHECK(victim().mutex_unlock(&mutex.mutex) == 0);
}
