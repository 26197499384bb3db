// Arenas: the shape of the slots, guards that fault where they should, mappings, look-up by address, giving back.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cinttypes>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "child.hpp"
#include "culm/kernel.hpp"
#include "culm/stack_arena.hpp"
#include "culm/testing/overrides.hpp"
#include "os/os.hpp"

using culm::Stack;
using culm::StackArena;
using culm::StackClass;
using culm::testing::run_in_child;

namespace {

constexpr StackClass kClasses[] = {StackClass::k64K, StackClass::k256K, StackClass::k1M,
                                   StackClass::k10M, StackClass::k100M, StackClass::k1G};

std::vector<Stack> take(StackClass size_class, std::size_t count) {
    std::vector<Stack> stacks(count);
    const auto taken = StackArena::of(size_class).take(stacks);
    REQUIRE_MESSAGE(bool(taken), taken.error().operation);
    return stacks;
}

std::byte* volatile expected_fault = nullptr;

void exit_with_verdict(int, siginfo_t* what, void*) { _exit(what->si_addr == expected_fault ? 42 : 43); }

// Whether touching `address` faults, with that address, in a child.
bool touching_faults(std::byte* address) {
    const auto end = run_in_child([address] {
        struct sigaction action {};
        action.sa_sigaction = exit_with_verdict;
        action.sa_flags = SA_SIGINFO;
        sigaction(SIGSEGV, &action, nullptr);
        sigaction(SIGBUS, &action, nullptr);
        expected_fault = address;
        *static_cast<volatile std::byte*>(address) = std::byte{1};
        return 0;
    });
    CHECK_FALSE(end.exited_with(43));
    return end.exited_with(42);
}

// How many mappings of the process the stacks lie in, guards included. Those of the C library and of sanitizers, which
// come and go, don't count.
std::size_t mappings_that_hold(const std::vector<Stack>& stacks) {
    const std::size_t stride_bytes = StackArena::of(stacks.front().size_class).statistics().stride_bytes;
    std::vector<std::uintptr_t> bases;
    for (const Stack& stack : stacks) bases.push_back(reinterpret_cast<std::uintptr_t>(stack.base));
    std::sort(bases.begin(), bases.end());
    std::ifstream maps("/proc/self/maps");
    std::size_t count = 0;
    for (std::string line; std::getline(maps, line);) {
        std::uintptr_t start = 0;
        std::uintptr_t end = 0;
        if (std::sscanf(line.c_str(), "%" SCNxPTR "-%" SCNxPTR, &start, &end) != 2) continue;
        // The first slot that ends above the start of the mapping: does it begin below the end?
        const auto slot = std::upper_bound(bases.begin(), bases.end(), start);
        if (slot != bases.end() && *slot - stride_bytes < end) ++count;
    }
    return count;
}

}  // namespace

TEST_CASE("power-of-two strides, for comparison, are whole and guarded") {
    const auto end = run_in_child([] {
        culm::override_stride_rule(culm::StrideRule::kPowerOfTwo);
        for (const StackClass size_class : kClasses) {
            Stack stacks[2];
            if (!StackArena::of(size_class).take(stacks)) return 1;
            const auto statistics = StackArena::of(size_class).statistics();
            if (!std::has_single_bit(statistics.stride_bytes)) return 2;
            if (statistics.guard_bytes + stack_limit_bytes(size_class) != statistics.stride_bytes) return 3;
            const auto distance = stacks[0].base - stacks[1].base;
            if (static_cast<std::size_t>(std::abs(distance)) != statistics.stride_bytes) return 4;
            for (const Stack& stack : stacks) {
                *stack.limit() = std::byte{1};
                if (culm::os::kernel_can_write(stack.limit() - 1)) return 5;
            }
        }
        return 0;
    });
    CAPTURE(end.status);
    CHECK(end.exited_with(0));
}

TEST_CASE("limits choose the smallest class that holds them") {
    CHECK(culm::stack_class_for(1).value() == StackClass::k64K);
    CHECK(culm::stack_class_for(65536).value() == StackClass::k64K);
    CHECK(culm::stack_class_for(65537).value() == StackClass::k256K);
    CHECK(culm::stack_class_for(std::size_t{10} << 20).value() == StackClass::k10M);
    CHECK(culm::stack_class_for(std::size_t{1} << 30).value() == StackClass::k1G);
    const auto none = culm::stack_class_for(0);
    CHECK_FALSE(bool(none));
    CHECK(none.error().code == EINVAL);
    CHECK(culm::stack_class_for((std::size_t{1} << 30) + 1).error().code == EINVAL);
    CHECK(culm::stack_class_for(SIZE_MAX).error().code == EINVAL);
}

TEST_CASE("the stride is an odd number of pages and holds limit and guard") {
    const std::size_t page_bytes = culm::kernel_features().page_bytes;
    for (const StackClass size_class : kClasses) {
        const auto stacks = take(size_class, 4);
        const auto statistics = StackArena::of(size_class).statistics();
        CHECK(statistics.stride_bytes % page_bytes == 0);
        CHECK(statistics.stride_bytes / page_bytes % 2 == 1);
        CHECK(statistics.stride_bytes == culm::stack_limit_bytes(size_class) + statistics.guard_bytes);
        CHECK(statistics.guard_bytes >= page_bytes);
        if (size_class >= StackClass::k1M) CHECK(statistics.guard_bytes >= 65536);
        for (const Stack& stack : stacks) {
            CHECK(reinterpret_cast<std::uintptr_t>(stack.base) % page_bytes == 0);
            CHECK(stack.size_class == size_class);
        }
        StackArena::of(size_class).give_back(stacks);
    }
}

