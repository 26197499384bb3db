// How strategies fail: the kernel refuses each call in turn, RLIMIT_STACK and RLIMIT_MEMLOCK are small, somebody maps
// memory into the way of a stack that grows down, code runs on a stack, memory is locked.
#include <doctest/doctest.h>
#include <sys/resource.h>

#include <cerrno>
#include <cstring>

#include "os/fault_injection.hpp"
#include "strategy_subject.hpp"

using culm::StackStrategy;
using culm::StrategyStack;
using culm::testing::ChildEnd;
using culm::testing::limit_for;
using culm::testing::make_stacks;
using culm::testing::poke;
using culm::testing::present_bytes;
using culm::testing::run_in_child;
using culm::testing::touch_down;
namespace strategies = culm::lab::strategies;

namespace {

constexpr int kNoneLeft = 100;

StackStrategy& named(const char* id) { return *strategies::find(id); }

// Makes, deepens, shrinks and destroys some stacks; false when anything was refused.
bool use_stacks(StackStrategy& strategy) {
    std::vector<StrategyStack> stacks(20);
    const std::size_t limit = std::min<std::size_t>(limit_for(strategy), std::size_t{1} << 20);
    if (!strategy.prepare_thread()) return false;
    if (!strategy.create(limit, stacks)) return false;
    std::vector<culm::SuspendedStrategyStack> suspended;
    for (StrategyStack& stack : stacks) {
        poke(stack.base - 64);
        suspended.push_back({&stack, stack.base - 64});
    }
    strategy.shrink(suspended);
    strategy.destroy(stacks);
    return true;
}

// The n-th call fails. What follows works, and can be repeated without taking more memory: nothing has leaked.
int run_with_failure(StackStrategy& strategy, long nth) {
    static_cast<void>(culm::kernel_features());
    culm::os::fail_call(nth, ENOMEM);
    const bool done = use_stacks(strategy);
    const bool none_failed = culm::os::failure_pending();
    culm::os::fail_call(0, 0);
    if (none_failed && !done) return 1;
    if (!use_stacks(strategy)) return 2;
    const std::size_t before = culm::testing::writable_bytes();
    for (int i = 0; i < 20; ++i) {
        if (!use_stacks(strategy)) return 3;
    }
    if (CULM_KERNEL_IS_REAL && !culm::instrument::kInstrumented) {
        if (culm::testing::writable_bytes() > before + (std::size_t{2} << 20)) return 4;
    }
    return none_failed ? kNoneLeft : 0;
}

void set_limit(int what, rlim_t bytes) {
    rlimit limit{};
    getrlimit(static_cast<__rlimit_resource>(what), &limit);
    limit.rlim_cur = bytes;
    if (setrlimit(static_cast<__rlimit_resource>(what), &limit) != 0) _exit(110);
}

}  // namespace

TEST_CASE("each call of each strategy fails in turn: an error, nothing lost, and the next attempt works") {
    for (StackStrategy* strategy : strategies::all()) {
        if (strategy->why_unavailable() != nullptr) continue;
        if (!CULM_KERNEL_IS_REAL && strategy->traits().guard == culm::GuardMeans::kGap) continue;
        CAPTURE(std::string(strategy->id()));
        bool none_left = false;
        for (long nth = 1; nth < 400 && !none_left; ++nth) {
            CAPTURE(nth);
            const ChildEnd end = run_in_child([&] { return run_with_failure(*strategy, nth); });
            none_left = end.exited_with(kNoneLeft);
            CAPTURE(end.status);
            CAPTURE(end.stderr_text);
            REQUIRE((none_left || end.exited_with(0)));
        }
        CHECK(none_left);
    }
}

TEST_CASE("a limit above RLIMIT_STACK is refused where stacks grow down") {
    if (!CULM_KERNEL_IS_REAL) return;
    const ChildEnd end = run_in_child([] {
        set_limit(RLIMIT_STACK, std::size_t{1} << 20);
        StrategyStack stack;
        const auto created = named("growsdown").create(std::size_t{2} << 20, std::span(&stack, 1));
        if (created) return 1;
        if (created.error().code != EINVAL) return 2;
        return std::strstr(created.error().advice, "ulimit -s") != nullptr ? 0 : 3;
    });
    CHECK(end.exited_with(0));
}

