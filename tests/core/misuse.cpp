// A program that misuses the C++ API is ended with a sentence that says what was expected. Each misuse is committed in
// a child process.
#include <doctest/doctest.h>

#include <cerrno>
#include <csignal>
#include <thread>

#include "child.hpp"
#include "culm/check.hpp"
#include "culm/context.hpp"
#include "culm/residency.hpp"
#include "culm/result.hpp"
#include "culm/stack_arena.hpp"
#include "culm/stack_pool.hpp"
#include "culm/strategy_pool.hpp"

using culm::Result;
using culm::Stack;
using culm::StackArena;
using culm::StackClass;
using culm::StackPool;
using culm::StrategyPool;
using culm::testing::ChildEnd;
using culm::testing::run_in_child;

namespace {

// `misuse` runs in a child, which must not survive it.
template <class Misuse>
void ends_with_sentence(const char* sentence, Misuse misuse) {
    const ChildEnd end = run_in_child([&misuse] {
        std::signal(SIGABRT, SIG_DFL);
        misuse();
        return 0;
    });
    CAPTURE(end.status);
    CAPTURE(end.stderr_text);
    CHECK(end.ended_by_check(sentence));
}

constexpr auto kNoClass = static_cast<StackClass>(9);

Stack take_from(StackPool& pool, StackClass size_class = StackClass::k64K) {
    if (!pool.reserve(size_class)) _exit(90);
    return pool.take(size_class);
}

Result<int> refused() { return culm::Error{ENOMEM, "reserve address space for stacks", "raise ulimit -v"}; }

}  // namespace

TEST_CASE("a check that holds does nothing, also where the compiler evaluates it") {
    constexpr int kSeven = [] {
        culm::check(true, "never said");
        return 7;
    }();
    CHECK(kSeven == 7);
}

TEST_CASE("a check that does not hold says its sentence and aborts") {
    ends_with_sentence("culm: seven was expected\n", [] { culm::check(false, "seven was expected"); });
}

TEST_CASE("the value of an error, and the error of a value") {
    ends_with_sentence("Result::value() of a result that is an error", [] { refused().value(); });
    ends_with_sentence("reserve address space for stacks", [] {
        const auto result = refused();
        static_cast<void>(result.value());
    });
    ends_with_sentence("Result::error() of a result that is a value", [] {
        const Result<int> fine = 1;
        static_cast<void>(fine.error());
    });
}

TEST_CASE("a class of stacks that does not exist") {
    constexpr const char* kSentence = "there is no such StackClass";
    ends_with_sentence(kSentence, [] { static_cast<void>(culm::stack_limit_bytes(kNoClass)); });
    ends_with_sentence(kSentence, [] {
        std::byte memory[64];
        static_cast<void>(Stack{memory + sizeof(memory), kNoClass}.limit());
    });
    ends_with_sentence(kSentence, [] { static_cast<void>(StackArena::of(kNoClass)); });
    ends_with_sentence(kSentence, [] {
        StackPool pool;
        static_cast<void>(pool.reserve(kNoClass));
    });
    ends_with_sentence(kSentence, [] {
        StackPool pool;
        static_cast<void>(pool.statistics(kNoClass));
    });
    ends_with_sentence(kSentence, [] {
        StrategyPool pool;
        static_cast<void>(pool.reserve(1, kNoClass));
    });
}

TEST_CASE("a stack that another thread's pool has handed out is put into this one") {
    ends_with_sentence("StackPool::put() of a stack that was not taken from this pool", [] {
        Stack stack;
        StackPool theirs;
        std::thread([&] { stack = take_from(theirs); }).join();
        StackPool mine;
        mine.put(stack, nullptr);
    });
    ends_with_sentence("StackPool::put() of a stack that was not taken from this pool", [] {
        StackPool pool;
        const Stack stack = take_from(pool);
        pool.put_cold(stack);
        pool.put_cold(stack);
    });
    ends_with_sentence("StrategyPool::put() of a stack that was not taken from this pool", [] {
        StrategyPool theirs;
        if (!theirs.reserve(1, StackClass::k64K)) _exit(90);
        StrategyPool mine;
        mine.put(1, theirs.take(1, StackClass::k64K));
    });
}

TEST_CASE("a stack is taken, or a promise given back, that nobody has made") {
    ends_with_sentence("StackPool::take() without a promise", [] { StackPool().take(StackClass::k64K); });
    ends_with_sentence("StackPool::unreserve() without a promise", [] { StackPool().unreserve(StackClass::k64K); });
    ends_with_sentence("StrategyPool::take() without a promise", [] { StrategyPool().take(1, StackClass::k64K); });
    ends_with_sentence("StrategyPool::unreserve() without a promise",
                       [] { StrategyPool().unreserve(1, StackClass::k64K); });
}

TEST_CASE("an index that no strategy has") {
    ends_with_sentence("StrategyPool takes indexes that strategy_index() gave", [] {
        StrategyPool pool;
        static_cast<void>(pool.reserve(200, StackClass::k64K));
    });
}

TEST_CASE("a pool goes while a stack of it is in use") {
    ends_with_sentence("a StackPool is destroyed while stacks", [] {
        StackPool pool;
        take_from(pool);
    });
}

TEST_CASE("an arena gets back what it has not handed out") {
    ends_with_sentence("StackArena::give_back() of a stack of another class", [] {
        Stack stack;
        if (!StackArena::of(StackClass::k64K).take(std::span(&stack, 1))) _exit(90);
        StackArena::of(StackClass::k256K).give_back(std::span(&stack, 1));
    });
    ends_with_sentence("StackArena::give_back() of more stacks than were taken", [] {
        Stack stack;
        if (!StackArena::of(StackClass::k64K).take(std::span(&stack, 1))) _exit(90);
        StackArena::of(StackClass::k64K).give_back(std::span(&stack, 1));
        StackArena::of(StackClass::k64K).give_back(std::span(&stack, 1));
    });
}

TEST_CASE("a context without a function, or with the ends of its stack exchanged") {
    static std::byte memory[16384];
    ends_with_sentence("prepare_context() needs a function to run", [] {
        culm::Context context;
        culm::prepare_context(context, memory + sizeof(memory), memory, nullptr, nullptr);
    });
    ends_with_sentence("prepare_context() takes the highest address of the stack first", [] {
        culm::Context context;
        culm::prepare_context(
            context, memory, memory + sizeof(memory), [](void*) {}, nullptr);
    });
}

TEST_CASE("the function of a context returns") {
    ends_with_sentence("the function that a context runs has returned", [] {
        static std::byte memory[65536];
        culm::Context outside;
        culm::Context inside;
        culm::adopt_thread_context(outside);
        culm::prepare_context(
            inside, memory + sizeof(memory), memory, [](void*) {}, nullptr);
        culm::switch_context(outside, inside);
    });
}

TEST_CASE("fewer uses than stacks to measure") {
    ends_with_sentence("measure_suspended() needs as many uses", [] {
        culm::SuspendedStack stacks[2];
        culm::SuspendedUse uses[1];
        static_cast<void>(culm::measure_suspended(stacks, uses));
    });
}
