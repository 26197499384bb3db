// When parked fibers give their memory back: age, budget, idleness, pressure; and what is never touched.
//
// Time is simulated and pressure is made of files, so that every run makes the same slices.
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "../core/child.hpp"
#include "culm/kernel.hpp"
#include "culm/memory_pressure.hpp"
#include "culm/residency.hpp"
#include "culm/runtime/shrink.hpp"
#include "culm/stack_pool.hpp"
#include "culm/testing/overrides.hpp"
#include "fixture.hpp"

using namespace culm::testing;
using culm::runtime::ShrinkSettings;
using culm::runtime::ShrinkStatistics;

namespace {

constexpr std::size_t kDepth = 100 * 1024;

[[gnu::noinline]] void use_stack(std::size_t bytes) {
    auto* deep = static_cast<char*>(__builtin_alloca(bytes));
    std::memset(deep, 1, bytes);
    asm volatile("" : : "r"(deep) : "memory");
}

// Settings for the length of a test.
struct Settings {
    explicit Settings(const ShrinkSettings& settings) { culm::runtime::set_shrink_settings(settings); }
    ~Settings() { culm::runtime::set_shrink_settings({}); }
};

std::size_t resident_bytes(Fiber& fiber) {
    const auto residency = culm::stack_residency(fiber.stack());
    REQUIRE(residency);
    return residency.value().resident_bytes;
}

ShrinkStatistics counts() { return Scheduler::current()->statistics().shrink; }

// Fibers that have used kDepth and parked, to be resumed at the end.
struct DeepFibers {
    std::vector<culm::JoinHandle> fibers;

    explicit DeepFibers(std::size_t count, std::size_t depth = kDepth) {
        for (std::size_t i = 0; i < count; ++i) {
            fibers.push_back(culm::spawn(
                [depth, i] {
                    volatile std::size_t kept = i;
                    use_stack(depth);
                    Scheduler::current()->park();
                    REQUIRE(kept == i);
                },
                {.stack_class = culm::StackClass::k1M}));
        }
        let_others_run();
    }
    ~DeepFibers() {
        for (auto& fiber : fibers) Scheduler::current()->unpark(fiber.fiber());
        for (auto& fiber : fibers) fiber.join();
    }
    std::size_t resident() {
        std::size_t bytes = 0;
        for (auto& fiber : fibers) bytes += resident_bytes(fiber.fiber());
        return bytes;
    }
};

// Keeps the scheduler busy until the simulated time has come, without ever being idle.
void be_busy_until(Simulation& simulation, std::int64_t until_ns) {
    bool done = false;
    auto partner = small_fiber([&] {
        while (!done) let_others_run();
    });
    while (simulation.now_ns() < until_ns) {
        // Time stands still while fibers can run: move it by hand, a bit at a time.
        simulation.scheduler->clock().skip_to(simulation.now_ns() + 20 * kMillisecond);
        for (unsigned i = 0; i < 2 * Scheduler::kSwitchesPerCatchUp; ++i) let_others_run();
    }
    done = true;
    partner.join();
}

// A control group's directory and a stall file, made of nothing but files.
class PressureFiles {
public:
    PressureFiles() {
        directory_ = (std::filesystem::temp_directory_path() / "culm-pressure-XXXXXX").string();
        REQUIRE(mkdtemp(directory_.data()) != nullptr);
        const char* name = directory_.c_str();
        std::snprintf(sources_.group_directory, sizeof(sources_.group_directory), "%s", name);
        std::snprintf(sources_.stall_file, sizeof(sources_.stall_file), "%s/stall", name);
        write("memory.current", "100000");
        write("memory.high", "max");
        write("memory.max", "1000000");
        stall_us(0);
        REQUIRE(culm::override_pressure_sources(&sources_));
    }
    ~PressureFiles() {
        culm::override_pressure_sources(nullptr);
        for (const char* name : {"memory.current", "memory.high", "memory.max", "memory.stat", "stall"}) {
            unlink((directory_ + "/" + name).c_str());
        }
        rmdir(directory_.c_str());
    }
    void write(const char* name, const std::string& text) {
        std::FILE* file = std::fopen((directory_ + "/" + name).c_str(), "w");
        REQUIRE(file != nullptr);
        std::fputs(text.c_str(), file);
        std::fclose(file);
    }
    void stall_us(long total) {
        write("stall", "some avg10=0.00 avg60=0.00 avg300=0.00 total=" + std::to_string(total) + "\nfull avg10=0.00\n");
    }

private:
    std::string directory_;
    culm::PressureSources sources_;
};

}  // namespace

