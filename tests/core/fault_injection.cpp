// The first call to the operating system fails, in the next run the second, and so on until there is none left to fail.
// Each time the caller gets an error or manages without the call, nothing leaks, and the same thing works the next
// time.
#include "os/fault_injection.hpp"
#include "culm/testing/overrides.hpp"

#include <doctest/doctest.h>

#include <cerrno>
#include <vector>

#include "child.hpp"
#include "culm/kernel.hpp"
#include "culm/overflow.hpp"
#include "culm/residency.hpp"
#include "culm/stack_arena.hpp"
#include "culm/stack_pool.hpp"
#include "os/os.hpp"

using culm::Stack;
using culm::StackArena;
using culm::StackClass;
using culm::StackPool;
using culm::testing::run_in_child;

namespace {

constexpr long kCallsMax = 10'000;

// Takes, touches, discards and returns stacks of two classes. False if any of it was refused.
bool use_stacks() {
    bool all = true;
    StackPool pool;
    std::vector<Stack> stacks;
    for (const StackClass size_class : {StackClass::k64K, StackClass::k256K}) {
        for (int i = 0; i < 20; ++i) {
            if (!pool.reserve(size_class)) {
                all = false;
                continue;
            }
            const Stack stack = pool.take(size_class);
            stack.base[-1] = std::byte{1};
            *stack.limit() = std::byte{1};
            stacks.push_back(stack);
        }
    }
    std::vector<culm::SuspendedStack> suspended;
    for (const Stack& stack : stacks) suspended.push_back({stack, stack.base - 1});
    culm::discard_below(suspended);
    // There are several ways to ask for it, so one that fails must not matter.
    if (!stacks.empty() && !culm::stack_residency(stacks.front())) all = false;
    for (const Stack& stack : stacks) pool.put(stack, nullptr);
    pool.trim();
    return all;
}

bool all_are_back() {
    for (const StackClass size_class : {StackClass::k64K, StackClass::k256K}) {
        const auto statistics = StackArena::of(size_class).statistics();
        if (statistics.slots_free != statistics.slots_carved) return false;
    }
    return true;
}

bool all_are_guarded() {
    std::vector<Stack> stacks(StackArena::of(StackClass::k64K).statistics().slots_free);
    if (!StackArena::of(StackClass::k64K).take(stacks)) return false;
    bool guarded = true;
    for (const Stack& stack : stacks) guarded = guarded && !culm::os::kernel_can_write(stack.limit() - 1);
    StackArena::of(StackClass::k64K).give_back(stacks);
    return guarded;
}

// One run in a fresh process with the n-th call failing. 0: fine; 100: fine, and there was no n-th call.
int run_with_failure(long nth, int error, const culm::KernelFeatures& features) {
    culm::override_kernel_features(features);
    culm::os::fail_call(nth, error);
    static_cast<void>(use_stacks());
    const bool none_failed = culm::os::failure_pending();
    culm::os::fail_call(0, 0);
    if (!all_are_back()) return 1;
    if (!all_are_guarded()) return 2;
    if (!use_stacks()) return 3;
    if (!all_are_back()) return 4;
    return none_failed ? 100 : 0;
}

void fail_each_call(int error, const culm::KernelFeatures& features) {
    long nth = 1;
    for (; nth < kCallsMax; ++nth) {
        const auto end = run_in_child([&] { return run_with_failure(nth, error, features); });
        if (end.exited_with(100)) break;
        CAPTURE(nth);
        CAPTURE(error);
        CAPTURE(end.stderr_text);
        REQUIRE(end.exited_with(0));
    }
    CHECK(nth > 5);
    CHECK(nth < kCallsMax);
}

}  // namespace

TEST_CASE("each call fails in turn, as this kernel is") { fail_each_call(ENOMEM, culm::kernel_features()); }

TEST_CASE("each call fails in turn with EINVAL, as on locked memory") {
    fail_each_call(EINVAL, culm::kernel_features());
}

TEST_CASE("each call fails in turn on a kernel with nothing new") {
    culm::KernelFeatures features;
    features.page_bytes = culm::kernel_features().page_bytes;
    fail_each_call(ENOMEM, features);
}

TEST_CASE("each call fails in turn under strict overcommit") {
    culm::KernelFeatures features = culm::kernel_features();
    features.overcommit_mode = 2;
    fail_each_call(ENOMEM, features);
}

TEST_CASE("the overflow handler and the signal stack can be had after each failure") {
    bool done = false;
    for (long nth = 1; nth < 20 && !done; ++nth) {
        const auto end = run_in_child([nth] {
            static_cast<void>(culm::kernel_features());
            stack_t none{};
            none.ss_flags = SS_DISABLE;
            sigaltstack(&none, nullptr);
            culm::os::fail_call(nth, ENOMEM);
            const bool installed = bool(culm::install_overflow_handler(nullptr));
            const bool has_stack = bool(culm::ensure_thread_signal_stack());
            const bool none_failed = culm::os::failure_pending();
            culm::os::fail_call(0, 0);
            if (none_failed != (installed && has_stack)) return 1;
            if (!culm::install_overflow_handler(nullptr)) return 2;
            if (!culm::ensure_thread_signal_stack()) return 3;
            return none_failed ? 100 : 0;
        });
        done = end.exited_with(100);
        REQUIRE((done || end.exited_with(0)));
    }
    CHECK(done);
}

TEST_CASE("a kernel that cannot be probed counts as one with nothing") {
    const auto end = run_in_child([] {
        for (long nth = 1; nth < 4; ++nth) {
            const auto one = run_in_child([nth] {
                culm::os::fail_call(nth, ENOMEM);
                // Probing happens here, for the first time in this process.
                const culm::KernelFeatures& features = culm::kernel_features();
                if (features.page_bytes == 0) return 1;
                culm::os::fail_call(0, 0);
                return use_stacks() && all_are_back() && all_are_guarded() ? 0 : 2;
            });
            if (!one.exited_with(0)) return 1;
        }
        return 0;
    });
    CHECK(end.status == 0);
}
