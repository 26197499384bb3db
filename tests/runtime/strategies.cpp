// Fibers on stacks of other strategies: they grow, block, are used again, and run out with a reason. In child
// processes, because signal handlers and the kernel's features are the process's.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "child.hpp"
#include "culm/kernel.hpp"
#include "culm/runtime/spawn.hpp"
#include "culm/strategy_pool.hpp"
#include "culm/testing/overrides.hpp"
#include "os/os.hpp"

using culm::StackClass;
using culm::StackStrategy;
using culm::runtime::Scheduler;
using culm::testing::run_in_child;

namespace {

constexpr const char* kCarriers[] = {"arena", "mmap", "fault-handler", "malloc"};

StackStrategy& named(const char* id) { return *culm::stack_strategy(id).value(); }

[[gnu::noinline]] int go_down(int pages) {
    volatile char frame[4096];
    frame[0] = static_cast<char>(pages);
    if (pages == 0) return frame[0];
    return go_down(pages - 1) + frame[0] - frame[0];
}

culm::JoinHandle spawn_on(const char* id, StackClass size_class, void (*body)()) {
    culm::SpawnOptions options;
    options.stack_class = size_class;
    options.strategy = &named(id);
    return culm::spawn(body, options);
}

std::size_t live = 0;

}  // namespace

TEST_CASE("fibers of each strategy go deep, switch among each other, and finish") {
    for (const char* id : kCarriers) {
        CAPTURE(std::string(id));
        const auto end = run_in_child([id] {
            std::vector<culm::JoinHandle> handles;
            for (int i = 0; i < 100; ++i) {
                handles.push_back(spawn_on(id, StackClass::k1M, [] {
                    ++live;
                    for (int turn = 0; turn < 3; ++turn) {
                        culm::yield_now();
                        go_down(100);
                    }
                    --live;
                }));
            }
            for (auto& handle : handles) handle.join();
            if (live != 0) return 1;
            if (handles[0].fiber().stack_strategy() != culm::strategy_index(named(id)).value()) return 2;
            handles.clear();
            // What is over is used again: no stack is made for the next.
            for (int i = 0; i < 1000; ++i) spawn_on(id, StackClass::k1M, [] { go_down(10); }).join();
            Scheduler::current()->trim();
            return Scheduler::close_current() ? 0 : 3;
        });
        CAPTURE(end.status);
        CAPTURE(end.stderr_text);
        CHECK(end.exited_with(0));
    }
}

namespace {

// A strategy that a program has written for itself. The runtime has no place to keep its stacks.
class Foreign final : public StackStrategy {
public:
    const char* id() const noexcept override { return "foreign"; }
    const char* name() const noexcept override { return "foreign"; }
    const char* summary() const noexcept override { return "Makes nothing."; }
    const culm::StrategyTraits& traits() const noexcept override { return traits_; }
    void destroy(std::span<const culm::StrategyStack>) noexcept override {}
    std::size_t shrink(std::span<const culm::SuspendedStrategyStack>) noexcept override { return 0; }

private:
    culm::Result<void> create_rounded(std::size_t, std::span<culm::StrategyStack>) noexcept override {
        return culm::Error{ENOMEM, "make a stack", "do not"};
    }
    culm::StrategyTraits traits_;
};

}  // namespace

TEST_CASE("a strategy that the runtime does not know is refused with EINVAL and a reason") {
    const auto end = run_in_child([] {
        static Foreign foreign;
        culm::SpawnOptions options;
        options.strategy = &foreign;
        const auto refused = culm::try_spawn([] {}, options);
        if (refused) return 1;
        if (refused.error().code != EINVAL) return 2;
        if (std::strstr(refused.error().advice, "stack_strategies()") == nullptr) return 3;
        // Nothing is lost by the refusal.
        options.strategy = &named("mmap");
        culm::spawn([] {}, options).join();
        return Scheduler::close_current() ? 0 : 4;
    });
    CAPTURE(end.status);
    CHECK(end.exited_with(0));
}

TEST_CASE("a promise of a stack that is not redeemed goes back to its strategy") {
    const auto end = run_in_child([] {
        auto scheduler = Scheduler::ensure();
        if (!scheduler) return 1;
        for (int i = 0; i < 200; ++i) {
            auto fiber = scheduler.value()->new_fiber([](culm::runtime::Fiber&, void*) {}, nullptr, StackClass::k64K,
                                                      &named("mmap"));
            if (!fiber) return 2;
            if (i % 2 == 0) scheduler.value()->discard(*fiber.value());
            fiber.value()->release();
        }
        return Scheduler::close_current() ? 0 : 3;
    });
    CHECK(end.exited_with(0));
}

