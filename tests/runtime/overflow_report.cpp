// Running out of stack: the report names the fiber. A program of its own, because the handler is installed once.
#include <cstdio>

#include "../core/child.hpp"
#include "fixture.hpp"

using namespace culm::testing;

namespace {

int recurse(int depth) {
    volatile char block[2048];
    block[0] = static_cast<char>(depth);
    return depth < 0 ? 0 : recurse(depth + 1) + block[0];
}

ChildEnd overflow_in(const char* name) {
    return run_in_child([name] {
        use_default_fault_actions();
        auto fiber = small_fiber([] { std::printf("%d", recurse(0)); }, name);
        fiber.join();
        return 0;
    });
}

}  // namespace

TEST_CASE("an overflow is reported with the fiber's name") {
    const ChildEnd end = overflow_in("greedy");
    CAPTURE(end.stderr_text);
    CHECK(end.stderr_text.find("'greedy'") != std::string::npos);
    CHECK_FALSE(end.exited_with(0));
}

TEST_CASE("a fiber without a name is reported by its number") {
    const ChildEnd end = overflow_in(nullptr);
    CAPTURE(end.stderr_text);
    CHECK(end.stderr_text.find("fiber 2") != std::string::npos);
    CHECK_FALSE(end.exited_with(0));
}
