// What stacks cost: growing by a page, coming from the pool or fresh, and being switched between by the thousand.
//
//   culm_stack_benchmark [--stride=power-of-two] [google-benchmark options]
//
// benchmarks/stack_figures.py runs it and compares; each pair that is compared stands side by side here and does the
// same work. CPU time counts. Invariant: what is set up or given back is outside the timing.
#include <benchmark/benchmark.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "culm/kernel.hpp"
#include "culm/residency.hpp"
#include "culm/runtime/spawn.hpp"
#include "culm/stack_arena.hpp"
#include "culm/stack_pool.hpp"
#include "culm/testing/overrides.hpp"

namespace {

using culm::Stack;
using culm::StackClass;
using culm::runtime::Fiber;
using culm::runtime::Scheduler;

constexpr std::size_t kPageBytes = 4096;

std::byte* map_plain(std::size_t bytes) {
    void* start = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED || madvise(start, bytes, MADV_NOHUGEPAGE) != 0) {
        std::perror("mmap");
        std::exit(1);
    }
    return static_cast<std::byte*>(start);
}

Scheduler& scheduler() {
    auto made = Scheduler::ensure();
    if (!made) culm::abort_with(made.error());
    return *made.value();
}

// --- growth: pages touched for the first time, one by one, downwards ------------------------------------------------

constexpr std::int64_t kGrowthPages = 2000;

void growth_plain(benchmark::State& state) {
    constexpr std::size_t kBytes = 10 << 20;
    for (auto _ : state) {
        state.PauseTiming();
        std::byte* start = map_plain(kBytes);
        state.ResumeTiming();
        volatile std::byte* page = start + kBytes - 1;
        for (std::int64_t i = 0; i < kGrowthPages; ++i, page -= kPageBytes) *page = std::byte{1};
        state.PauseTiming();
        munmap(start, kBytes);
        state.ResumeTiming();
    }
    state.SetItemsProcessed(state.iterations() * kGrowthPages);
}
BENCHMARK(growth_plain)->Iterations(20);

// A frame of one page, so that each call is on a page of its own.
[[gnu::noinline]] void recurse(std::int64_t pages) {
    std::byte frame[kPageBytes - 64];
    frame[0] = std::byte{1};
    benchmark::DoNotOptimize(frame);
    if (pages > 1) recurse(pages - 1);
    benchmark::DoNotOptimize(frame);
}

void growth_fiber(benchmark::State& state) {
    Scheduler& here = scheduler();
    std::vector<Fiber*> used;
    bool over = false;
    struct Job {
        benchmark::State& state;
        bool& over;
    } job{state, over};
    for (auto _ : state) {
        state.PauseTiming();
        // The stack must be new, so each fiber stays parked until the end and keeps the one it used.
        auto made = here.new_fiber(
            [](Fiber& self, void* argument) {
                Job& mine = *static_cast<Job*>(argument);
                mine.state.ResumeTiming();
                recurse(kGrowthPages);
                mine.state.PauseTiming();
                self.scheduler().unpark(self.scheduler().main_fiber());
                self.scheduler().park();
            },
            &job);
        if (!made) culm::abort_with(made.error());
        Fiber& fiber = *made.value();
        here.start(fiber);
        used.push_back(&fiber);
        here.park();
        const culm::SuspendedStack suspended{fiber.stack(), fiber.suspended_sp()};
        culm::discard_below({&suspended, 1});
        state.ResumeTiming();
    }
    state.SetItemsProcessed(state.iterations() * kGrowthPages);
    // They stay parked, so that no later repetition gets their stacks.
}
BENCHMARK(growth_fiber)->Iterations(20);

// --- a stack from the pool, and one that is new ---------------------------------------------------------------------

// The pool is never destroyed, because the cold benchmarks do not give their stacks back.
culm::StackPool& pool() {
    static auto* one = new culm::StackPool;
    return *one;
}

Stack take(StackClass size_class) {
    if (auto reserved = pool().reserve(size_class); !reserved) culm::abort_with(reserved.error());
    return pool().take(size_class);
}

void pool_hit(benchmark::State& state) {
    pool().put(take(StackClass::k256K), nullptr);
    for (auto _ : state) {
        const Stack stack = take(StackClass::k256K);
        benchmark::DoNotOptimize(stack.base);
        pool().put(stack, stack.base - kPageBytes);
    }
}
BENCHMARK(pool_hit);

constexpr std::size_t kCold = 4096;

StackClass class_of(const benchmark::State& state) { return static_cast<StackClass>(state.range(0)); }