TEST_CASE("a second of idleness gives back what parked fibers do not need, and no sooner") {
    Simulation simulation;
    DeepFibers deep(300);
    const std::size_t before = deep.resident();
    simulation.scheduler->sleep_until(simulation.now_ns() + 900 * kMillisecond);
    CHECK(deep.resident() == before);
    simulation.scheduler->sleep_until(simulation.now_ns() + 2 * kSecond);
    const std::size_t needed = 300 * 4 * culm::kernel_features().page_bytes;
    CHECK(deep.resident() <= needed);
    CHECK(counts().visited == 300);
    CHECK(counts().shrunk == 300);
    CHECK(counts().bytes == before - deep.resident());
    CHECK(counts().kept_bytes == 0);
    CHECK(counts().refused == 0);
    CHECK(counts().slices > 2);  // 300 stacks of 25 pages are more than one slice may take
    for (auto& fiber : deep.fibers) CHECK(fiber.fiber().peak_bytes() >= kDepth);
}

TEST_CASE("a fiber is looked at once after it ran, however long it stays parked") {
    Simulation simulation;
    DeepFibers deep(40);
    simulation.scheduler->sleep_until(simulation.now_ns() + 3 * kSecond);
    CHECK(counts().visited == 40);
    for (int i = 0; i < 20; ++i) simulation.scheduler->sleep_until(simulation.now_ns() + kSecond);
    CHECK(counts().visited == 40);

    auto again = small_fiber([&] {
        simulation.scheduler->park();
        use_stack(kDepth);
        simulation.scheduler->park();
    });
    let_others_run();  // so that the main fiber is the one that idles: whoever idles is not looked at
    simulation.scheduler->sleep_until(simulation.now_ns() + 3 * kSecond);
    CHECK(counts().visited == 41);
    CHECK(counts().shrunk == 40);
    simulation.scheduler->unpark(again.fiber());
    let_others_run();
    simulation.scheduler->sleep_until(simulation.now_ns() + 3 * kSecond);
    CHECK(counts().visited == 42);
    CHECK(counts().shrunk == 41);
    simulation.scheduler->unpark(again.fiber());
    again.join();
}

TEST_CASE("a busy scheduler keeps excess within the budget and gives back what exceeds it") {
    for (const bool within : {true, false}) {
        CAPTURE(within);
        ShrinkSettings wanted;
        wanted.budget_bytes = within ? std::size_t{64} << 20 : std::size_t{1} << 20;
        const Settings settings(wanted);
        Simulation simulation;
        DeepFibers deep(100);
        const std::size_t before = deep.resident();
        be_busy_until(simulation, simulation.now_ns() + 3 * kSecond);
        CHECK(counts().visited == 100);
        if (within) {
            CHECK(deep.resident() == before);
            CHECK(counts().kept_bytes > 100 * (kDepth - 4 * culm::kernel_features().page_bytes));
            CHECK(culm::runtime::kept_excess_bytes() == counts().kept_bytes);
        } else {
            CHECK(deep.resident() <= 100 * 4 * culm::kernel_features().page_bytes);
            CHECK(counts().kept_bytes == 0);
        }
    }
    CHECK(culm::runtime::kept_excess_bytes() == 0);
}

TEST_CASE("a fiber that runs again takes its excess along") {
    Simulation simulation;
    {
        DeepFibers deep(10);
        be_busy_until(simulation, simulation.now_ns() + 3 * kSecond);
        CHECK(counts().kept_bytes > 10 * kDepth / 2);
    }
    CHECK(counts().kept_bytes == 0);
    CHECK(culm::runtime::kept_excess_bytes() == 0);
}

