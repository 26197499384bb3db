// Each strategy is watched doing, or failing to do, each thing it declares. One test per property, one child per
// strategy.
//
// The observation does not look at the declaration; the test compares the two. Invariant: a property that holds by
// accident in this process would show in another, so every observation has a process of its own.
#include <doctest/doctest.h>
#include <fcntl.h>

#include <cerrno>
#include <cstring>

#include "culm/strategy_pool.hpp"
#include "culm/testing/overrides.hpp"
#include "strategy_subject.hpp"

using culm::GuardMeans;
using culm::KernelWrites;
using culm::StackStrategy;
using culm::StrategyStack;
using culm::StrictOvercommit;
using culm::testing::ChildEnd;
using culm::testing::limit_for;
using culm::testing::make_stacks;
using culm::testing::mappings;
using culm::testing::OnStrategyStack;
using culm::testing::peek;
using culm::testing::poke;
using culm::testing::present_bytes;
using culm::testing::run_in_child;
using culm::testing::touch_down;
using culm::testing::writable_bytes;

namespace {

constexpr int kYes = 10;
constexpr int kNo = 11;
constexpr std::size_t kGroup = 16;
constexpr std::byte kPaint{0x5a};

// Sanitizers replace the heap and map memory of their own; emulators have a kernel of their own.
constexpr bool kPlain = !culm::instrument::kInstrumented && CULM_KERNEL_IS_REAL;

std::size_t page_bytes() { return culm::kernel_features().page_bytes; }

bool observed(const ChildEnd& end) {
    CAPTURE(end.status);
    CAPTURE(end.stderr_text);
    REQUIRE((end.exited_with(kYes) || end.exited_with(kNo)));
    return end.exited_with(kYes);
}

bool uses_the_heap(const StackStrategy& strategy) {
    return std::strcmp(strategy.id(), "malloc") == 0 || std::strcmp(strategy.id(), "one-block") == 0;
}

// Runs `body(strategy)` in a child for each strategy that works here, and hands the end to `check(strategy, end)`.
template <class Body, class Check>
void for_each_strategy(Body body, Check check) {
    for (StackStrategy* strategy : culm::lab::strategies::all()) {
        if (strategy->why_unavailable() != nullptr) {
            MESSAGE("skipped: " << strategy->id() << ": " << strategy->why_unavailable());
            continue;
        }
        if (!CULM_KERNEL_IS_REAL && strategy->traits().guard == GuardMeans::kGap) continue;
        if (culm::instrument::kInstrumented && uses_the_heap(*strategy)) continue;
        CAPTURE(std::string(strategy->id()));
        const ChildEnd end = run_in_child([&] {
            culm::testing::use_default_fault_actions();
            return body(*strategy);
        });
        check(*strategy, end);
    }
}

// Stacks sorted by address; the upper of the closest pair, with as many below it as there are.
struct Group {
    // `upper` has a stack close below it.
    explicit Group(StackStrategy& strategy) : stacks(make_stacks(strategy, kGroup)) {
        std::sort(stacks.begin(), stacks.end(),
                  [](const auto& one, const auto& other) { return one.base < other.base; });
        for (std::size_t i = 1; i < stacks.size(); ++i) {
            if (gap(i) <= gap(upper)) upper = i;
        }
        paint();
    }
    // Chooses `upper` so that the access the furthest below its limit, and at most `bytes_max` below it, that hits
    // another stack does so; returns how far below that is. Where no such access exists the answer is `bytes_max`.
    std::size_t reach_another(std::size_t bytes_max) {
        for (std::size_t below = bytes_max; below > 0; below -= page_bytes()) {
            for (std::size_t i = stacks.size(); i-- > 1;) {
                if (!is_in_another(stacks[i].limit() - below, i)) continue;
                upper = i;
                paint();
                return below;
            }
        }
        return bytes_max;
    }
    void paint() {
        for (std::size_t i = 0; i < upper; ++i) {
            if (stacks[i].base == stacks[upper].base) continue;  // copying stacks share a place
            for (std::size_t at = 1; at <= painted(); ++at) poke(stacks[i].base - at, kPaint);
        }
    }
    std::ptrdiff_t gap(std::size_t i) const { return stacks[i].limit() - stacks[i - 1].base; }
    bool is_in_another(const std::byte* address, std::size_t upper_one) const {
        return std::any_of(stacks.begin(), stacks.begin() + static_cast<std::ptrdiff_t>(upper_one),
                           [&](const auto& one) { return one.limit() <= address && address < one.base; });
    }
    std::size_t painted() const { return std::min<std::size_t>(stacks[0].limit_bytes, std::size_t{128} << 10); }
    bool is_damaged() const {
        for (std::size_t i = 0; i < upper; ++i) {
            if (stacks[i].base == stacks[upper].base) continue;
            for (std::size_t at = 1; at <= painted(); ++at) {
                if (peek(stacks[i].base - at) != kPaint) return true;
            }
        }
        return false;
    }
    std::byte* limit() const { return stacks[upper].limit(); }

