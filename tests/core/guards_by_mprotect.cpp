// A kernel without MADV_GUARD_INSTALL, or with strict overcommit: guards by mprotect up to a counted ceiling, then a
// refusal that says what to do. Each case runs in a child that has not taken a stack yet.
#include <sys/mman.h>

#include <doctest/doctest.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "child.hpp"
#include "culm/kernel.hpp"
#include "culm/stack_arena.hpp"
#include "culm/strategy_pool.hpp"
#include "culm/testing/overrides.hpp"
#include "os/fault_injection.hpp"
#include "os/os.hpp"

using culm::Stack;
using culm::StackArena;
using culm::StackClass;
using culm::testing::run_in_child;

namespace {

constexpr std::size_t kMappingsLeft = 400;

culm::KernelFeatures old_kernel() {
    culm::KernelFeatures features = culm::kernel_features();
    features.guard = culm::GuardKind::kMprotect;
    features.vectored_guard = false;
    features.vectored_discard = false;
    features.pagemap_scan = false;
    features.mappings_max = culm::os::mapping_count() + kMappingsLeft;
    return features;
}

// Takes stacks one by one until refused; how many there were.
std::size_t take_until_refused(StackClass size_class, std::vector<Stack>& stacks, culm::Error& refusal) {
    for (;;) {
        Stack stack;
        const auto taken = StackArena::of(size_class).take(std::span(&stack, 1));
        if (!taken) {
            refusal = taken.error();
            return stacks.size();
        }
        stacks.push_back(stack);
    }
}

}  // namespace

TEST_CASE("guards by mprotect stop at half of the mappings that are left, with advice") {
    const auto end = run_in_child([] {
        culm::override_kernel_features(old_kernel());
        std::vector<Stack> stacks;
        culm::Error refusal;
        const std::size_t count = take_until_refused(StackClass::k256K, stacks, refusal);
        // The counting of mappings happens at the first guard, a few mappings later than above.
        if (count < kMappingsLeft / 4 - 8 || count > kMappingsLeft / 4) return 1;
        if (refusal.code != ENOMEM) return 2;
        if (std::strstr(refusal.advice, "max_map_count") == nullptr) return 3;
        for (const Stack& stack : stacks) {
            if (culm::os::kernel_can_write(stack.limit() - 1)) return 4;
            if (!culm::os::kernel_can_write(stack.limit())) return 5;
        }
        // Nothing is lost by the refusal: what is given back can be had again.
        StackArena::of(StackClass::k256K).give_back(stacks);
        std::vector<Stack> again(count);
        if (!StackArena::of(StackClass::k256K).take(again)) return 6;
        // All classes share one ceiling.
        Stack other;
        if (StackArena::of(StackClass::k64K).take(std::span(&other, 1))) return 7;
        return 0;
    });
    CHECK(end.status == 0);
}

TEST_CASE("stacks that are mappings of their own and guards of the arena share one half of the mappings") {
    const auto end = run_in_child([] {
        culm::override_kernel_features(old_kernel());
        const culm::StrategyIndex mmap_each = culm::strategy_index(*culm::stack_strategy("mmap").value()).value();
        culm::StrategyPool pool;
        std::size_t mapped = 0;
        culm::Result<void> reserved;
        while ((reserved = pool.reserve(mmap_each, StackClass::k64K))) {
            if (++mapped > kMappingsLeft) return 1;
        }
        if (reserved.error().code != ENOMEM) return 2;
        if (std::strstr(reserved.error().advice, "max_map_count") == nullptr) return 3;
        if (mapped > kMappingsLeft / 4) return 4;
        // The others have taken all that stacks may have: the arena gets none.
        Stack one;
        const auto refused = StackArena::of(StackClass::k64K).take(std::span(&one, 1));
        if (refused) return 5;
        if (refused.error().code != ENOMEM) return 6;
        // What they give back the arena may use.
        for (std::size_t i = 0; i < mapped; ++i) pool.unreserve(mmap_each, StackClass::k64K);
        pool.trim();
        std::vector<Stack> stacks;
        culm::Error refusal;
        return take_until_refused(StackClass::k64K, stacks, refusal) == mapped ? 0 : 7;
    });
    CAPTURE(end.status);
    CHECK(end.exited_with(0));
}