TEST_CASE("memory of a parked fiber that was deep is given back by trim, whatever the strategy") {
    for (const char* id : kCarriers) {
        CAPTURE(std::string(id));
        const auto end = run_in_child([id] {
            auto handle = spawn_on(id, StackClass::k1M, [] {
                go_down(100);
                Scheduler::current()->park();
                go_down(100);
            });
            culm::yield_now();
            const culm::Stack stack = handle.fiber().stack();
            const auto present = [&] {
                std::size_t pages = 0;
                for (std::byte* at = stack.limit(); at < stack.base; at += 4096) {
                    unsigned char word = 0;
                    if (mincore(at, 4096, &word) == 0 && (word & 1) != 0) ++pages;
                }
                return pages;
            };
            if (present() < 100) return 1;
            Scheduler::current()->trim();
            if (present() > 4) return 2;
            Scheduler::current()->unpark(handle.fiber());
            handle.join();
            return 0;
        });
        CAPTURE(end.status);
        if (culm::kernel_features().page_bytes == 4096) CHECK(end.exited_with(0));
    }
}

TEST_CASE("strategies that take mappings leave half of them to the program, and say why they stop") {
    const auto end = run_in_child([] {
        auto scheduler = Scheduler::ensure();
        if (!scheduler) return 1;
        constexpr std::size_t kMappingsLeft = 400;
        culm::KernelFeatures features = culm::kernel_features();
        features.mappings_max = culm::os::mapping_count() + kMappingsLeft;
        culm::override_kernel_features(features);
        std::vector<culm::runtime::Fiber*> fibers;
        for (int i = 0; i < 200; ++i) {
            auto fiber = scheduler.value()->new_fiber([](culm::runtime::Fiber&, void*) {}, nullptr, StackClass::k64K,
                                                      &named("mmap"));
            if (!fiber) {
                if (fiber.error().code != ENOMEM) return 2;
                if (std::strstr(fiber.error().advice, "max_map_count") == nullptr) return 3;
                // Half of those left, two for each stack; the process itself may have made some meanwhile.
                if (fibers.size() > kMappingsLeft / 4 || fibers.size() < kMappingsLeft / 4 - 8) return 4;
                // The arena needs no mapping where the kernel has markers.
                if (features.guard != culm::GuardKind::kMadvise) return 0;
                return scheduler.value()->new_fiber([](culm::runtime::Fiber&, void*) {}, nullptr, StackClass::k64K) ? 0
                                                                                                                    : 5;
            }
            fibers.push_back(fiber.value());
        }
        return 6;
    });
    CAPTURE(end.status);
    CHECK(end.exited_with(0));
}

TEST_CASE("under strict overcommit a fiber that asks for nothing gets a stack that is charged as it is used") {
    const auto end = run_in_child([] {
        culm::KernelFeatures features = culm::kernel_features();
        features.overcommit_mode = 2;
        culm::override_kernel_features(features);
        if (&culm::default_stack_strategy() != &named("fault-handler")) return 1;
        auto handle = culm::spawn([] { go_down(200); });
        if (handle.fiber().stack_strategy() != culm::strategy_index(named("fault-handler")).value()) return 2;
        handle.join();
        // Who asks for the arena gets it, charged in full.
        return spawn_on("arena", StackClass::k256K, [] { go_down(20); }).fiber().stack_strategy() == culm::kArenaIndex
                   ? 0
                   : 3;
    });
    CAPTURE(end.status);
    CHECK(end.exited_with(0));
    CHECK(&culm::default_stack_strategy() == &named("arena"));
}

TEST_CASE("after a fork in a fiber of the fault-handler strategy both sides grow stacks, old and new") {
    const auto end = run_in_child([] {
        int status = -1;
        culm::SpawnOptions options;
        options.strategy = &named("fault-handler");
        culm::spawn(
            [&status, &options] {
                const pid_t child = fork();
                if (child == 0) {
                    go_down(300);
                    culm::spawn([] { go_down(300); }, options).join();
                    _exit(0);
                }
                go_down(400);
                waitpid(child, &status, 0);
            },
            options)
            .join();
        return status == 0 ? 0 : 1;
    });
    CAPTURE(end.status);
    CHECK(end.exited_with(0));
}
