// Many fibers: parked and resumed, trimmed while they wait; and what happens when there is no room for more.
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <vector>

#include "../core/child.hpp"
#include "culm/kernel.hpp"
#include "culm/residency.hpp"
#include "culm/stack_pool.hpp"
#include "fixture.hpp"

using namespace culm::testing;

namespace {

// ThreadSanitizer allows a few thousand fibers; guards that are mappings, about 16,000.
std::size_t many() {
    if (CULM_INSTRUMENTED) return 2'000;
    return culm::kernel_features().guard == culm::GuardKind::kMadvise ? 100'000 : 5'000;
}

[[gnu::noinline]] void use_stack(std::size_t bytes) {
    auto* deep = static_cast<char*>(__builtin_alloca(bytes));
    std::memset(deep, 1, bytes);
    asm volatile("" : : "r"(deep) : "memory");
}

std::size_t mapped_bytes() {
    std::size_t pages = 0;
    std::FILE* file = std::fopen("/proc/self/statm", "r");
    if (!file) return 0;
    if (std::fscanf(file, "%zu", &pages) != 1) pages = 0;
    std::fclose(file);
    return pages * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace

TEST_CASE("a hundred thousand fibers park and are resumed") {
    SchedulerForTest scheduler;
    std::size_t resumed = 0;
    std::vector<culm::JoinHandle> fibers;
    fibers.reserve(many());
    for (std::size_t i = 0; i < many(); ++i) {
        fibers.push_back(culm::spawn(
            [&] {
                scheduler->park();
                ++resumed;
            },
            {.stack_class = culm::StackClass::k64K}));
    }
    let_others_run();
    CHECK(scheduler->statistics().fibers == many());
    CHECK(resumed == 0);
    for (auto& fiber : fibers) scheduler->unpark(fiber.fiber());
    for (auto& fiber : fibers) fiber.join();
    CHECK(resumed == many());
    CHECK(scheduler->statistics().finished == many());
    CHECK(scheduler->stack_pool().statistics(culm::StackClass::k64K).stacks_taken == 0);
}

TEST_CASE("trim gives back what parked fibers no longer use, once") {
    SchedulerForTest scheduler;
    constexpr std::size_t kFibers = 300;
    constexpr std::size_t kDepth = 100 * 1024;
    std::vector<culm::JoinHandle> fibers;
    for (std::size_t i = 0; i < kFibers; ++i) {
        fibers.push_back(small_fiber([&] {
            int kept = 42;
            use_stack(kDepth);
            scheduler->park();
            CHECK(kept == 42);
            use_stack(kDepth);
        }));
    }
    let_others_run();
    CHECK(scheduler->trim() == kFibers);
    for (auto& fiber : fibers) {
        const auto residency = culm::stack_residency(fiber.fiber().stack());
        REQUIRE(residency);
        CHECK(residency.value().resident_bytes < kDepth / 2);
        CHECK(fiber.fiber().peak_bytes() >= kDepth);
    }
    CHECK(scheduler->trim() == 0);
    for (auto& fiber : fibers) scheduler->unpark(fiber.fiber());
    for (auto& fiber : fibers) fiber.join();
}

TEST_CASE("a spawn that finds no room says so, leaves nothing behind and harms nobody") {
    if (CULM_INSTRUMENTED) return;  // a sanitizer's shadow does not fit any limit
    const auto end = run_in_child([] {
        auto made = Scheduler::ensure();
        if (!made) return 1;
        Scheduler& scheduler = *made.value();
        auto running = small_fiber([&] { scheduler.park(); });
        let_others_run();
        const std::size_t room_bytes = mapped_bytes() + (std::size_t{2} << 30);
        const rlimit limit{room_bytes, room_bytes};
        if (setrlimit(RLIMIT_AS, &limit) != 0) return 2;
        std::vector<Fiber*> made_fibers;
        made_fibers.reserve(100'000);
        for (;;) {
            auto fiber = scheduler.new_fiber([](Fiber&, void*) {}, nullptr);
            if (!fiber) {
                if (fiber.error().code != ENOMEM || !*fiber.error().advice) return 3;
                break;
            }
            made_fibers.push_back(fiber.value());
            if (made_fibers.size() == 100'000) return 4;
        }
        if (made_fibers.empty()) return 5;
        const auto full = scheduler.stack_pool().statistics(culm::kDefaultStackClass);
        for (int again = 0; again < 100; ++again) {
            if (scheduler.new_fiber([](Fiber&, void*) {}, nullptr)) return 6;
        }
        const auto after = scheduler.stack_pool().statistics(culm::kDefaultStackClass);
        if (after.stacks_reserved != full.stacks_reserved || after.stacks_free != full.stacks_free) return 7;
        for (Fiber* fiber : made_fibers) scheduler.start(*fiber);
        for (Fiber* fiber : made_fibers) {
            scheduler.join(*fiber);
            fiber->release();
        }
        if (!scheduler.new_fiber([](Fiber&, void*) {}, nullptr)) return 8;
        scheduler.unpark(running.fiber());
        return running.join() == Wake::kNotified ? 0 : 9;
    });
    CHECK(end.stderr_text == "");
    CAPTURE(end.status);
    CHECK(end.exited_with(0));
}
