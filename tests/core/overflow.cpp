// Running out of stack: the report, the death that follows, and getting along with other handlers. In child processes.
#include "culm/overflow.hpp"

#include <doctest/doctest.h>

#include <csignal>
#include <cstring>
#include <string>
#include <vector>

#include "child.hpp"
#include "culm/stack_arena.hpp"
#include "on_stack.hpp"
#include "os/os.hpp"

using culm::Stack;
using culm::StackArena;
using culm::StackClass;
using culm::testing::OnStack;
using culm::testing::run_in_child;
using culm::testing::use_default_fault_actions;

namespace {

std::byte* fiber_base = nullptr;

std::size_t describe(const Stack& stack, char* buffer, std::size_t buffer_bytes) {
    const char* text = stack.base == fiber_base ? "fiber 'worker-3' (id 17)" : "somebody else";
    const std::size_t length = std::strlen(text);
    if (length > buffer_bytes) return 0;
    std::memcpy(buffer, text, length);
    return length;
}

[[gnu::noinline]] int recurse(int depth) {
    volatile char frame[512];
    frame[0] = static_cast<char>(depth);
    if (depth < 0) return 0;
    return recurse(depth + 1) + frame[0];
}

Stack take_one() {
    Stack stack;
    if (!StackArena::of(StackClass::k256K).take(std::span(&stack, 1))) _exit(90);
    fiber_base = stack.base;
    return stack;
}

void overflow_on_a_fiber() {
    const Stack stack = take_one();
    OnStack fiber(stack, [](OnStack&) { recurse(0); });
    fiber.step_in();
}

void set_up(culm::DescribeStackOwner owner = describe) {
    if (!culm::install_overflow_handler(owner)) _exit(91);
    if (!culm::ensure_thread_signal_stack()) _exit(92);
}

bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

void announce(const char* text) { culm::os::write_to_stderr(text, std::strlen(text)); }

// What Python's faulthandler does: report, put the previous action back, raise again.
struct sigaction before_theirs;
void their_handler(int signal) {
    announce("theirs\n");
    sigset_t blocked;
    pthread_sigmask(SIG_BLOCK, nullptr, &blocked);
    // A sanitizer's wrapper blocks signals although SA_NODEFER was asked for.
    if (sigismember(&blocked, signal) == 1) announce("deferred\n");
    sigaction(signal, &before_theirs, nullptr);
    std::raise(signal);
}

void install_theirs() {
    struct sigaction action {};
    action.sa_handler = their_handler;
    action.sa_flags = SA_NODEFER | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &before_theirs);
}

}  // namespace

TEST_CASE("an overflow is reported with owner, limit and advice, then the process dies of it") {
    const auto end = run_in_child([] {
        use_default_fault_actions();
        set_up();
        overflow_on_a_fiber();
        return 0;
    });
    CAPTURE(end.stderr_text);
    CHECK(end.died_of(SIGSEGV));
    CHECK(has(end.stderr_text, "culm: fiber 'worker-3' (id 17) ran out of stack: limit 262144 bytes, used 26"));
    CHECK(has(end.stderr_text, " bytes (fault at 0x"));
    CHECK(has(end.stderr_text, "stack_limit="));
    CHECK(end.stderr_text.find("culm:") == end.stderr_text.rfind("culm:"));
}

TEST_CASE("without a description the report still comes") {
    const auto end = run_in_child([] {
        use_default_fault_actions();
        set_up(nullptr);
        overflow_on_a_fiber();
        return 0;
    });
    CHECK(end.died_of(SIGSEGV));
    CHECK(has(end.stderr_text, "culm: a fiber ran out of stack"));
}

TEST_CASE("another fault is handed on without a word") {
    const auto end = run_in_child([] {
        use_default_fault_actions();
        set_up();
        int error = 0;
        void* closed = culm::os::reserve(65536, culm::os::Access::kNone, error);
        *static_cast<volatile char*>(closed) = 1;
        return 0;
    });
    CHECK(end.died_of(SIGSEGV));
    CHECK_FALSE(has(end.stderr_text, "culm:"));
}

TEST_CASE("a signal that was sent kills as it always did") {
    for (const int signal : {SIGSEGV, SIGBUS}) {
        const auto end = run_in_child([signal] {
            use_default_fault_actions();
            set_up();
            std::raise(signal);
            return 0;
        });
        CHECK(end.died_of(signal));
        CHECK_FALSE(has(end.stderr_text, "culm:"));
    }
}

