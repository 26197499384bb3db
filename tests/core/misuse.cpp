// A program that misuses the C++ API is ended with a sentence that says what was expected. Each misuse is committed in
// a child process.
#include <doctest/doctest.h>

#include <cerrno>
#include <csignal>

#include "child.hpp"
#include "culm/check.hpp"
#include "culm/result.hpp"

using culm::Result;
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
