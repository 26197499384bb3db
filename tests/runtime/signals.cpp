// Signals: a real one interrupts an idle wait and reaches the main fiber; the hook decides whether it matters.
#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <memory>
#include <thread>

#include "culm/runtime/embedder.hpp"
#include "culm/runtime/reactor.hpp"
#include "fixture.hpp"

using namespace culm::testing;
using culm::runtime::Wait;

namespace {

volatile sig_atomic_t signals_seen = 0;

void handle_usr1() {
    struct sigaction action {};
    action.sa_handler = [](int) { signals_seen = signals_seen + 1; };
    sigaction(SIGUSR1, &action, nullptr);
}

// Sends SIGUSR1 to a thread, again and again, because only the receiver knows when it was waiting.
class Sender {
public:
    explicit Sender(pthread_t target)
        : thread_([this, target] {
              while (!stop_) {
                  pthread_kill(target, SIGUSR1);
                  std::this_thread::yield();
              }
          }) {}
    ~Sender() {
        stop_ = true;
        thread_.join();
    }

private:
    std::atomic<bool> stop_{false};
    std::thread thread_;
};

// The epoll reactor, with a signal that arrives at the last moment before it sleeps.
class LateSignal : public culm::runtime::Reactor {
public:
    explicit LateSignal(std::unique_ptr<Reactor> real) : real_(std::move(real)) {}

    int poll(std::int64_t timeout_ns, OnReady on_ready, void* context, const sigset_t* signal_mask) noexcept override {
        if (timeout_ns != 0) pthread_kill(pthread_self(), SIGUSR1);
        return real_->poll(timeout_ns, on_ready, context, signal_mask);
    }

    culm::Result<void> watch(Wait& wait) noexcept override { return real_->watch(wait); }
    void unwatch(Wait& wait) noexcept override { real_->unwatch(wait); }
    void forget(int fd, OnReady on_ready, void* context) noexcept override { real_->forget(fd, on_ready, context); }
    bool closed_since(const Wait& wait) const noexcept override { return real_->closed_since(wait); }
    bool recheck(OnReady on_ready, void* context) noexcept override { return real_->recheck(on_ready, context); }
    void notify() noexcept override { real_->notify(); }
    culm::Result<void> rebuild() noexcept override { return real_->rebuild(); }
    void close_descriptors() noexcept override { real_->close_descriptors(); }
    std::size_t waiting() const noexcept override { return real_->waiting(); }

private:
    std::unique_ptr<Reactor> real_;
};

}  // namespace

TEST_CASE("a signal wakes the main fiber out of an idle wait, whoever idles") {
    handle_usr1();
    SchedulerForTest scheduler;
    auto parked = small_fiber([&] { scheduler->park(); });
    let_others_run();
    {
        const Sender sender(pthread_self());
        CHECK(scheduler->park() == Wake::kInterrupted);
        CHECK(parked.join() == Wake::kInterrupted);
    }
    CHECK(signals_seen > 0);
    scheduler->unpark(parked.fiber());
    CHECK(parked.join() == Wake::kNotified);
}

TEST_CASE("the hook says whether a signal concerns the main fiber") {
    handle_usr1();
    static std::atomic<int> asked;
    asked = 0;
    culm::runtime::Embedder embedder;
    embedder.signals.are_pending = [](const Scheduler&) { return ++asked > 3; };
    culm::runtime::set_embedder(embedder);
    {
        SchedulerForTest scheduler;
        const Sender sender(pthread_self());
        CHECK(scheduler->park() == Wake::kInterrupted);
        CHECK(asked > 3);
    }
    culm::runtime::set_embedder({});
}

TEST_CASE("a signal that came before the wait is found without a poll") {
    culm::runtime::Embedder embedder;
    embedder.signals.are_pending = [](const Scheduler&) { return true; };
    culm::runtime::set_embedder(embedder);
    {
        SchedulerForTest scheduler;
        CHECK(scheduler->park() == Wake::kInterrupted);
        CHECK(scheduler->statistics().polls == 0);
    }
    culm::runtime::set_embedder({});
}

TEST_CASE("a signal that comes between the look for one and the sleep ends the sleep") {
    handle_usr1();
    signals_seen = 0;
    culm::runtime::Embedder embedder;
    embedder.signals.are_pending = [](const Scheduler&) { return signals_seen > 0; };
    culm::runtime::set_embedder(embedder);
    {
        SchedulerOptions options;
        auto reactor = culm::runtime::make_epoll_reactor();
        REQUIRE(reactor);
        options.reactor = std::make_unique<LateSignal>(std::move(reactor.value()));
        SchedulerForTest scheduler(std::move(options));
        // Without an end the test would hang where it fails; the signal is sent to this thread before it sleeps.
        CHECK(scheduler->park(scheduler->clock().now_ns() + 10 * kSecond) == Wake::kInterrupted);
        CHECK(signals_seen == 1);
    }
    culm::runtime::set_embedder({});
}

TEST_CASE("idle hooks bracket a poll that may block, and no other") {
    static int depth;
    static int idled;
    depth = idled = 0;
    culm::runtime::Embedder embedder;
    embedder.idling.begins = [](Fiber& self) {
        CHECK(self.scheduler().at_work());
        ++depth;
        ++idled;
    };
    embedder.idling.ends = [](Fiber&) { --depth; };
    culm::runtime::set_embedder(embedder);
    {
        SchedulerForTest scheduler;
        auto fiber = small_fiber([&] {
            for (unsigned i = 0; i < 4 * Scheduler::kSwitchesPerCatchUp; ++i) culm::yield_now();
        });
        for (unsigned i = 0; i < 4 * Scheduler::kSwitchesPerCatchUp; ++i) culm::yield_now();
        fiber.join();
        CHECK(idled == 0);
        culm::sleep_for(std::chrono::milliseconds(1));
        CHECK(idled > 0);
        CHECK(depth == 0);
        CHECK_FALSE(scheduler->at_work());
    }
    culm::runtime::set_embedder({});
}