    std::vector<StrategyStack> stacks;
    std::size_t upper = 1;
};

// One byte a page, as a recursion without end.
void run_on_below(std::byte* limit) {
    for (std::size_t step = 0; step < 16; ++step) poke(limit - step * page_bytes() - 8);
}

}  // namespace

TEST_CASE("a stack is usable down to its limit, and memory arrives as it deepens if the strategy grows") {
    for_each_strategy(
        [](StackStrategy& strategy) {
            // The first of several batches: what was made later must not lie in the way.
            auto stacks = make_stacks(strategy, 1);
            make_stacks(strategy, 2);
            make_stacks(strategy, 1);
            const std::size_t at_first = present_bytes(stacks[0].limit(), stacks[0].limit_bytes);
            touch_down(stacks[0], stacks[0].limit_bytes);
            return at_first <= stacks[0].limit_bytes / 2 ? kYes : kNo;
        },
        [](StackStrategy& strategy, const ChildEnd& end) { CHECK(observed(end) == strategy.traits().grows); });
}

TEST_CASE("a suspended deep stack loses its memory but for the page in use and a spare one, if the strategy shrinks") {
    for_each_strategy(
        [](StackStrategy& strategy) {
            auto stacks = make_stacks(strategy, 1);
            const std::size_t deep = std::min<std::size_t>(64 * page_bytes(), stacks[0].limit_bytes);
            touch_down(stacks[0], deep);
            if (!strategy.traits().pointers_stay_valid) {  // it shrinks a copy: deep first, then shallow
                if (!strategy.suspended(stacks[0], stacks[0].base - deep)) return 3;
                if (!strategy.suspended(stacks[0], stacks[0].base - 256)) return 3;
            }
            culm::SuspendedStrategyStack suspended{&stacks[0], stacks[0].base - 256};
            const std::size_t ranges = strategy.shrink(std::span(&suspended, 1));
            const std::size_t left = present_bytes(stacks[0].base - deep, deep);
            // All of it is left where nothing was given back: a small stack may have no more than two pages.
            const bool as_told = ranges == 1 ? left <= 2 * page_bytes() : left == deep;
            if (strategy.traits().pointers_stay_valid && !as_told) return 4;
            touch_down(stacks[0], deep);  // usable again
            return ranges == 1 ? kYes : kNo;
        },
        [](StackStrategy& strategy, const ChildEnd& end) { CHECK(observed(end) == strategy.traits().shrinks); });
}

TEST_CASE("running on page by page below the limit is caught, or hurts a neighbour, as declared") {
    if (!kPlain) {
        MESSAGE("skipped: the neighbourhood is not the kernel's own here");
        return;
    }
    for_each_strategy(
        [](StackStrategy& strategy) {
            const Group group(strategy);
            run_on_below(group.limit());
            return group.is_damaged() ? kYes : kNo;
        },
        [](StackStrategy& strategy, const ChildEnd& end) {
            const bool caught = end.died_of(SIGSEGV);
            CHECK(caught == strategy.traits().catches_small_overflow);
            if (!caught) CHECK(observed(end) == !strategy.traits().neighbour_safe);
            if (caught) CHECK(strategy.traits().neighbour_safe);
        });
}

TEST_CASE("one access up to 64 KB below the limit is caught, or hurts a neighbour without a sound, as declared") {
    if (!kPlain) {
        MESSAGE("skipped: the neighbourhood is not the kernel's own here");
        return;
    }
    for_each_strategy(
        [](StackStrategy& strategy) {
            constexpr std::size_t kFar = std::size_t{64} << 10;
            Group group(strategy);
            // Not always 64 KB: where stacks are small that may be the guard of the one after the next.
            const std::size_t below = group.reach_another(kFar);
            poke(group.limit() - below);
            return group.is_damaged() ? kYes : kNo;
        },
        [](StackStrategy& strategy, const ChildEnd& end) {
            CHECK(end.died_of(SIGSEGV) == strategy.traits().catches_large_overflow);
            if (!end.died_of(SIGSEGV)) CHECK(observed(end));
        });
}