// What the kernel does for a new stack, done without one: a guard, installed in a vector of 512, and one page touched.
void cold_parts(benchmark::State& state) {
    const auto statistics = culm::StackArena::of(class_of(state)).statistics();
    const std::size_t stride = statistics.stride_bytes;
    const std::size_t bytes = kCold * stride + kPageBytes;
    const int self = static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0));
    constexpr int kGuardInstall = 102;
    constexpr std::size_t kVector = 512;
    iovec guards[kVector];
    for (auto _ : state) {
        state.PauseTiming();
        std::byte* start = map_plain(bytes);
        state.ResumeTiming();
        for (std::size_t slot = 0; slot < kCold; slot += kVector) {
            for (std::size_t i = 0; i < kVector; ++i) guards[i] = {start + (slot + i) * stride, statistics.guard_bytes};
            const long done = syscall(SYS_process_madvise, self, guards, kVector, kGuardInstall, 0);
            if (done < 0) {
                state.SkipWithError("the kernel has no vectored guards");
                break;
            }
            for (std::size_t i = 0; i < kVector; ++i) start[(slot + i + 1) * stride - 1] = std::byte{1};
        }
        state.PauseTiming();
        munmap(start, bytes);
        state.ResumeTiming();
    }
    close(self);
    state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(kCold));
}

void cold_stack(benchmark::State& state) {
    const StackClass size_class = class_of(state);
    // The first batches that an arena makes are small, so the first stacks cost more than later ones.
    std::vector<Stack> stacks(kCold);
    for (auto _ : state) {
        for (Stack& stack : stacks) {
            stack = take(size_class);
            stack.base[-1] = std::byte{1};
        }
        state.PauseTiming();
        std::vector<culm::SuspendedStack> used;
        for (const Stack& stack : stacks) used.push_back({stack, stack.base});
        culm::discard_below(used);
        state.ResumeTiming();
    }
    state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(kCold));
}
constexpr int kClasses[] = {static_cast<int>(StackClass::k64K), static_cast<int>(StackClass::k10M)};
BENCHMARK(cold_parts)->Arg(kClasses[0])->Arg(kClasses[1])->Iterations(4);
BENCHMARK(cold_stack)->Arg(kClasses[0])->Arg(kClasses[1])->Iterations(4);

// --- round robin ----------------------------------------------------------------------------------------------------

// Arguments: how many fibers, their class.
void round_robin(benchmark::State& state) {
    Scheduler& here = scheduler();
    bool over = false;
    const auto count = static_cast<std::size_t>(state.range(0));
    std::vector<culm::JoinHandle> fibers;
    for (std::size_t i = 0; i < count; ++i) {
        auto made = here.new_fiber(
            [](Fiber& self, void* stop) {
                while (!*static_cast<bool*>(stop)) self.scheduler().yield_now();
            },
            &over, static_cast<StackClass>(state.range(1)));
        if (!made) culm::abort_with(made.error());
        here.start(*made.value());
        fibers.emplace_back(made.value());
    }
    for (int i = 0; i < 3; ++i) here.yield_now();
    for (auto _ : state) here.yield_now();
    over = true;
    for (auto& fiber : fibers) fiber.join();
    state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(count + 1));
}

// Touches the memory that a round robin goes through and does nothing else: of each fiber one line of its control block
// and two of its stack, whose places follow from the stride. So it shows the most that the stride can matter here.
void round_robin_memory(benchmark::State& state) {
    constexpr std::size_t kLineBytes = 64;
    constexpr std::size_t kBlockBytes = 192;
    constexpr std::size_t kColours = 16;
    const auto size_class = static_cast<StackClass>(state.range(1));
    std::vector<Stack> stacks(static_cast<std::size_t>(state.range(0)));
    for (Stack& stack : stacks) stack = take(size_class);
    std::vector<volatile std::byte*> lines;
    for (const Stack& stack : stacks) {
        const std::size_t colour = reinterpret_cast<std::uintptr_t>(stack.base) / kPageBytes % kColours;
        lines.push_back(stack.base - (colour + 2) * kLineBytes);
    }
    std::vector<std::byte> blocks(stacks.size() * kBlockBytes);
    const auto lap = [&] {
        volatile std::byte* block = blocks.data();
        for (volatile std::byte* line : lines) {
            *block = std::byte{1};
            block += kBlockBytes;
            line[0] = line[kLineBytes] = std::byte{1};
        }
    };
    for (int i = 0; i < 3; ++i) lap();
    for (auto _ : state) lap();
    state.SetItemsProcessed(state.iterations() * state.range(0));
    for (const Stack& stack : stacks) pool().put(stack, nullptr);
}

const std::vector<std::vector<std::int64_t>> kRobins{
    {1000, 10000}, {static_cast<int>(StackClass::k256K), static_cast<int>(StackClass::k10M)}};
BENCHMARK(round_robin)->ArgsProduct(kRobins);
BENCHMARK(round_robin_memory)->ArgsProduct(kRobins);

}  // namespace

int main(int argc, char** argv) {
    const auto rest = std::remove_if(argv + 1, argv + argc, [](const char* argument) {
        if (std::string_view(argument) != "--stride=power-of-two") return false;
        culm::override_stride_rule(culm::StrideRule::kPowerOfTwo);
        return true;
    });
    argc = static_cast<int>(rest - argv);
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
    benchmark::RunSpecifiedBenchmarks();
    return 0;
}
