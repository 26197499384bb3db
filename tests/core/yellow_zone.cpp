// Yellow zones: closed with the guard, opened by the fault handler if the owner agrees, writable by the kernel in time,
// closed again. In child processes, each with handlers of its own.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <doctest/doctest.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <string>

#include "child.hpp"
#include "culm/kernel.hpp"
#include "culm/overflow.hpp"
#include "culm/stack_arena.hpp"
#include "culm/testing/overrides.hpp"
#include "on_stack.hpp"
#include "os/fault_injection.hpp"
#include "os/os.hpp"

using culm::Stack;
using culm::StackArena;
using culm::StackClass;
using culm::YellowZone;
using culm::testing::ChildEnd;
using culm::testing::OnStack;
using culm::testing::run_in_child;
using culm::testing::use_default_fault_actions;

namespace {

// Stands for the owner whom the handler asks, and notes what it was asked for.
struct Asked {
    volatile int half = 0;
    volatile int whole = 0;
    volatile bool agrees = true;
};
Asked asked;

bool may_open(const Stack&, YellowZone wanted) {
    if (wanted == YellowZone::kHalfOpen) ++const_cast<int&>(asked.half);
    if (wanted == YellowZone::kOpen) ++const_cast<int&>(asked.whole);
    return asked.agrees;
}

void set_up() {
    use_default_fault_actions();
    if (!culm::install_overflow_handler({.describe = nullptr, .may_open = may_open, .trace = nullptr})) _exit(91);
    if (!culm::ensure_thread_signal_stack()) _exit(92);
}

Stack take_one(StackClass size_class = StackClass::k64K) {
    Stack stack;
    if (!StackArena::of(size_class).take(std::span(&stack, 1))) _exit(90);
    return stack;
}

std::size_t yellow_bytes(StackClass size_class = StackClass::k64K) {
    return StackArena::of(size_class).statistics().yellow_bytes;
}

// Runs `body` with its stack pointer about `left` bytes above the limit.
template <class Body>
void run_near_limit(const Stack& stack, std::ptrdiff_t left, Body body) {
    OnStack fiber(stack, [&](OnStack&) {
        const auto* here = static_cast<const std::byte*>(__builtin_frame_address(0));
        auto* used =
            static_cast<volatile char*>(__builtin_alloca(static_cast<std::size_t>(here - stack.limit() - left)));
        used[0] = 1;
        body();
    });
    fiber.step_in();
}

[[gnu::noinline]] int recurse_to(const std::byte* deepest) {
    volatile char frame[256];
    frame[0] = 1;
    if (static_cast<const std::byte*>(__builtin_frame_address(0)) < deepest) return 0;
    return recurse_to(deepest) + frame[0];
}

culm::KernelFeatures old_kernel() {
    culm::KernelFeatures features = culm::kernel_features();
    features.guard = culm::GuardKind::kMprotect;
    features.vectored_guard = false;
    return features;
}

}  // namespace

TEST_CASE("the zone lies below the limit, in two halves of whole pages, above a guard") {
    const ChildEnd end = run_in_child([] {
        const auto writable = [](const std::byte* address) {
            return culm::os::kernel_can_write(const_cast<std::byte*>(address));
        };
        for (const StackClass size_class : {StackClass::k64K, StackClass::k256K, StackClass::k1M, StackClass::k10M}) {
            const Stack stack = take_one(size_class);
            const auto statistics = StackArena::of(size_class).statistics();
            const std::size_t page_bytes = culm::kernel_features().page_bytes;
            if (statistics.yellow_bytes < 16384 || statistics.yellow_bytes % (2 * page_bytes) != 0) return 1;
            if (statistics.guard_bytes < statistics.yellow_bytes + page_bytes) return 2;
            if (writable(stack.limit() - 1)) return 3;
            const std::byte* half = stack.limit() - statistics.yellow_bytes / 2;
            if (!culm::open_yellow_zone(stack, YellowZone::kHalfOpen)) return 4;
            if (!writable(half) || writable(half - 1)) return 5;
            const std::byte* whole = stack.limit() - statistics.yellow_bytes;
            if (!culm::open_yellow_zone(stack)) return 6;
            if (!writable(whole) || writable(whole - 1)) return 7;
            if (!culm::close_yellow_zone(stack) || writable(stack.limit() - 1)) return 8;
        }
        return 0;
    });
    CHECK(end.status == 0);
}

