// Which pages are resident, by each way of asking, and what discarding leaves.
#include "culm/residency.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <random>
#include <vector>

#include "child.hpp"
#include "culm/kernel.hpp"
#include "culm/stack_arena.hpp"
#include "culm/testing/overrides.hpp"
#include "os/fault_injection.hpp"
#include "os/os.hpp"

using culm::Stack;
using culm::StackArena;
using culm::StackClass;
using culm::SuspendedStack;

namespace {

std::vector<Stack> take(StackClass size_class, std::size_t count) {
    std::vector<Stack> stacks(count);
    REQUIRE(bool(StackArena::of(size_class).take(stacks)));
    return stacks;
}

// Discards everything and gives back.
void give_back(StackClass size_class, const std::vector<Stack>& stacks) {
    for (const Stack& stack : stacks) {
        REQUIRE(culm::os::discard({stack.limit(), culm::stack_limit_bytes(size_class)}) == 0);
    }
    StackArena::of(size_class).give_back(stacks);
}

std::size_t page_bytes() { return culm::kernel_features().page_bytes; }

void check_counts_are_exact() {
    const auto stacks = take(StackClass::k1M, 2);
    const Stack& stack = stacks[0];
    CHECK(culm::stack_residency(stack).value().resident_bytes == 0);
    CHECK(culm::stack_residency(stack).value().depth_bytes == 0);
    stack.base[-1] = std::byte{1};
    CHECK(culm::stack_residency(stack).value().resident_bytes == page_bytes());
    CHECK(culm::stack_residency(stack).value().depth_bytes == page_bytes());
    // Every third page is touched, so that no two of them are one run.
    std::size_t touched = 1;
    for (std::size_t offset = 3 * page_bytes(); offset < 600'000; offset += 3 * page_bytes()) {
        *(stack.base - offset) = std::byte{1};
        ++touched;
    }
    const std::size_t deepest = 600'000 / (3 * page_bytes()) * 3 * page_bytes();
    CHECK(culm::stack_residency(stack).value().resident_bytes == touched * page_bytes());
    const auto depth = culm::stack_residency(stack).value().depth_bytes;
    CHECK(depth == (600'000 % (3 * page_bytes()) == 0 ? deepest - 3 * page_bytes() : deepest));
    CHECK(culm::stack_residency(stacks[1]).value().resident_bytes == 0);
    give_back(StackClass::k1M, stacks);
}

}  // namespace

TEST_CASE("resident bytes and depth are exact") { check_counts_are_exact(); }

TEST_CASE("pagemap without PAGEMAP_SCAN gives the same") {
    culm::KernelFeatures features = culm::kernel_features();
    const culm::KernelFeatures real = features;
    features.pagemap_scan = false;
    culm::override_kernel_features(features);
    check_counts_are_exact();
    culm::override_kernel_features(real);
}

TEST_CASE("a forked child sees its own pages, not its parent's") {
    const auto stacks = take(StackClass::k256K, 1);
    stacks[0].base[-1] = std::byte{1};
    REQUIRE(culm::stack_residency(stacks[0]).value().resident_bytes == page_bytes());
    const auto end = culm::testing::run_in_child([&] {
        stacks[0].base[-1 - static_cast<std::ptrdiff_t>(page_bytes())] = std::byte{1};
        return culm::stack_residency(stacks[0]).value().resident_bytes == 2 * page_bytes() ? 0 : 1;
    });
    CHECK(end.status == 0);
    CHECK(culm::stack_residency(stacks[0]).value().resident_bytes == page_bytes());
    give_back(StackClass::k256K, stacks);
}

TEST_CASE("a program that closes descriptors it does not know does no harm") {
    const auto end = culm::testing::run_in_child([] {
        std::vector<Stack> stacks(1);
        if (!StackArena::of(StackClass::k256K).take(stacks)) return 1;
        stacks[0].base[-1] = std::byte{1};
        if (culm::stack_residency(stacks[0]).value().resident_bytes != page_bytes()) return 2;
        for (int fd = 3; fd < 64; ++fd) close(fd);
        for (int fd = 3; fd < 16; ++fd) dup(STDERR_FILENO);  // gives the closed numbers another meaning
        return culm::stack_residency(stacks[0]).value().resident_bytes == page_bytes() ? 0 : 3;
    });
    CHECK(end.status == 0);
}

TEST_CASE("stacks beside each other are measured by one call, of whatever class") {
    if (!culm::kernel_features().pagemap_scan) return;
    constexpr std::size_t kStacks = 16;
    for (const StackClass size_class : {StackClass::k64K, StackClass::k256K, StackClass::k1M, StackClass::k10M}) {
        auto stacks = take(size_class, kStacks);
        std::sort(stacks.begin(), stacks.end(), [](const Stack& a, const Stack& b) { return a.base < b.base; });
        std::vector<SuspendedStack> suspended;
        for (const Stack& stack : stacks) {
            stack.base[-1] = std::byte{1};
            suspended.push_back({stack, stack.base - 256});
        }
        std::vector<culm::SuspendedUse> uses(kStacks);
        CHECK(bool(culm::measure_suspended(suspended, uses)));  // looks for the pagemap
        culm::os::fail_call(2, EIO);
        CHECK(bool(culm::measure_suspended(suspended, uses)));
        CHECK(culm::os::failure_pending());
        culm::os::fail_call(0, 0);
        for (const culm::SuspendedUse& use : uses) CHECK(use.residency.resident_bytes == page_bytes());
        give_back(size_class, stacks);
    }
}

TEST_CASE("the red zone and one spare page stay, everything below goes") {
    const auto stacks = take(StackClass::k256K, 1);
    const Stack& stack = stacks[0];
    std::fill(stack.limit(), stack.base, std::byte{7});
    // At the edge of a page: the red zone reaches into the page below it.
    std::byte* sp = stack.base - 4 * page_bytes() + 64;
    const SuspendedStack suspended{stack, sp};
    CHECK(culm::discard_below(std::span(&suspended, 1)).ranges == 1);
    CHECK(std::all_of(sp - culm::kRedZoneBytes, stack.base, [](std::byte b) { return b == std::byte{7}; }));
    // Four pages above, one for the red zone, one to spare.
    CHECK(culm::stack_residency(stack).value().resident_bytes == 6 * page_bytes());
    CHECK(culm::stack_residency(stack).value().depth_bytes == 6 * page_bytes());
    give_back(StackClass::k256K, stacks);
}

TEST_CASE("a stack pointer that is not in the stack, or near its limit, discards nothing") {
    const auto stacks = take(StackClass::k64K, 2);
    for (const Stack& stack : stacks) std::fill(stack.limit(), stack.base, std::byte{7});
    const SuspendedStack nowhere[] = {{stacks[0], nullptr},
                                      {stacks[0], stacks[1].base - 100},
                                      {stacks[0], stacks[0].base},
                                      {stacks[0], stacks[0].limit()},
                                      {stacks[0], stacks[0].limit() + page_bytes()}};
    CHECK(culm::discard_below(nowhere).ranges == 0);
    CHECK(culm::discard_below({}).ranges == 0);
    for (const Stack& stack : stacks) {
        CHECK(culm::stack_residency(stack).value().resident_bytes == culm::stack_limit_bytes(StackClass::k64K));
    }
    give_back(StackClass::k64K, stacks);
}

TEST_CASE("at random stack pointers nothing at or above sp - 128 is lost, with and without vectors") {
    const unsigned seed = std::random_device{}();
    CAPTURE(seed);
    std::mt19937 random(seed);
    const culm::KernelFeatures real = culm::kernel_features();
    for (const bool vectored : {true, false}) {
        culm::KernelFeatures features = real;
        features.vectored_discard = real.vectored_discard && vectored;
        culm::override_kernel_features(features);
        const auto stacks = take(StackClass::k64K, 150);
        for (int round = 0; round < 5; ++round) {
            std::vector<SuspendedStack> suspended;
            for (const Stack& stack : stacks) {
                std::fill(stack.limit(), stack.base, std::byte{7});
                suspended.push_back({stack, stack.base - 1 - random() % culm::stack_limit_bytes(StackClass::k64K)});
            }
            culm::discard_below(suspended);
            for (const SuspendedStack& one : suspended) {
                const auto* sp = static_cast<const std::byte*>(one.sp);
                const std::byte* kept = std::max<const std::byte*>(sp - culm::kRedZoneBytes, one.stack.limit());
                REQUIRE(std::all_of(kept, static_cast<const std::byte*>(one.stack.base),
                                    [](std::byte b) { return b == std::byte{7}; }));
                const auto used = static_cast<std::size_t>(one.stack.base - kept);
                const std::size_t most = (used / page_bytes() + 3) * page_bytes();
                REQUIRE(culm::stack_residency(one.stack).value().resident_bytes <= most);
            }
        }
        give_back(StackClass::k64K, stacks);
        culm::override_kernel_features(real);
    }
}