TEST_CASE("a write past the end of a stack into the next guard is not called an overflow") {
    const auto end = run_in_child([] {
        use_default_fault_actions();
        set_up();
        Stack stacks[2];
        if (!StackArena::of(StackClass::k256K).take(stacks)) return 1;
        const Stack& lower = stacks[0].base < stacks[1].base ? stacks[0] : stacks[1];
        std::byte* past = lower.base;
        OnStack fiber(lower, [past](OnStack&) { *static_cast<volatile std::byte*>(past) = std::byte{1}; });
        fiber.step_in();
        return 0;
    });
    CHECK(end.died_of(SIGSEGV));
    CHECK_FALSE(has(end.stderr_text, "ran out of stack"));
}

TEST_CASE("a handler that was there before is called after the report") {
    const auto end = run_in_child([] {
        use_default_fault_actions();
        install_theirs();
        set_up();
        overflow_on_a_fiber();
        return 0;
    });
    CHECK(end.died_of(SIGSEGV));
    CHECK(has(end.stderr_text, "ran out of stack"));
    CHECK(has(end.stderr_text, "theirs\n"));
}

TEST_CASE("a handler installed later, which restores ours and raises again, does not swallow the report") {
    const auto end = run_in_child([] {
        use_default_fault_actions();
        set_up();
        install_theirs();
        overflow_on_a_fiber();
        return 0;
    });
    CAPTURE(end.stderr_text);
    CHECK(end.died_of(SIGSEGV));
    CHECK(has(end.stderr_text, "theirs\n"));
    if (has(end.stderr_text, "deferred\n")) return;  // then the second signal cannot be told from one that was sent
    CHECK(has(end.stderr_text, "ran out of stack"));
}

TEST_CASE("an ignored signal that was sent stays ignored, a fault does not") {
    const auto sent = run_in_child([] {
        std::signal(SIGSEGV, SIG_IGN);
        set_up();
        std::raise(SIGSEGV);
        return 5;
    });
    CHECK(sent.exited_with(5));
    const auto faulted = run_in_child([] {
        std::signal(SIGSEGV, SIG_IGN);
        set_up();
        overflow_on_a_fiber();
        return 5;
    });
    CHECK(faulted.died_of(SIGSEGV));
    CHECK(has(faulted.stderr_text, "ran out of stack"));
}

TEST_CASE("installing twice is the same as once") {
    const auto end = run_in_child([] {
        use_default_fault_actions();
        set_up();
        set_up();
        overflow_on_a_fiber();
        return 0;
    });
    CHECK(end.died_of(SIGSEGV));
    CHECK(end.stderr_text.find("culm:") == end.stderr_text.rfind("culm:"));
}

TEST_CASE("the alternate stack is large enough, stays when asked for twice, and goes") {
    const auto end = run_in_child([] {
        stack_t none{};
        none.ss_flags = SS_DISABLE;
        sigaltstack(&none, nullptr);
        if (!culm::ensure_thread_signal_stack()) return 1;
        stack_t first{};
        sigaltstack(nullptr, &first);
        if (first.ss_size < 65536 || (first.ss_flags & SS_DISABLE) != 0) return 2;
        if (culm::os::kernel_can_write(static_cast<std::byte*>(first.ss_sp) - 1)) return 3;
        if (!culm::ensure_thread_signal_stack()) return 4;
        stack_t second{};
        sigaltstack(nullptr, &second);
        if (second.ss_sp != first.ss_sp) return 5;
        culm::release_thread_signal_stack();
        culm::release_thread_signal_stack();
        if (culm::os::signal_stack_bytes() != 0) return 6;
        // Somebody's smaller one is replaced, and put back.
        std::vector<char> small(culm::os::signal_frame_bytes() + 8192);
        stack_t theirs{};
        theirs.ss_sp = small.data();
        theirs.ss_size = small.size();
        if (sigaltstack(&theirs, nullptr) != 0) return 7;
        if (!culm::ensure_thread_signal_stack()) return 8;
        if (culm::os::signal_stack_bytes() < 65536) return 9;
        culm::release_thread_signal_stack();
        stack_t back{};
        sigaltstack(nullptr, &back);
        return back.ss_sp == small.data() ? 0 : 10;
    });
    CHECK(end.status == 0);
}
