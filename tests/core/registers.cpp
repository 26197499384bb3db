// Every callee-saved register keeps its value across a switch, on both sides, each side filling them with its own.
#include <doctest/doctest.h>

#include <cstdint>

#include "culm/context.hpp"
#include "culm/stack_arena.hpp"

extern "C" int culm_test_registers(void** from_sp, void* const* to_sp, std::uint64_t pattern);

namespace {

struct Sides {
    culm::Context outside;
    culm::Context inside;
    int rounds = 0;
    int lost_inside = 0;
};

constexpr int kRounds = 1000;

void switch_registers(culm::Context& from, culm::Context& to, std::uint64_t pattern, int& lost) {
    culm::instrument::before_switch(from.record, to.record, false);
    lost += culm_test_registers(&from.sp, &to.sp, pattern);
    culm::instrument::after_switch(from.record);
}

void run_inside(void* argument) {
    auto& sides = *static_cast<Sides*>(argument);
    while (sides.rounds < kRounds) {
        ++sides.rounds;
        switch_registers(sides.inside, sides.outside,
                         0x1111'0000'0000'0000u + static_cast<unsigned>(sides.rounds) * 64u, sides.lost_inside);
    }
    culm::switch_context(sides.inside, sides.outside, true);
}

}  // namespace

TEST_CASE("callee-saved registers survive a switch") {
    culm::Stack stack;
    REQUIRE(bool(culm::StackArena::of(culm::StackClass::k64K).take(std::span(&stack, 1))));
    Sides sides;
    culm::adopt_thread_context(sides.outside);
    culm::prepare_context(sides.inside, stack.base, stack.limit(), run_inside, &sides);
    int lost_outside = 0;
    for (int i = 0; i < kRounds + 1; ++i) {
        switch_registers(sides.outside, sides.inside, 0x7777'0000'0000'0000u + static_cast<unsigned>(i) * 128u,
                         lost_outside);
    }
    CHECK(sides.rounds == kRounds);
    CHECK(lost_outside == 0);
    CHECK(sides.lost_inside == 0);
    culm::retire_context(sides.inside);
    culm::retire_context(sides.outside);
    culm::StackArena::of(culm::StackClass::k64K).give_back(std::span(&stack, 1));
}