TEST_CASE("what lies below the limit is the guard that is declared") {
    if (!kPlain) return;
    for_each_strategy(
        [](StackStrategy& strategy) {
            const Group group(strategy);
            const auto below = reinterpret_cast<std::uintptr_t>(group.limit() - 1);
            for (const auto& mapping : mappings()) {
                if (below < mapping.start || below >= mapping.end) continue;
                if (!mapping.writable) return static_cast<int>(GuardMeans::kMprotect);
                // Writable, says the mapping; a marker says no.
                int ends[2];
                if (pipe(ends) != 0 || write(ends[1], "x", 1) != 1) return 99;
                const bool accepted = read(ends[0], group.limit() - 1, 1) == 1;
                return static_cast<int>(accepted ? GuardMeans::kNone : GuardMeans::kKernelMarker);
            }
            return static_cast<int>(GuardMeans::kGap);
        },
        [](StackStrategy& strategy, const ChildEnd& end) {
            // Between two mappings that grow down there is no gap: below the limit lies the neighbour.
            const GuardMeans declared = strategy.traits().guard;
            const GuardMeans expected = declared == GuardMeans::kGap ? GuardMeans::kNone : declared;
            CAPTURE(end.stderr_text);
            CHECK(end.exited_with(static_cast<int>(expected)));
        });
}

namespace {

constexpr std::size_t kArrayBytes = std::size_t{256} << 10;

// The array is not touched: what the file is compiled without (see CMakeLists.txt) would do that.
[[gnu::noinline, gnu::no_sanitize_address]] bool kernel_writes_own_array(int zeroes) {
    char array[kArrayBytes];
    const bool written = read(zeroes, array, sizeof(array)) == static_cast<ssize_t>(sizeof(array));
    asm volatile("" : : "r"(array) : "memory");
    return written;
}

}  // namespace

TEST_CASE("the kernel may write into untouched stack as declared: always, through a function, or never") {
    for_each_strategy(
        [](StackStrategy& strategy) {
            if (limit_for(strategy) < 4 * kArrayBytes) return 2;  // all of it is there from the start
            auto stacks = make_stacks(strategy, 1);
            const int zeroes = open("/dev/zero", O_RDONLY | O_CLOEXEC);
            bool direct = false;
            bool called = false;
            bool faulted = false;
            OnStrategyStack run(strategy, stacks[0], [&](OnStrategyStack&) {
                auto* far_below = static_cast<std::byte*>(__builtin_frame_address(0)) - 3 * kArrayBytes;
                errno = 0;
                direct = read(zeroes, far_below, 64) == 64;
                faulted = !direct && errno == EFAULT;
                called = kernel_writes_own_array(zeroes);
            });
            run.step_in();
            if (direct == faulted) return 3;
            if (direct && !called) return 4;
            return direct ? 2 : (called ? 1 : 0);
        },
        [](StackStrategy& strategy, const ChildEnd& end) {
            const KernelWrites declared = strategy.traits().kernel_may_write;
            const int expected =
                declared == KernelWrites::kYes ? 2 : (declared == KernelWrites::kThroughFunction ? 1 : 0);
            CAPTURE(end.status);
            CHECK(end.exited_with(expected));
        });
}

TEST_CASE("a stack takes as many mappings as declared") {
    if (!kPlain) return;
    constexpr std::size_t kCount = 200;
    for (const bool locked : {false, true}) {
        CAPTURE(locked);
        for_each_strategy(
            [locked](StackStrategy& plain) {
                StackStrategy& strategy = locked ? culm::lab::strategies::locked_on_fault(plain) : plain;
                std::vector<StrategyStack> stacks(kCount);
                if (!strategy.prepare_thread()) return 3;
                const std::size_t before = mappings().size();
                // In two batches, because a batch may share what two do not.
                const std::size_t limit = std::min<std::size_t>(limit_for(strategy), std::size_t{1} << 20);
                if (!strategy.create(limit, std::span(stacks).first(kCount / 2))) return 77;
                if (!strategy.create(limit, std::span(stacks).last(kCount / 2))) return 77;
                const std::size_t added = mappings().size() - before;
                return static_cast<int>((added + kCount / 2) / kCount);
            },
            [locked](StackStrategy& plain, const ChildEnd& end) {
                if (locked && end.exited_with(77)) {
                    MESSAGE("skipped: this process may not lock that much memory");
                    return;
                }
                StackStrategy& strategy = locked ? culm::lab::strategies::locked_on_fault(plain) : plain;
                CAPTURE(end.status);
                CHECK(end.exited_with(static_cast<int>(strategy.traits().mappings_per_stack)));
            });
    }
}