TEST_CASE("a stack with more excess than a slice may take goes in several") {
    Simulation simulation;
    auto fiber = culm::spawn(
        [&] {
            use_stack(std::size_t{8} << 20);
            simulation.scheduler->park();
        },
        {.stack_class = culm::StackClass::k10M});
    let_others_run();
    simulation.scheduler->sleep_until(simulation.now_ns() + 3 * kSecond);
    CHECK(resident_bytes(fiber.fiber()) <= 4 * culm::kernel_features().page_bytes);
    CHECK(fiber.fiber().peak_bytes() >= std::size_t{8} << 20);
    CHECK(counts().shrunk == 1);
    CHECK(counts().ranges > 3);
    CHECK(counts().bytes >= (std::size_t{8} << 20) - 4 * culm::kernel_features().page_bytes);
    simulation.scheduler->unpark(fiber.fiber());
    fiber.join();
}

TEST_CASE("without an idle age only trim gives back") {
    ShrinkSettings wanted;
    wanted.after_ns = kNever;
    const Settings settings(wanted);
    Simulation simulation;
    DeepFibers deep(10);
    const std::size_t before = deep.resident();
    simulation.scheduler->sleep_until(simulation.now_ns() + 3600 * kSecond);
    CHECK(deep.resident() == before);
    CHECK(simulation.scheduler->trim() == 10);
    CHECK(deep.resident() < before / 2);
    CHECK(simulation.scheduler->trim() == 0);
}

TEST_CASE("changed settings reach a scheduler that is idle, on its thread") {
    ShrinkSettings wanted;
    wanted.after_ns = kNever;
    wanted.react_to_pressure = false;  // nothing but the change may wake it
    const Settings settings(wanted);
    std::atomic<Fiber*> parked{nullptr};
    std::thread thread([&] {
        SchedulerForTest scheduler;
        DeepFibers deep(1);
        auto publisher = small_fiber([&] { parked = &deep.fibers[0].fiber(); });
        scheduler->park();  // idle, without a deadline
        publisher.join();
    });
    while (!parked) std::this_thread::yield();
    Fiber& fiber = *parked.load();
    CHECK(resident_bytes(fiber) >= kDepth);
    wanted.after_ns = kMillisecond;
    culm::runtime::set_shrink_settings(wanted);
    while (resident_bytes(fiber) >= kDepth) std::this_thread::yield();
    fiber.scheduler().post([](Scheduler& self, void*) { self.unpark(self.main_fiber()); }, nullptr);
    thread.join();
}

TEST_CASE("a full control group makes everything go at once, file pages set aside") {
    PressureFiles files;
    Simulation simulation;
    DeepFibers deep(100);
    const std::size_t before = deep.resident();
    be_busy_until(simulation, simulation.now_ns() + 300 * kMillisecond);
    CHECK(counts().pressure_events == 0);
    files.write("memory.current", "950000");
    files.write("memory.stat", "anon 850000\ninactive_file 100000\nactive_file 0\n");
    be_busy_until(simulation, simulation.now_ns() + 300 * kMillisecond);
    CHECK(counts().pressure_events == 0);
    CHECK(deep.resident() == before);
    files.write("memory.stat", "anon 940000\ninactive_file 10000\nactive_file 0\n");
    be_busy_until(simulation, simulation.now_ns() + 300 * kMillisecond);
    CHECK(counts().pressure_events >= 1);
    CHECK(deep.resident() <= 100 * 4 * culm::kernel_features().page_bytes);
    // What is warm is the stack of the fiber that kept the scheduler busy, and no other.
    CHECK(simulation.scheduler->stack_pool().statistics(culm::StackClass::k256K).stacks_free > 1);
    CHECK(simulation.scheduler->stack_pool().warm_bytes() <= 4 * culm::kernel_features().page_bytes);
}

TEST_CASE("the lower of the group's two limits counts") {
    PressureFiles files;
    Simulation simulation;
    DeepFibers deep(1);
    files.write("memory.high", "105000");
    be_busy_until(simulation, simulation.now_ns() + 300 * kMillisecond);
    CHECK(counts().pressure_events >= 1);
}

