// Random spawning, parking, unparking, cancelling, sleeping, switching and waiting, from a seed that is printed.
//
//   CULM_STRESS_SEED=<seed> runtime_stress     repeats what a failure printed
//
// Invariant: whatever the order, every fiber ends, no queue keeps anything, and the scheduler can be closed.
#include <sys/epoll.h>

#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "culm/stack_pool.hpp"
#include "fixture.hpp"

using namespace culm::testing;

namespace {

constexpr std::size_t kFibersMax = 200;
constexpr int kDescriptors = 16;

class Stress {
public:
    explicit Stress(std::uint64_t seed) : simulation_(seed), random_(seed) {}

    void run(int steps) {
        for (int step = 0; step < steps; ++step) one_step();
        while (scheduler().statistics().fibers > 0) {
            for (Fiber* fiber : fibers_) scheduler().cancel(*fiber);
            culm::yield_now();
        }
        for (Fiber* fiber : fibers_) fiber->release();
        const auto statistics = scheduler().statistics();
        CHECK(statistics.spawned == statistics.finished);
        CHECK(statistics.timers == 0);
        CHECK(statistics.fd_waits == 0);
        CHECK(simulation_.reactor->waiting() == 0);
        CHECK(queue_.empty());
        CHECK(scheduler().stack_pool().statistics(culm::StackClass::k64K).stacks_taken == 0);
    }

private:
    Scheduler& scheduler() { return *simulation_.scheduler; }
    std::uint64_t below(std::uint64_t bound) { return random_() % bound; }
    std::int64_t some_deadline_ns() {
        return below(4) == 0 ? kNever : simulation_.now_ns() + static_cast<std::int64_t>(below(50));
    }
    Fiber* some_fiber() { return fibers_.empty() ? nullptr : fibers_[below(fibers_.size())]; }

    void spawn_one() {
        if (fibers_.size() >= kFibersMax) drop_finished();
        if (fibers_.size() >= kFibersMax) return;
        auto made = scheduler().new_fiber([](Fiber&, void* stress) { static_cast<Stress*>(stress)->live(); }, this,
                                          culm::StackClass::k64K);
        REQUIRE(made);
        fibers_.push_back(made.value());
        if (below(4) != 0) scheduler().start(*made.value());
    }
    void drop_finished() {
        std::vector<Fiber*> kept;
        for (Fiber* fiber : fibers_) {
            if (fiber->state() == FiberState::kFinished) {
                fiber->release();
            } else {
                kept.push_back(fiber);
            }
        }
        fibers_.swap(kept);
    }
    void switch_somewhere() {
        Fiber* target = some_fiber();
        if (!target || target == &scheduler().running()) return;
        const bool waits = target->state() == FiberState::kParked && target->wait_kind() == WaitKind::kPermit;
        if (target->state() != FiberState::kNew && !waits) return;
        if (below(2) == 0) return scheduler().run_now(*target);
        // Somebody must switch back, or nobody would: main is always unparked by whoever finishes or cancels.
        if (!scheduler().running().is_main()) scheduler().switch_to(*target);
    }
    void wake_somebody() {
        Fiber* fiber = some_fiber();
        if (!fiber) return;
        if (below(2) == 0) {
            Scheduler::unpark(*fiber);
        } else {
            Scheduler::cancel(*fiber);
        }
    }
    void change_readiness() {
        const int fd = static_cast<int>(below(kDescriptors));
        const std::uint32_t events = below(8) == 0 ? EPOLLHUP : below(2) == 0 ? EPOLLIN : EPOLLOUT;
        if (below(3) == 0) return scheduler().forget_fd(fd);
        if (below(2) == 0) return simulation_.reactor->set_ready(fd, events);
        simulation_.reactor->clear_ready(fd, events);
    }

    // Only waits that end by themselves: nobody wakes main on purpose.
    void one_step() {
        switch (below(8)) {
            case 0:
            case 1:
                return spawn_one();
            case 2:
                return culm::yield_now();
            case 3:
                scheduler().sleep_until(simulation_.now_ns() + static_cast<std::int64_t>(below(20)));
                return;
            case 4:
                return wake_somebody();
            case 5:
                return change_readiness();
            case 6:
                static_cast<void>(queue_.notify_one());
                return;
            default:
                return switch_somewhere();
        }
    }

    void live() {
        const std::uint64_t steps = 1 + below(20);
        for (std::uint64_t step = 0; step < steps; ++step) {
            switch (below(7)) {
                case 0:
                    scheduler().park(some_deadline_ns());
                    break;
                case 1:
                    queue_.wait(scheduler(), WaitKind::kQueue, some_deadline_ns(), below(2) == 0);
                    break;
                case 2:
                    wait_for_descriptors();
                    break;
                case 3:
                    join_somebody();
                    break;
                default:
                    one_step();
                    break;
            }
        }
    }
    void wait_for_descriptors() {
        culm::runtime::FdRequest requests[3];
        const std::size_t count = 1 + below(3);
        for (std::size_t i = 0; i < count; ++i) {
            requests[i] = {static_cast<int>(below(kDescriptors)), below(2) == 0 ? EPOLLIN : EPOLLOUT, 0};
        }
        scheduler().wait_fds({requests, count}, some_deadline_ns());
    }
    void join_somebody() {
        Fiber* fiber = some_fiber();
        if (!fiber || fiber == &scheduler().running()) return;
        scheduler().join(*fiber, some_deadline_ns());
    }

    Simulation simulation_;
    std::mt19937_64 random_;
    culm::runtime::WaitQueue queue_;
    std::vector<Fiber*> fibers_;
};

std::uint64_t seed_to_use() {
    const char* given = std::getenv("CULM_STRESS_SEED");
    if (given) return std::strtoull(given, nullptr, 0);
    return (std::uint64_t{std::random_device{}()} << 32) | std::random_device{}();
}

}  // namespace

TEST_CASE("a random life of many fibers ends clean") {
    std::uint64_t seed = seed_to_use();
    for (int round = 0; round < 20; ++round, ++seed) {
        CAPTURE(seed);  // CULM_STRESS_SEED=<seed> repeats it
        std::printf("stress seed %llu\n", static_cast<unsigned long long>(seed));
        std::fflush(stdout);
        Stress(seed | 1).run(2000);
    }
}