TEST_CASE("opening and closing leaves no page and no mapping behind, by either kind of guard") {
    for (const bool is_old : {false, true}) {
        const ChildEnd end = run_in_child([is_old] {
            if (is_old) culm::override_kernel_features(old_kernel());
            const Stack stack = take_one();
            const std::size_t mappings = culm::os::mapping_count();
            for (int round = 0; round < 100; ++round) {
                if (!culm::open_yellow_zone(stack)) return 1;
                stack.limit()[-1] = std::byte{1};
                if (!culm::close_yellow_zone(stack)) return 2;
                if (culm::os::kernel_can_write(stack.limit() - 1)) return 3;
            }
            if (culm::os::mapping_count() != mappings) return 4;
            if (!culm::open_yellow_zone(stack)) return 5;
            // The contents are gone, except where closing the zone only takes the access away.
            const bool keeps = culm::kernel_features().guard == culm::GuardKind::kMprotect;
            return keeps || stack.limit()[-1] == std::byte{0} ? 0 : 6;
        });
        CAPTURE(is_old);
        CAPTURE(end.status);
        CHECK(end.exited_with(0));
    }
}

TEST_CASE("code that comes to the zone goes on in it, step by step, and its owner is asked for each") {
    for (const bool is_old : {false, true}) {
        const ChildEnd end = run_in_child([is_old] {
            if (is_old) culm::override_kernel_features(old_kernel());
            set_up();
            const Stack stack = take_one();
            const auto half = static_cast<std::ptrdiff_t>(yellow_bytes() / 2);
            OnStack first(stack, [&](OnStack&) { recurse_to(stack.limit() - half / 2); });
            first.step_in();
            if (asked.half != 1 || asked.whole != 0) return 1;
            OnStack second(stack, [&](OnStack&) { recurse_to(stack.limit() - half - half / 2); });
            second.step_in();
            if (asked.half != 1 || asked.whole != 1) return 2;
            if (!culm::close_yellow_zone(stack)) return 3;
            OnStack third(stack, [&](OnStack&) { recurse_to(stack.limit() - half / 2); });
            third.step_in();
            return asked.half == 2 ? 0 : 4;
        });
        CAPTURE(is_old);
        CAPTURE(end.stderr_text);
        CHECK(end.exited_with(0));
    }
}

TEST_CASE("an owner that does not agree, and code that comes to the guard all the same, end as before") {
    for (const bool agrees : {false, true}) {
        const ChildEnd end = run_in_child([agrees] {
            set_up();
            asked.agrees = agrees;
            const Stack stack = take_one();
            OnStack fiber(stack, [&](OnStack&) { recurse_to(nullptr); });
            fiber.step_in();
            return 0;
        });
        CAPTURE(end.stderr_text);
        CHECK(end.died_of(SIGSEGV));
        CHECK(end.stderr_text.find("ran out of stack") != std::string::npos);
        CHECK(end.stderr_text.find("C frames, innermost first:") != std::string::npos);
    }
}

TEST_CASE("a zone that the kernel does not open is as good as a guard") {
    const ChildEnd end = run_in_child([] {
        set_up();
        const Stack stack = take_one();
        OnStack fiber(stack, [&](OnStack&) {
            culm::os::fail_call(1, ENOMEM);
            recurse_to(nullptr);
        });
        fiber.step_in();
        return 0;
    });
    CHECK(end.died_of(SIGSEGV));
    CHECK(end.stderr_text.find("ran out of stack") != std::string::npos);
}

TEST_CASE("a zone that the kernel does not close is reported as such, and closed later") {
    const ChildEnd end = run_in_child([] {
        const Stack stack = take_one();
        if (!culm::open_yellow_zone(stack)) return 1;
        culm::os::fail_call(1, ENOMEM);
        if (culm::close_yellow_zone(stack)) return 2;
        if (culm::take_over_open_yellow_zone(stack)) return 3;
        culm::leave_yellow_zone_open(stack);
        if (!culm::take_over_open_yellow_zone(stack)) return 4;
        if (culm::take_over_open_yellow_zone(stack)) return 5;
        return culm::close_yellow_zone(stack) ? 0 : 6;
    });
    CHECK(end.status == 0);
}

