// The switch: arguments, alignment, nesting, exceptions, many switches, and that it is the implementation asked for.
#include "culm/context.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string_view>
#include <vector>

#include "culm/kernel.hpp"
#include "culm/residency.hpp"
#include "culm/stack_arena.hpp"
#include "on_stack.hpp"

using culm::testing::OnStack;

namespace {

// A stack from the arena for the duration of a test.
class BorrowedStack {
public:
    explicit BorrowedStack(culm::StackClass size_class = culm::StackClass::k256K) {
        const auto taken = culm::StackArena::of(size_class).take(std::span(&stack_, 1));
        REQUIRE(bool(taken));
    }
    ~BorrowedStack() { culm::StackArena::of(stack_.size_class).give_back(std::span(&stack_, 1)); }
    BorrowedStack(const BorrowedStack&) = delete;
    BorrowedStack& operator=(const BorrowedStack&) = delete;

    const culm::Stack& operator*() const { return stack_; }

private:
    culm::Stack stack_;
};

[[gnu::noinline]] int count_down_switching(OnStack& self, int depth) {
    char frame[200];
    std::memset(frame, depth, sizeof(frame));
    if (depth == 0) {
        self.step_out();
        return 0;
    }
    const int below = count_down_switching(self, depth - 1);
    return below + (frame[100] == static_cast<char>(depth) ? 1 : 0);
}

}  // namespace

TEST_CASE("the implementation is the one the build asked for") {
    CHECK(std::string_view(culm::context_implementation()) == CULM_EXPECTED_SWITCH);
}

TEST_CASE("a context without instruments is one pointer") {
    if (std::is_empty_v<culm::instrument::ContextRecord>) CHECK(sizeof(culm::Context) == sizeof(void*));
}

TEST_CASE("the entry runs on the new stack with its argument") {
    const BorrowedStack stack;
    const void* local_address = nullptr;
    OnStack context(*stack, [&](OnStack&) {
        const char local = 1;
        local_address = static_cast<const void*>(&local);
    });
    context.step_in();
    CHECK(context.ended());
    // AddressSanitizer may move locals to its fake stack, so the test looks at the saved stack pointer, which it
    // cannot.
    CHECK((*stack).contains(context.sp()));
    CHECK(local_address != nullptr);
}

TEST_CASE("the base need not be aligned") {
    const BorrowedStack stack;
    for (std::size_t off = 0; off < 64; ++off) {
        std::uintptr_t misaligned = 1;
        // Not aligned unless the stack is: movaps and its like fault otherwise.
        OnStack context((*stack).base - off, (*stack).limit(), [&](OnStack&) {
            alignas(16) volatile char aligned[16] = {};
            aligned[0] = 1;
            misaligned = reinterpret_cast<std::uintptr_t>(&aligned) % 16;
        });
        context.step_in();
        REQUIRE(misaligned == 0);
    }
}

TEST_CASE("values survive a million switches") {
    const BorrowedStack stack;
    constexpr std::uint64_t kSwitches = 1'000'000;
    std::uint64_t inside = 0;
    double sum = 0;
    OnStack context(*stack, [&](OnStack& self) {
        double part = 0.5;
        while (inside < kSwitches / 2) {
            ++inside;
            part += 1.0;
            self.step_out();
        }
        sum = part;
    });
    std::uint64_t outside = 0;
    while (!context.ended()) {
        context.step_in();
        ++outside;
    }
    CHECK(inside == kSwitches / 2);
    CHECK(outside == kSwitches / 2 + 1);
    CHECK(sum == 0.5 + static_cast<double>(kSwitches / 2));
}

TEST_CASE("contexts nest: one started from inside another") {
    constexpr int kDepth = 8;
    std::vector<std::unique_ptr<BorrowedStack>> stacks;
    for (int i = 0; i < kDepth; ++i) stacks.push_back(std::make_unique<BorrowedStack>());
    std::vector<int> order;
    std::function<void(int)> descend = [&](int level) {
        if (level == kDepth) return;
        order.push_back(level);
        OnStack inner(**stacks[static_cast<std::size_t>(level)], [&, level](OnStack&) { descend(level + 1); });
        inner.step_in();
        REQUIRE(inner.ended());
        order.push_back(-level);
    };
    descend(0);
    CHECK(order == std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, -7, -6, -5, -4, -3, -2, -1, 0});
}

TEST_CASE("deep frames are intact after a switch out of the deepest") {
    const BorrowedStack stack;
    int intact = 0;
    OnStack context(*stack, [&](OnStack& self) { intact = count_down_switching(self, 200); });
    context.step_in();
    CHECK_FALSE(context.ended());
    context.step_in();
    CHECK(context.ended());
    CHECK(intact == 200);
}

TEST_CASE("an exception is thrown and caught inside a context, across switches") {
    const BorrowedStack stack;
    int caught = 0;
    OnStack context(*stack, [&](OnStack& self) {
        for (int i = 0; i < 100; ++i) {
            try {
                self.step_out();
                throw std::runtime_error("inside");
            } catch (const std::runtime_error& error) {
                caught += std::string_view(error.what()) == "inside" ? 1 : 0;
            }
        }
    });
    for (int i = 0; i < 101; ++i) {
        try {
            context.step_in();
            throw std::logic_error("outside");
        } catch (const std::logic_error&) {
            ++caught;
        }
    }
    CHECK(context.ended());
    CHECK(caught == 201);
}

TEST_CASE("many contexts take turns") {
    constexpr std::size_t kContexts = 100;
    std::vector<std::unique_ptr<BorrowedStack>> stacks;
    std::vector<std::unique_ptr<OnStack>> contexts;
    std::vector<int> steps(kContexts);
    for (std::size_t i = 0; i < kContexts; ++i) {
        stacks.push_back(std::make_unique<BorrowedStack>(culm::StackClass::k64K));
        contexts.push_back(std::make_unique<OnStack>(**stacks[i], [&steps, i](OnStack& self) {
            for (int step = 0; step < 50; ++step) {
                ++steps[i];
                self.step_out();
            }
        }));
    }
    for (int round = 0; round < 51; ++round) {
        for (auto& context : contexts) context->step_in();
    }
    for (std::size_t i = 0; i < kContexts; ++i) {
        CHECK(contexts[i]->ended());
        CHECK(steps[i] == 50);
    }
}

TEST_CASE("a suspended context's stack pointer lies in its stack, below everything live") {
    const BorrowedStack stack;
    OnStack context(*stack, [](OnStack& self) { self.step_out(); });
    CHECK((*stack).contains(context.sp()));
    context.step_in();
    CHECK((*stack).contains(context.sp()));
    context.step_in();
    CHECK(context.ended());
}

TEST_CASE("preparing touches only the page below the base") {
    culm::Stack stack;
    // Fresh: never touched before.
    REQUIRE(bool(culm::StackArena::of(culm::StackClass::k1M).take(std::span(&stack, 1))));
    culm::Context context;
    culm::prepare_context(
        context, stack.base, stack.limit(), [](void*) {}, nullptr);
    const auto residency = culm::stack_residency(stack);
    REQUIRE(bool(residency));
    const std::size_t pages = residency.value().resident_bytes / culm::kernel_features().page_bytes;
    CHECK(pages == 1);
    culm::retire_context(context);
    culm::StackArena::of(culm::StackClass::k1M).give_back(std::span(&stack, 1));
}
