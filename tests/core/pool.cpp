// The pool: promises of stacks, the order they are taken in, what stays in memory, what goes back to the arena.
#include "culm/stack_pool.hpp"

#include <doctest/doctest.h>

#include <cerrno>
#include <cstring>
#include <random>
#include <vector>

#include "culm/kernel.hpp"
#include "culm/residency.hpp"
#include "culm/stack_arena.hpp"
#include "os/fault_injection.hpp"

using culm::Stack;
using culm::StackArena;
using culm::StackClass;
using culm::StackPool;

namespace {

Stack reserve_and_take(StackPool& pool, StackClass size_class) {
    const auto reserved = pool.reserve(size_class);
    REQUIRE(bool(reserved));
    return pool.take(size_class);
}

void touch(const Stack& stack, std::size_t bytes) { std::memset(stack.base - bytes, 1, bytes); }

std::size_t resident(const Stack& stack) {
    const auto residency = culm::stack_residency(stack);
    REQUIRE(bool(residency));
    return residency.value().resident_bytes;
}

std::size_t warm_limit() { return StackPool::kWarmPages * culm::kernel_features().page_bytes; }

}  // namespace

TEST_CASE("the stack used last is taken first") {
    StackPool pool;
    const Stack one = reserve_and_take(pool, StackClass::k256K);
    const Stack two = reserve_and_take(pool, StackClass::k256K);
    CHECK(one.base != two.base);
    pool.put(one, one.base - 100);
    pool.put(two, two.base - 100);
    const Stack first = reserve_and_take(pool, StackClass::k256K);
    const Stack second = reserve_and_take(pool, StackClass::k256K);
    CHECK(first.base == two.base);
    CHECK(second.base == one.base);
    pool.put(first, nullptr);
    pool.put(second, nullptr);
}

TEST_CASE("promises are counted and can be given back") {
    StackPool pool;
    for (int i = 0; i < 100; ++i) REQUIRE(bool(pool.reserve(StackClass::k64K)));
    CHECK(pool.statistics(StackClass::k64K).stacks_reserved == 100);
    CHECK(pool.statistics(StackClass::k64K).stacks_free >= 100);
    CHECK(pool.statistics(StackClass::k256K).stacks_reserved == 0);
    for (int i = 0; i < 40; ++i) pool.unreserve(StackClass::k64K);
    std::vector<Stack> stacks;
    for (int i = 0; i < 60; ++i) stacks.push_back(pool.take(StackClass::k64K));
    CHECK(pool.statistics(StackClass::k64K).stacks_reserved == 0);
    CHECK(pool.statistics(StackClass::k64K).stacks_taken == 60);
    for (const Stack& stack : stacks) pool.put(stack, nullptr);
    CHECK(pool.statistics(StackClass::k64K).stacks_taken == 0);
}

TEST_CASE("one fiber after another uses the same stack, without a call to the kernel") {
    StackPool pool;
    const Stack first = reserve_and_take(pool, StackClass::k10M);
    touch(first, 1000);
    pool.put(first, nullptr);
    culm::os::fail_call(1, ENOMEM);  // the next call to the kernel, whichever it is, would use this failure up
    for (int i = 0; i < 1000; ++i) {
        const Stack next = reserve_and_take(pool, StackClass::k10M);
        REQUIRE(next.base == first.base);
        pool.put(next, nullptr);
    }
    CHECK(culm::os::failure_pending());
    culm::os::fail_call(0, 0);
    CHECK(resident(first) == culm::kernel_features().page_bytes);
}