TEST_CASE("a stack that grows down loses nobody else's memory when it is shrunk or destroyed") {
    if (!CULM_KERNEL_IS_REAL) return;
    const ChildEnd end = run_in_child([] {
        StackStrategy& strategy = named("growsdown");
        auto stacks = make_stacks(strategy, 1);
        touch_down(stacks[0], std::size_t{64} << 10);
        // Nothing reserves the addresses below the stack, so another mapping may get them.
        std::byte* wanted = stacks[0].base - (std::size_t{3} << 20);
        void* theirs =
            mmap(wanted, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        if (theirs != wanted) return 1;
        *wanted = std::byte{7};
        culm::SuspendedStrategyStack suspended{&stacks[0], stacks[0].base - 256};
        if (strategy.shrink(std::span(&suspended, 1)) != 1) return 2;
        strategy.destroy(stacks);
        if (*wanted != std::byte{7}) return 3;
        unsigned char present = 0;
        return mincore(stacks[0].base - 8192, 4096, &present) != 0 ? 0 : 4;  // all that it grew into is gone
    });
    CHECK(end.exited_with(0));
}

TEST_CASE("locking beyond RLIMIT_MEMLOCK is refused, and nothing is kept") {
    if (!CULM_KERNEL_IS_REAL) return;
    const ChildEnd end = run_in_child([] {
        // Root may lock without a limit, so be nobody.
        set_limit(RLIMIT_MEMLOCK, std::size_t{1} << 20);
        if (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0) return 77;
        StackStrategy& locked = strategies::locked_on_fault(named("bare-mmap"));
        std::vector<StrategyStack> stacks(4);
        const auto created = locked.create(std::size_t{512} << 10, stacks);
        if (created) return 1;
        if (std::strstr(created.error().advice, "RLIMIT_MEMLOCK") == nullptr) return 2;
        // What had been locked is unlocked again: one that fits can be had.
        return locked.create(std::size_t{512} << 10, std::span(stacks).first(1)) ? 0 : 3;
    });
    if (end.exited_with(77)) {
        MESSAGE("skipped: this process cannot give its rights up");
        return;
    }
    CAPTURE(end.status);
    CHECK(end.exited_with(0));
}

TEST_CASE("locked stacks keep their pages from MADV_DONTNEED and guards, and give them back through shrink") {
    if (!CULM_KERNEL_IS_REAL) return;
    const ChildEnd end = run_in_child([] {
        StackStrategy& locked = strategies::locked_on_fault(named("arena"));
        std::vector<StrategyStack> stacks(1);
        if (!locked.create(std::size_t{1} << 20, stacks)) return 77;
        const std::size_t deep = std::size_t{64} << 10;
        touch_down(stacks[0], deep);
        std::byte* low = stacks[0].base - deep;
        if (madvise(low, 4096, MADV_DONTNEED) == 0 || errno != EINVAL) return 1;
        if (culm::kernel_features().guard == culm::GuardKind::kMadvise) {
            if (madvise(low, 4096, 102) == 0 || errno != EINVAL) return 2;
        }
        if (present_bytes(low, deep) != deep) return 3;
        culm::SuspendedStrategyStack suspended{&stacks[0], stacks[0].base - 256};
        if (locked.shrink(std::span(&suspended, 1)) != 1) return 4;
        return present_bytes(low, deep) <= 2 * culm::kernel_features().page_bytes ? 0 : 5;
    });
    if (end.exited_with(77)) {
        MESSAGE("skipped: this process may not lock memory");
        return;
    }
    CAPTURE(end.status);
    CHECK(end.exited_with(0));
}

TEST_CASE("a fault that opening the stack cannot help ends the process instead of coming back for ever") {
    if (!CULM_KERNEL_IS_REAL || culm::instrument::kInstrumented) return;
    const ChildEnd end = run_in_child([] {
        culm::testing::use_default_fault_actions();
        auto stacks = make_stacks(named("fault-handler"), 1);
        alarm(10);
        // Open, but no code may run there.
        const auto code = reinterpret_cast<void (*)()>(stacks[0].base - 4096);
        code();
        return 0;
    });
    CHECK(end.died_of(SIGSEGV));
}

TEST_CASE("two threads that touch the same closed page at once both go on") {
    if (!CULM_KERNEL_IS_REAL) return;
    const ChildEnd end = run_in_child([] {
        StackStrategy& strategy = named("fault-handler");
        auto stacks = make_stacks(strategy, 200);
        // The second toucher is the kernel's view of a stale fault: the page is open by the time it is resolved.
        for (StrategyStack& stack : stacks) {
            std::byte* at = stack.limit() + 64;
            if (!strategy.commit_on_fault(at)) return 1;
            if (!strategy.commit_on_fault(at)) return 2;  // as a slower thread would: such a fault is let through once
            if (strategy.commit_on_fault(at)) return 3;   // but not for ever
            poke(at);
        }
        return 0;
    });
    CHECK(end.exited_with(0));
}