TEST_CASE("a kernel without vectors guards one by one") {
    if (culm::kernel_features().guard != culm::GuardKind::kMadvise) {
        MESSAGE("skipped: this kernel has no MADV_GUARD_INSTALL");
        return;
    }
    const auto end = run_in_child([] {
        culm::KernelFeatures features = culm::kernel_features();
        features.vectored_guard = false;
        culm::override_kernel_features(features);
        std::vector<Stack> stacks(100);
        if (!StackArena::of(StackClass::k64K).take(stacks)) return 1;
        for (const Stack& stack : stacks) {
            if (culm::os::kernel_can_write(stack.limit() - 1)) return 2;
        }
        return 0;
    });
    CHECK(end.status == 0);
}

TEST_CASE("a process descriptor serves where the kernel has no name for the calling process") {
    if (!culm::kernel_features().vectored_guard) {
        MESSAGE("skipped: this kernel takes no vectors");
        return;
    }
    const auto end = run_in_child([] {
        culm::KernelFeatures features = culm::kernel_features();
        features.self_pidfd = false;
        culm::override_kernel_features(features);
        std::vector<Stack> stacks(100);
        if (!StackArena::of(StackClass::k64K).take(stacks)) return 1;
        // The child of a fork has a descriptor of the parent until it opens its own.
        return run_in_child([] {
                   std::vector<Stack> more(1000);
                   if (!StackArena::of(StackClass::k64K).take(more)) return 1;
                   for (const Stack& stack : more) {
                       if (culm::os::kernel_can_write(stack.limit() - 1)) return 2;
                   }
                   return 0;
               })
            .status;
    });
    CHECK(end.status == 0);
}

TEST_CASE("memory that is locked gets guards by mprotect") {
    if (culm::kernel_features().guard != culm::GuardKind::kMadvise) {
        MESSAGE("skipped: this kernel has no MADV_GUARD_INSTALL");
        return;
    }
    const auto end = run_in_child([] {
        // From here on new mappings are locked, page by page as they are touched. MADV_GUARD_INSTALL refuses them.
        std::vector<Stack> stacks(1);
        if (!StackArena::of(StackClass::k64K).take(stacks)) return 1;
        if (mlockall(MCL_FUTURE | MCL_ONFAULT) != 0) return 77;
        std::vector<Stack> more(100);
        if (!StackArena::of(StackClass::k1M).take(more)) return 2;
        for (const Stack& stack : more) {
            if (culm::os::kernel_can_write(stack.limit() - 1)) return 3;
            if (!culm::os::kernel_can_write(stack.limit())) return 4;
        }
        return 0;
    });
    if (end.exited_with(77)) {
        MESSAGE("skipped: this process may not lock memory");
        return;
    }
    CHECK(end.status == 0);
}

TEST_CASE("strict overcommit: a reservation without access, each stack opened when it is made") {
    const auto end = run_in_child([] {
        culm::KernelFeatures features = culm::kernel_features();
        features.overcommit_mode = 2;
        culm::override_kernel_features(features);
        std::vector<Stack> stacks(20);
        if (!StackArena::of(StackClass::k256K).take(stacks)) return 1;
        for (const Stack& stack : stacks) {
            if (culm::os::kernel_can_write(stack.limit() - 1)) return 2;
            if (!culm::os::kernel_can_write(stack.limit())) return 3;
            if (!culm::os::kernel_can_write(stack.base - 1)) return 4;
        }
        if (StackArena::of(StackClass::k256K).statistics().slots_carved != stacks.size()) return 5;
        // The kernel refuses to charge one more: the second call, after the list of free stacks has grown.
        culm::os::fail_call(2, ENOMEM);
        Stack one;
        const auto refused = StackArena::of(StackClass::k256K).take(std::span(&one, 1));
        if (refused) return 6;
        if (std::strstr(refused.error().advice, "overcommit") == nullptr) return 7;
        return 0;
    });
    CHECK(end.status == 0);
}