TEST_CASE("a pool returns everything to the arena") {
    for (const StackClass size_class : {StackClass::k64K, StackClass::k10M, StackClass::k1G}) {
        {
            StackPool pool;
            std::vector<Stack> stacks;
            for (int i = 0; i < 20; ++i) stacks.push_back(reserve_and_take(pool, size_class));
            for (const Stack& stack : stacks) touch(stack, 20'000);
            for (const Stack& stack : stacks) pool.put(stack, stack.base - 20'000);
            REQUIRE(bool(pool.reserve(size_class)));  // a promise that nobody used is given up with the pool
        }
        const auto statistics = StackArena::of(size_class).statistics();
        CHECK(statistics.slots_free == statistics.slots_carved);
    }
}

TEST_CASE("deep stacks lose what lies below their warm pages, in batches") {
    StackPool pool;
    std::vector<Stack> stacks;
    for (int i = 0; i < 200; ++i) stacks.push_back(reserve_and_take(pool, StackClass::k256K));
    for (const Stack& stack : stacks) {
        touch(stack, 100'000);
        pool.put(stack, stack.base - 100'000);
    }
    std::size_t deep = 0;
    for (const Stack& stack : stacks) deep += resident(stack) > warm_limit() ? 1u : 0u;
    CHECK(deep <= 64);
    CHECK(pool.statistics(StackClass::k256K).warm_bytes == 200 * warm_limit());
    pool.trim();
    for (const Stack& stack : stacks) CHECK(resident(stack) == 0);
    CHECK(pool.statistics(StackClass::k256K).warm_bytes == 0);
}

TEST_CASE("over the budget the stacks unused for longest go cold") {
    StackPool pool;
    pool.warm_bytes_max = 100 * warm_limit();
    std::vector<Stack> stacks;
    for (int i = 0; i < 300; ++i) stacks.push_back(reserve_and_take(pool, StackClass::k256K));
    for (const Stack& stack : stacks) {
        touch(stack, warm_limit());
        pool.put(stack, stack.base - warm_limit());
        REQUIRE(pool.statistics(StackClass::k256K).warm_bytes <= pool.warm_bytes_max);
    }
    CHECK(resident(stacks.front()) == 0);
    CHECK(resident(stacks.back()) == warm_limit());
}

TEST_CASE("a burst of stacks goes back to the arena, the rest stays") {
    StackPool pool;
    std::vector<Stack> stacks;
    for (int i = 0; i < 6000; ++i) stacks.push_back(reserve_and_take(pool, StackClass::k64K));
    for (const Stack& stack : stacks) pool.put(stack, stack.base - 64);
    CHECK(pool.statistics(StackClass::k64K).stacks_free <= 4096);
    CHECK(pool.statistics(StackClass::k64K).stacks_free >= 2000);
}

TEST_CASE("random use keeps the counts right and the contents of taken stacks untouched") {
    const unsigned seed = std::random_device{}();
    CAPTURE(seed);
    std::mt19937 random(seed);
    struct Taken {
        Stack stack;
        unsigned mark;
        std::size_t depth;
    };
    constexpr StackClass kClasses[] = {StackClass::k64K, StackClass::k256K, StackClass::k10M};
    {
        StackPool pool;
        pool.warm_bytes_max = std::size_t{2} << 20;
        std::vector<Taken> taken;
        std::array<std::size_t, 3> promised{};
        for (unsigned step = 0; step < 20'000; ++step) {
            const std::size_t which = random() % 3;
            switch (random() % 6) {
                case 0:
                case 1:
                    if (promised[which] < 50 && pool.reserve(kClasses[which])) ++promised[which];
                    break;
                case 2:
                    if (promised[which] > 0 && random() % 4 == 0) {
                        pool.unreserve(kClasses[which]);
                        --promised[which];
                    }
                    break;
                case 3:
                    if (promised[which] > 0) {
                        Taken one{pool.take(kClasses[which]), step, 64 + random() % 60'000};
                        --promised[which];
                        std::memcpy(one.stack.base - one.depth, &step, sizeof(step));
                        taken.push_back(one);
                    }
                    break;
                case 4:
                    if (!taken.empty()) {
                        const std::size_t index = random() % taken.size();
                        const Taken one = taken[index];
                        taken.erase(taken.begin() + static_cast<std::ptrdiff_t>(index));
                        unsigned mark = 0;
                        std::memcpy(&mark, one.stack.base - one.depth, sizeof(mark));
                        REQUIRE(mark == one.mark);
                        pool.put(one.stack, random() % 2 == 0 ? nullptr : one.stack.base - one.depth);
                    }
                    break;
                default:
                    if (random() % 100 == 0) pool.trim();
            }
            if (taken.size() > 100) {
                for (const Taken& one : taken) pool.put(one.stack, nullptr);
                taken.clear();
            }
            REQUIRE(pool.statistics(kClasses[which]).stacks_reserved == promised[which]);
            REQUIRE(pool.statistics(kClasses[which]).stacks_free >= promised[which]);
        }
        for (const Taken& one : taken) pool.put(one.stack, nullptr);
    }
    for (const StackClass size_class : kClasses) {
        const auto statistics = StackArena::of(size_class).statistics();
        CHECK(statistics.slots_free == statistics.slots_carved);
    }
}