TEST_CASE("a strategy with mappings per stack ends at vm.max_map_count with ENOMEM, and says so") {
    if (!kPlain || culm::kernel_features().mappings_max > 200'000) {
        MESSAGE("skipped: vm.max_map_count is raised, or not the kernel's");
        return;
    }
    for_each_strategy(
        [](StackStrategy& strategy) {
            const std::size_t per_stack = strategy.traits().mappings_per_stack;
            if (per_stack == 0) return kYes;
            const std::size_t ceiling = culm::kernel_features().mappings_max / per_stack;
            const std::size_t limit = std::min(limit_for(strategy), page_bytes() * 2);
            std::vector<StrategyStack> stacks(ceiling + 1000);
            std::size_t made = 0;
            while (made + 50 < stacks.size()) {
                const auto created = strategy.create(limit, std::span(stacks).subspan(made, 50));
                if (created) {
                    made += 50;
                    continue;
                }
                if (created.error().code != ENOMEM) return 3;
                if (std::strstr(created.error().advice, "max_map_count") == nullptr) return 4;
                break;
            }
            // The program itself has some mappings too.
            if (made > ceiling || made < ceiling - ceiling / 50 - 200) return kNo;
            // Nothing is lost: what is given back can be had again.
            strategy.destroy(std::span(stacks).first(1000));
            return strategy.create(limit, std::span(stacks).first(900)) ? kYes : 5;
        },
        [](StackStrategy&, const ChildEnd& end) { CHECK(observed(end)); });
}

TEST_CASE("under strict overcommit a stack is charged its whole limit, or what is open, as declared") {
    if (!kPlain) return;
    constexpr std::size_t kCount = 20;
    for_each_strategy(
        [](StackStrategy& strategy) {
            culm::KernelFeatures features = culm::kernel_features();
            features.overcommit_mode = 2;
            culm::override_kernel_features(features);
            make_stacks(strategy, 1);  // with what is shared: a place, a helper thread
            // What the kernel charges there: private writable mappings, NORESERVE or not.
            const std::size_t before = writable_bytes();
            const auto stacks = make_stacks(strategy, kCount);
            const std::size_t charged = (writable_bytes() - before) / kCount;
            return charged >= stacks[0].limit_bytes ? kYes : kNo;
        },
        [](StackStrategy& strategy, const ChildEnd& end) {
            CHECK(observed(end) == (strategy.traits().strict_overcommit == StrictOvercommit::kCharged));
        });
}

TEST_CASE("after a fork the child goes on with a stack, and its guard holds, as declared") {
    for_each_strategy(
        [](StackStrategy& strategy) {
            auto stacks = make_stacks(strategy, 2);
            touch_down(stacks[0], page_bytes());
            const ChildEnd deeper = run_in_child([&] {
                touch_down(stacks[0], std::min<std::size_t>(std::size_t{256} << 10, stacks[0].limit_bytes));
                return 0;
            });
            return deeper.exited_with(0) ? kYes : (deeper.died_of(SIGSEGV) ? kNo : 3);
        },
        [](StackStrategy& strategy, const ChildEnd& end) { CHECK(observed(end) == strategy.traits().survives_fork); });
    if (!kPlain) return;
    for_each_strategy(
        [](StackStrategy& strategy) {
            const Group group(strategy);
            const ChildEnd below = run_in_child([&] {
                poke(group.limit() - 8);
                return 0;
            });
            return below.died_of(SIGSEGV) ? kYes : (below.exited_with(0) ? kNo : 3);
        },
        [](StackStrategy& strategy, const ChildEnd& end) {
            CHECK(observed(end) == strategy.traits().guard_survives_fork);
        });
}

TEST_CASE("a pointer into a suspended stack stays valid, or points into another's frames, as declared") {
    if (culm::instrument::kInstrumented) return;  // frames are copied with the redzones around them
    for_each_strategy(
        [](StackStrategy& strategy) {
            auto stacks = make_stacks(strategy, 2);
            const volatile int* into[2] = {};
            const auto body = [&into](int mine) {
                return [&into, mine](OnStrategyStack& self) {
                    volatile int value = mine;
                    into[mine] = &value;
                    self.step_out();
                    if (value != mine) _exit(3);  // one's own frames are always back
                };
            };
            OnStrategyStack first(strategy, stacks[0], body(0));
            OnStrategyStack second(strategy, stacks[1], body(1));
            first.step_in();
            second.step_in();
            const bool valid = *into[0] == 0;
            first.step_in();
            second.step_in();
            if (!first.ended() || !second.ended()) return 4;
            return valid ? kYes : kNo;
        },
        [](StackStrategy& strategy, const ChildEnd& end) {
            CHECK(observed(end) == strategy.traits().pointers_stay_valid);
        });
}