TEST_CASE("the first base is not on a boundary between page-table pages") {
    const auto stacks = take(StackClass::k10M, 1);
    // The first test took the lowest slots; what comes next in line is a stride above.
    CHECK(reinterpret_cast<std::uintptr_t>(stacks[0].base) % (std::size_t{2} << 20) != 0);
    StackArena::of(StackClass::k10M).give_back(stacks);
}

TEST_CASE("a stack is usable from end to end and its guard faults at both edges") {
    for (const StackClass size_class : {StackClass::k64K, StackClass::k1M, StackClass::k10M}) {
        const auto stacks = take(size_class, 2);
        const std::size_t guard_bytes = StackArena::of(size_class).statistics().guard_bytes;
        for (const Stack& stack : stacks) {
            CHECK_FALSE(touching_faults(stack.limit()));
            CHECK_FALSE(touching_faults(stack.base - 1));
            CHECK(touching_faults(stack.limit() - 1));
            CHECK(touching_faults(stack.limit() - guard_bytes));
        }
        StackArena::of(size_class).give_back(stacks);
    }
}

TEST_CASE("the kernel may write into stack that was never touched, and not into the guard") {
    const auto stacks = take(StackClass::k256K, 40);
    CHECK(culm::os::kernel_can_write(stacks.back().limit()));
    CHECK_FALSE(culm::os::kernel_can_write(stacks.back().limit() - 1));
    StackArena::of(StackClass::k256K).give_back(stacks);
}

TEST_CASE("an address is found in its stack, its guard or nowhere") {
    const auto stacks = take(StackClass::k1M, 3);
    const Stack& stack = stacks[1];
    CHECK(culm::stack_of_address(stack.limit()).base == stack.base);
    CHECK(culm::stack_of_address(stack.base - 1).base == stack.base);
    CHECK(culm::stack_of_address(stack.base - 1).size_class == StackClass::k1M);
    CHECK_FALSE(bool(culm::stack_of_guard_address(stack.limit())));
    CHECK(culm::stack_of_guard_address(stack.limit() - 1).base == stack.base);
    CHECK_FALSE(bool(culm::stack_of_address(stack.limit() - 1)));
    const int elsewhere = 0;
    CHECK_FALSE(bool(culm::stack_of_address(&elsewhere)));
    CHECK_FALSE(bool(culm::stack_of_guard_address(&elsewhere)));
    CHECK_FALSE(bool(culm::stack_of_guard_address(nullptr)));
    StackArena::of(StackClass::k1M).give_back(stacks);
}

TEST_CASE("ten thousand guarded stacks add fewer than ten mappings") {
    if (culm::kernel_features().guard != culm::GuardKind::kMadvise) {
        MESSAGE("skipped: this kernel has no MADV_GUARD_INSTALL");
        return;
    }
    const auto stacks = take(StackClass::k10M, 10'000);
    CHECK(mappings_that_hold(stacks) < 10);
    std::set<std::byte*> bases;
    for (const Stack& stack : stacks) bases.insert(stack.base);
    CHECK(bases.size() == stacks.size());
    CHECK(touching_faults(stacks.front().limit() - 1));
    CHECK(touching_faults(stacks[5000].limit() - 1));
    CHECK(touching_faults(stacks.back().limit() - 1));
    StackArena::of(StackClass::k10M).give_back(stacks);
}

TEST_CASE("stacks given back are handed out again before new ones are made") {
    auto& arena = StackArena::of(StackClass::k64K);
    auto stacks = take(StackClass::k64K, 1000);
    arena.give_back(stacks);
    const auto before = arena.statistics();
    for (int round = 0; round < 10; ++round) {
        stacks = take(StackClass::k64K, 1000);
        arena.give_back(stacks);
    }
    const auto after = arena.statistics();
    CHECK(after.slots_carved == before.slots_carved);
    CHECK(after.slots_free == before.slots_free);
    CHECK(after.slots_free == after.slots_carved);
}

TEST_CASE("threads take and give back at the same time without sharing a stack") {
    constexpr std::size_t kThreads = 4;
    std::array<int, kThreads> shared{};
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < kThreads; ++t) {
        threads.emplace_back([&shared, t] {
            std::array<Stack, 7> stacks;
            for (int round = 0; round < 200; ++round) {
                if (!StackArena::of(StackClass::k64K).take(stacks)) {
                    ++shared[t];
                    continue;
                }
                const auto mark = static_cast<std::byte>(t + 1);
                for (Stack& stack : stacks) stack.base[-1] = mark;
                for (Stack& stack : stacks) shared[t] += stack.base[-1] == mark ? 0 : 1;
                StackArena::of(StackClass::k64K).give_back(stacks);
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    for (const int count : shared) CHECK(count == 0);
    const auto statistics = StackArena::of(StackClass::k64K).statistics();
    CHECK(statistics.slots_free == statistics.slots_carved);
}

TEST_CASE("a forked child goes on taking stacks, guarded ones") {
    const auto end = run_in_child([] {
        std::vector<Stack> stacks(600);
        if (!StackArena::of(StackClass::k64K).take(stacks)) return 1;
        for (const Stack& stack : stacks) {
            if (culm::os::kernel_can_write(stack.limit() - 1)) return 2;
            if (!culm::os::kernel_can_write(stack.base - 1)) return 3;
        }
        return 0;
    });
    CHECK(end.exited_with(0));
}
