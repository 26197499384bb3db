// What a stack costs to make, to touch first, to use again and to give back.
//
// Every round makes new stacks and none is given back before the last round has made its own, so that "create" is cold
// even for a strategy that keeps a list of free ones. Using again is measured apart: from culm's pool for the arena,
// from a plain list for the others, since that is what a program would put in front of them.
#include "culm/stack_pool.hpp"
#include "experiment.hpp"
#include "measure.hpp"

namespace culm::lab {

namespace {

constexpr int kRounds = 5;
constexpr std::size_t kReuses = 20'000;

void touch_base(const StrategyStack& stack) { const_cast<volatile std::byte*>(stack.base)[-64] = std::byte{1}; }

// Nanoseconds to take a stack, touch it and put it back, for stacks that are warm.
double reuse_from_list(Stacks& stacks) {
    std::vector<StrategyStack> free(stacks.begin(), stacks.end());
    const std::int64_t start = now_ns();
    for (std::size_t i = 0; i < kReuses; ++i) {
        const StrategyStack taken = free.back();
        free.pop_back();
        touch_base(taken);
        free.push_back(taken);
        asm volatile("" : : "r"(free.data()) : "memory");
    }
    return static_cast<double>(now_ns() - start) / kReuses;
}

double reuse_from_pool(StackClass size_class) {
    StackPool pool;
    if (!pool.reserve(size_class)) return 0;
    Stack stack = pool.take(size_class);
    stack.base[-64] = std::byte{1};
    pool.put(stack, stack.base - 64);
    const std::int64_t start = now_ns();
    for (std::size_t i = 0; i < kReuses; ++i) {
        if (!pool.reserve(size_class)) return 0;
        stack = pool.take(size_class);
        const_cast<volatile std::byte*>(stack.base)[-64] = std::byte{1};
        pool.put(stack, stack.base - 64);
    }
    return static_cast<double>(now_ns() - start) / kReuses;
}

}  // namespace

Answer lifecycle(const Request& request) {
    const std::size_t count = request.count.value_or(200);
    std::vector<double> create_ns;
    std::vector<double> touch_ns;
    std::vector<double> reuse_ns;
    std::vector<double> destroy_ns;
    const auto per_stack = [count](std::int64_t since) {
        return static_cast<double>(now_ns() - since) / static_cast<double>(count);
    };

    std::vector<Stacks> rounds;
    rounds.reserve(kRounds);
    const bool is_arena = std::string_view(request.strategy->id()) == "arena" && !request.locked;
    const std::size_t mappings_before = mapping_count();
    for (int round = 0; round < kRounds; ++round) {
        Stacks& stacks = rounds.emplace_back(*request.strategy);
        std::int64_t start = now_ns();
        if (const Result<void> created = stacks.create(request.limit_bytes, count); !created) {
            return unsupported(created.error());
        }
        create_ns.push_back(per_stack(start));
        start = now_ns();
        for (const StrategyStack& stack : stacks) touch_base(stack);
        touch_ns.push_back(per_stack(start));
        if (is_arena) {
            reuse_ns.push_back(reuse_from_pool(stack_class_for(request.limit_bytes).value()));
        } else {
            reuse_ns.push_back(reuse_from_list(stacks));
        }
    }
    const std::size_t mappings = mapping_count() - mappings_before;
    for (Stacks& stacks : rounds) {
        const std::int64_t start = now_ns();
        stacks.destroy();
        destroy_ns.push_back(per_stack(start));
    }

    Answer answer;
    answer.object.add("create_ns", median(create_ns))
        .add("first_touch_ns", median(touch_ns))
        .add("reuse_ns", median(reuse_ns))
        .add("destroy_ns", median(destroy_ns))
        .add("mappings_per_stack", static_cast<double>(mappings) / static_cast<double>(count * kRounds))
        .add("count", count);
    return answer;
}

}  // namespace culm::lab