TEST_CASE("somebody who waits for memory makes everything go at once") {
    PressureFiles files;
    Simulation simulation;
    DeepFibers deep(10);
    be_busy_until(simulation, simulation.now_ns() + 300 * kMillisecond);
    files.stall_us(5'000);  // 5 ms of a quarter of a second or more: no pressure yet
    be_busy_until(simulation, simulation.now_ns() + 300 * kMillisecond);
    CHECK(counts().pressure_events == 0);
    files.stall_us(205'000);
    be_busy_until(simulation, simulation.now_ns() + 300 * kMillisecond);
    CHECK(counts().pressure_events == 1);
    CHECK(deep.resident() <= 10 * 4 * culm::kernel_features().page_bytes);
}

TEST_CASE("pressure is not looked at when it is not to be reacted to") {
    PressureFiles files;
    files.write("memory.current", "999999");
    ShrinkSettings wanted;
    wanted.react_to_pressure = false;
    const Settings settings(wanted);
    Simulation simulation;
    DeepFibers deep(10);
    be_busy_until(simulation, simulation.now_ns() + 600 * kMillisecond);
    CHECK(counts().pressure_events == 0);
}

TEST_CASE("files of pressure that are missing or make no sense say nothing") {
    PressureFiles files;
    Simulation simulation;
    DeepFibers deep(10);
    for (const char* nonsense : {"", "max", "-5", "lots\n", "99999999999999999999999999"}) {
        for (const char* name : {"memory.current", "memory.max", "memory.high", "memory.stat", "stall"}) {
            files.write(name, nonsense);
        }
        be_busy_until(simulation, simulation.now_ns() + 300 * kMillisecond);
    }
    culm::PressureSources nothing;
    std::snprintf(nothing.group_directory, sizeof(nothing.group_directory), "/nonexistent/group");
    std::snprintf(nothing.stall_file, sizeof(nothing.stall_file), "/nonexistent/stall");
    REQUIRE(culm::override_pressure_sources(&nothing));
    be_busy_until(simulation, simulation.now_ns() + 600 * kMillisecond);
    CHECK(counts().pressure_events == 0);
}

TEST_CASE("exact peaks: what an earlier fiber touched is not the next one's") {
    ShrinkSettings wanted;
    wanted.exact_peaks = true;
    const Settings settings(wanted);
    SchedulerForTest scheduler;
    small_fiber([] { use_stack(kDepth); }).join();
    auto shallow = small_fiber([&] { scheduler->park(); });
    let_others_run();
    CHECK(resident_bytes(shallow.fiber()) <= 2 * culm::kernel_features().page_bytes);
    scheduler->unpark(shallow.fiber());
    shallow.join();
}

TEST_CASE("a pool follows its budget when that is lowered, and gives stacks back to the arena") {
    SchedulerForTest scheduler;
    constexpr std::size_t kFibers = 600;
    for (int round = 0; round < 2; ++round) {
        std::vector<culm::JoinHandle> fibers;
        for (std::size_t i = 0; i < kFibers; ++i) fibers.push_back(small_fiber([&] { let_others_run(); }));
        for (auto& fiber : fibers) fiber.join();
    }
    const auto before = scheduler->stack_pool().statistics(culm::StackClass::k256K);
    CHECK(before.warm_bytes > 0);
    ShrinkSettings wanted;
    wanted.pool_budget_bytes = before.warm_bytes / 2;
    const Settings settings(wanted);
    scheduler->sleep_until(scheduler->clock().now_ns() + kMillisecond);
    CHECK(scheduler->stack_pool().warm_bytes() <= before.warm_bytes / 2);
    scheduler->trim();
    const auto after = scheduler->stack_pool().statistics(culm::StackClass::k256K);
    CHECK(after.warm_bytes == 0);
    CHECK(after.stacks_free <= culm::StackPool::kColdMax);
    CHECK(after.stacks_returned >= before.stacks_free - culm::StackPool::kColdMax);
}

TEST_CASE("locked memory stays, is counted as refused, and nothing breaks") {
    if (CULM_INSTRUMENTED) return;
    const auto end = run_in_child([] {
        Simulation simulation;
        DeepFibers deep(20);
        if (mlockall(MCL_CURRENT) != 0) return 77;  // not allowed to
        const std::size_t before = deep.resident();
        simulation.scheduler->trim();
        if (deep.resident() != before) return 1;
        if (counts().refused != counts().ranges) return 2;
        if (counts().bytes != 0) return 3;
        if (counts().kept_bytes != 0) return 4;
        munlockall();
        return 0;
    });
    CAPTURE(end.stderr_text);
    CHECK((end.exited_with(0) || end.exited_with(77)));
}