TEST_CASE("limits outside the declared bounds are refused with EINVAL and a reason") {
    for_each_strategy(
        [](StackStrategy& strategy) {
            StrategyStack stack;
            const auto refused = [&](std::size_t limit_bytes) {
                const auto created = strategy.create(limit_bytes, std::span(&stack, 1));
                return !created && created.error().code == EINVAL && std::strlen(created.error().advice) > 20;
            };
            if (!refused(0) || !refused(strategy.traits().limit_bytes_min - 1)) return 3;
            if (!refused(SIZE_MAX) || !refused(std::size_t{1} << 47)) return 4;
            const std::size_t limit_max = strategy.traits().limit_bytes_max;
            if (limit_max != 0 && !refused(limit_max + 1)) return 5;
            // Not whole pages: rounded up.
            if (!strategy.prepare_thread()) return 8;
            if (!strategy.create(strategy.traits().limit_bytes_min + 1, std::span(&stack, 1))) return 6;
            if (stack.limit_bytes % page_bytes() != 0 || stack.limit_bytes <= strategy.traits().limit_bytes_min)
                return 7;
            touch_down(stack, stack.limit_bytes);
            strategy.destroy(std::span(&stack, 1));
            return kYes;
        },
        [](StackStrategy&, const ChildEnd& end) { CHECK(observed(end)); });
}

TEST_CASE("the signal stack is as large as this run of the tests was told to make it") {
    const std::size_t forced = culm::testing::forced_signal_stack_bytes();
    if (forced == 0) return;
    const std::size_t whole_pages = (forced + page_bytes() - 1) / page_bytes() * page_bytes();
    CHECK(culm::lab::strategies::fixed_small().traits().limit_bytes_max == whole_pages);
}

TEST_CASE("core lists what fibers can run on, the lab those and more; each is found by its name where it is listed") {
    const auto of_core = culm::stack_strategies();
    const auto all = culm::lab::strategies::all();
    CHECK(std::string(culm::stack_strategy_ids()) == "arena, mmap, fault-handler, malloc");
    CHECK(culm::lab::strategies::ids() ==
          "arena, mmap, fault-handler, malloc, bare-mmap, fault-thread, growsdown, one-block, userfaultfd, copying, "
          "fixed-small");
    for (StackStrategy* strategy : all) {
        CAPTURE(std::string(strategy->id()));
        CHECK(culm::lab::strategies::find(strategy->id()) == strategy);
        const bool in_core = std::find(of_core.begin(), of_core.end(), strategy) != of_core.end();
        CHECK(strategy->traits().carries_python == in_core);
        const auto found = culm::stack_strategy(strategy->id());
        REQUIRE(bool(found) == in_core);
        if (in_core) CHECK(found.value() == strategy);
        if (!in_core) CHECK(found.error().code == EINVAL);
    }
    const auto unknown = culm::stack_strategy("heap-of-sand");
    REQUIRE(!unknown);
    CHECK(unknown.error().code == EINVAL);
    CHECK(std::strstr(unknown.error().advice, "arena, mmap, fault-handler, malloc") != nullptr);
    CHECK(culm::lab::strategies::find("heap-of-sand") == nullptr);
}

TEST_CASE("only a strategy of core's has an index; the lab's and locked ones are refused with EINVAL and a reason") {
    const auto of_core = culm::stack_strategies();
    for (std::size_t i = 0; i < of_core.size(); ++i) {
        const auto index = culm::strategy_index(*of_core[i]);
        REQUIRE(index);
        CHECK(index.value() == i);
    }
    CHECK(&culm::lab::strategies::locked_on_fault(*of_core[0]) != of_core[0]);
    for (StackStrategy* strategy : {&culm::lab::strategies::locked_on_fault(*of_core[0]),
                                    &culm::lab::strategies::bare_mmap(), &culm::lab::strategies::fixed_small()}) {
        const auto refused = culm::strategy_index(*strategy);
        REQUIRE(!refused);
        CHECK(refused.error().code == EINVAL);
        CHECK(std::strstr(refused.error().advice, "stack_strategies()") != nullptr);
    }
}
