// Address space runs out: an error with advice, nothing leaked, what was taken before goes on working.
#include <sys/mman.h>
#include <sys/resource.h>

#include <doctest/doctest.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "child.hpp"
#include "culm/kernel.hpp"
#include "culm/stack_arena.hpp"
#include "culm/stack_pool.hpp"
#include "os/os.hpp"

using culm::Stack;
using culm::StackArena;
using culm::StackClass;
using culm::testing::run_in_child;

namespace {

constexpr int kNotEnforced = 77;

// Leaves the process `bytes` of address space. False where the limit is not enforced (emulators).
bool leave_address_space(std::size_t bytes) {
    const auto pages = static_cast<std::size_t>(culm::os::read_number("/proc/self/statm", 0));
    const rlim_t limit = pages * culm::os::page_bytes() + bytes;
    const rlimit wanted{limit, limit};
    if (setrlimit(RLIMIT_AS, &wanted) != 0) return false;
    void* too_much = mmap(nullptr, bytes * 2, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (too_much == MAP_FAILED) return true;
    munmap(too_much, bytes * 2);
    return false;
}

}  // namespace

TEST_CASE("under a small address-space limit chunks shrink to what fits, then the arena refuses") {
    const auto end = run_in_child([] {
        static_cast<void>(culm::kernel_features());
        if (!leave_address_space(std::size_t{100} << 20)) return kNotEnforced;
        std::vector<Stack> stacks;
        stacks.reserve(64);
        culm::Error refusal;
        for (;;) {
            Stack stack;
            const auto taken = StackArena::of(StackClass::k10M).take(std::span(&stack, 1));
            if (!taken) {
                refusal = taken.error();
                break;
            }
            stack.base[-1] = std::byte{1};
            stacks.push_back(stack);
            if (stacks.size() > 10) return 1;
        }
        if (stacks.size() < 5) return 2;
        if (refusal.code != ENOMEM) return 3;
        if (std::strstr(refusal.advice, "ulimit -v") == nullptr) return 4;
        const auto full = StackArena::of(StackClass::k10M).statistics();
        // However often it is refused, no more is reserved.
        for (int i = 0; i < 100; ++i) {
            Stack stack;
            if (StackArena::of(StackClass::k10M).take(std::span(&stack, 1))) return 5;
        }
        if (StackArena::of(StackClass::k10M).statistics().reserved_bytes != full.reserved_bytes) return 6;
        for (const Stack& stack : stacks) {
            if (stack.base[-1] != std::byte{1}) return 7;
        }
        StackArena::of(StackClass::k10M).give_back(stacks);
        std::vector<Stack> again(stacks.size());
        return StackArena::of(StackClass::k10M).take(again) ? 0 : 8;
    });
    if (end.exited_with(kNotEnforced)) {
        MESSAGE("skipped: the address-space limit is not enforced here");
        return;
    }
    CHECK(end.status == 0);
}

TEST_CASE("a batch that does not fit takes nothing") {
    const auto end = run_in_child([] {
        static_cast<void>(culm::kernel_features());
        if (!leave_address_space(std::size_t{100} << 20)) return kNotEnforced;
        std::vector<Stack> too_many(50);
        if (StackArena::of(StackClass::k10M).take(too_many)) return 1;
        for (const Stack& stack : too_many) {
            if (stack) return 2;
        }
        const auto statistics = StackArena::of(StackClass::k10M).statistics();
        return statistics.slots_free == statistics.slots_carved ? 0 : 3;
    });
    if (end.exited_with(kNotEnforced)) return;
    CHECK(end.status == 0);
}

TEST_CASE("the pool refuses a promise it cannot keep and keeps those it made") {
    const auto end = run_in_child([] {
        static_cast<void>(culm::kernel_features());
        if (!leave_address_space(std::size_t{100} << 20)) return kNotEnforced;
        culm::StackPool pool;
        std::size_t promised = 0;
        while (pool.reserve(StackClass::k10M)) ++promised;
        if (promised < 4) return 1;
        std::vector<Stack> stacks;
        for (std::size_t i = 0; i < promised; ++i) stacks.push_back(pool.take(StackClass::k10M));
        for (const Stack& stack : stacks) stack.base[-1] = std::byte{1};
        for (const Stack& stack : stacks) pool.put(stack, nullptr);
        return pool.statistics(StackClass::k10M).stacks_free == promised ? 0 : 2;
    });
    if (end.exited_with(kNotEnforced)) return;
    CHECK(end.status == 0);
}