TEST_CASE("locked memory, where markers are refused, has its zone closed by taking the access away") {
    const ChildEnd end = run_in_child([] {
        const Stack stack = take_one();
        if (!culm::open_yellow_zone(stack)) return 1;
        if (mlock(stack.limit() - yellow_bytes(), yellow_bytes()) != 0) return 77;
        if (!culm::close_yellow_zone(stack)) return 2;
        if (culm::os::kernel_can_write(stack.limit() - 1)) return 3;
        if (!culm::open_yellow_zone(stack)) return 4;
        return culm::os::kernel_can_write(stack.limit() - 1) ? 0 : 5;
    });
    if (end.exited_with(77)) {
        MESSAGE("skipped: this process may not lock memory");
        return;
    }
    CHECK(end.exited_with(0));
}

TEST_CASE("a stack that is not an arena's has no zone") {
    alignas(16) static std::byte memory[65536];
    const Stack foreign{memory + sizeof(memory), StackClass::k64K};
    CHECK_FALSE(culm::open_yellow_zone(foreign));
    CHECK_FALSE(culm::close_yellow_zone(foreign));
}

// The buffer lies in a frame, and the call into the C library pushes its return address below that frame. So code whose
// buffer reaches into the zone has touched the zone, and thereby opened it, before the kernel writes.
TEST_CASE("the kernel writes whole buffers into the zone, at every place around the limit") {
    const ChildEnd end = run_in_child([] {
        set_up();
        const Stack stack = take_one(StackClass::k256K);
        const int zeroes = open("/dev/zero", O_RDONLY | O_CLOEXEC);
        volatile int wrong = 0;
        for (std::ptrdiff_t left = 6000; left > -6000; left -= 16) {
            run_near_limit(stack, left + 4600, [&] {
                char buffer[4096];
                if (read(zeroes, buffer, sizeof(buffer)) != ssize_t{sizeof(buffer)}) wrong = wrong + 1;
                iovec parts[2] = {{buffer, 10}, {buffer + 10, sizeof(buffer) - 10}};
                if (readv(zeroes, parts, 2) != ssize_t{sizeof(buffer)}) wrong = wrong + 1;
                timespec now{};
                if (clock_gettime(CLOCK_REALTIME, &now) != 0) wrong = wrong + 1;
            });
            if (!culm::close_yellow_zone(stack)) return 1;
        }
        if (asked.half == 0) return 2;
        return wrong == 0 ? 0 : 3;
    });
    CAPTURE(end.stderr_text);
    CHECK(end.exited_with(0));
}

namespace {
volatile int delivered = 0;
}

// The signal itself is lost: the kernel could not write the frame and sends only SIGSEGV. The interrupted code goes on.
TEST_CASE("a signal whose handler's frame does not fit opens the zone; the next one is handled") {
    if (!CULM_KERNEL_IS_REAL) return;
    const ChildEnd end = run_in_child([] {
        set_up();
        struct sigaction action {};
        action.sa_handler = [](int) { delivered = delivered + 1; };
        sigaction(SIGUSR1, &action, nullptr);
        const Stack stack = take_one();
        run_near_limit(stack, 600, [] {
            raise(SIGUSR1);
            raise(SIGUSR1);
        });
        if (asked.half + asked.whole == 0) return 1;
        return delivered >= 1 ? 0 : 2;
    });
    CAPTURE(end.stderr_text);
    CHECK(end.exited_with(0));
}

TEST_CASE("a wild write into the zone from elsewhere is no overflow") {
    const ChildEnd end = run_in_child([] {
        set_up();
        Stack stacks[2];
        if (!StackArena::of(StackClass::k64K).take(stacks)) return 1;
        OnStack fiber(stacks[0],
                      [&](OnStack&) { *static_cast<volatile std::byte*>(stacks[1].limit() - 1) = std::byte{1}; });
        fiber.step_in();
        return 0;
    });
    CHECK(end.died_of(SIGSEGV));
    CHECK(end.stderr_text.find("ran out of stack") == std::string::npos);
}
