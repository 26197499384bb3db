// A program's whole life, with each call to the operating system failing in turn: a scheduler is made, fibers of every
// class are spawned, switch, recurse and finish, memory is trimmed, the process forks, the scheduler is closed.
//
// Whatever fails says what to do or is done without; the other fibers go on, and what was taken is given back.
#include "os/fault_injection.hpp"
#include "culm/testing/overrides.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <span>
#include <vector>

#include "../core/child.hpp"
#include "culm/kernel.hpp"
#include "culm/residency.hpp"
#include "culm/stack_arena.hpp"
#include "culm/stack_pool.hpp"
#include "fixture.hpp"

using namespace culm::testing;
using culm::StackClass;

namespace {

constexpr long kCallsMax = 5'000;
constexpr StackClass kClasses[] = {StackClass::k64K, StackClass::k256K, StackClass::k1M,
                                   StackClass::k10M, StackClass::k100M, StackClass::k1G};

// Without PAGEMAP_SCAN looking at one large stack takes hundreds of calls that are all the same.
std::span<const StackClass> classes() {
    const std::span all(kClasses);
    return culm::kernel_features().pagemap_scan ? all : all.first(4);
}

// What became of one scenario.
struct Course {
    int refused = 0;  // errors, each with its reason and advice
    const char* wrong = nullptr;
};

bool is_explained(const culm::Error& error) {
    return error.code != 0 && *error.operation != '\0' && *error.advice != '\0';
}

[[gnu::noinline]] int recurse(int depth) {
    volatile char frame[2048];
    std::memset(const_cast<char*>(frame), depth & 127, sizeof frame);
    return depth == 0 ? 0 : recurse(depth - 1) + (frame[depth % 2048] == (depth & 127) ? 1 : 100);
}

// One fiber: parks, recurses through some fifteen pages, parks again with little in use, and counts itself.
void live(Fiber& self, void* finished) {
    self.scheduler().yield_now();
    const int depth = recurse(25);
    self.scheduler().park();
    if (depth == 25) ++*static_cast<int*>(finished);
}

int status_of_forked_child(Scheduler& scheduler) {
    std::fflush(nullptr);
    const pid_t child = fork();
    if (child < 0) return 1;
    if (child == 0) {
        int finished = 0;
        auto made = scheduler.new_fiber(live, &finished, StackClass::k64K);
        if (!made) _exit(is_explained(made.error()) ? 0 : 2);
        scheduler.start(*made.value());
        scheduler.yield_now();
        scheduler.yield_now();
        scheduler.unpark(*made.value());
        scheduler.join(*made.value());
        _exit(finished == 1 ? 0 : 3);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return status;
}

void run_fibers(Scheduler& scheduler, Course& course) {
    constexpr int kPerClass = 5;
    int finished = 0;
    std::vector<culm::JoinHandle> fibers;
    for (const StackClass size_class : classes()) {
        for (int i = 0; i < kPerClass; ++i) {
            auto made = scheduler.new_fiber(live, &finished, size_class);
            if (!made) {
                ++course.refused;
                if (!is_explained(made.error())) course.wrong = "an error of spawn without advice";
                continue;
            }
            scheduler.start(*made.value());
            fibers.emplace_back(made.value());
        }
    }
    for (int i = 0; i < 3; ++i) scheduler.yield_now();
    scheduler.trim();
    for (auto& fiber : fibers) {
        const auto residency = culm::stack_residency(fiber.fiber().stack());
        if (residency) continue;
        ++course.refused;
        if (!is_explained(residency.error())) course.wrong = "an error of residency without advice";
    }
    if (status_of_forked_child(scheduler) != 0) course.wrong = "the child of fork";
    scheduler.stack_pool().warm_bytes_max = 0;  // every stack that comes back is over the budget
    for (auto& fiber : fibers) scheduler.unpark(fiber.fiber());
    for (auto& fiber : fibers) fiber.join();
    if (finished != static_cast<int>(fibers.size())) course.wrong = "a fiber that was spawned did not end well";
    scheduler.trim();
}

Course live_through() {
    Course course;
    auto made = Scheduler::create({});
    if (!made) {
        ++course.refused;
        if (!is_explained(made.error())) course.wrong = "an error of create without advice";
        return course;
    }
    run_fibers(*made.value(), course);
    if (!Scheduler::close_current()) course.wrong = "close_current";
    return course;
}

std::size_t descriptors() {
    std::size_t count = 0;
    for ([[maybe_unused]] const auto& one : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
    return count;
}

// Resident bytes of all stacks that are free: each is taken, looked at and given back.
std::size_t resident_bytes_of_free_stacks() {
    std::size_t bytes = 0;
    for (const StackClass size_class : classes()) {
        culm::StackArena& arena = culm::StackArena::of(size_class);
        std::vector<culm::Stack> stacks(arena.statistics().slots_free);
        if (!arena.take(stacks)) return SIZE_MAX;
        for (const culm::Stack& stack : stacks) {
            const auto residency = culm::stack_residency(stack);
            bytes += residency ? residency.value().resident_bytes : SIZE_MAX / 2;
        }
        arena.give_back(stacks);
    }
    return bytes;
}

bool all_stacks_are_back() {
    for (const StackClass size_class : classes()) {
        const auto statistics = culm::StackArena::of(size_class).statistics();
        if (statistics.slots_free != statistics.slots_carved) return false;
    }
    return true;
}

// 0: fine; 100: fine, and no call was left to fail.
int live_with_failure(long nth, int error, const culm::KernelFeatures& features) {
    culm::override_kernel_features(features);
    culm::os::fail_call(nth, error);
    const Course course = live_through();
    const bool none_failed = culm::os::failure_pending();
    culm::os::fail_call(0, 0);
    if (course.wrong) {
        std::fprintf(stderr, "%s\n", course.wrong);
        return 1;
    }
    if (none_failed && course.refused > 0) return 2;
    if (!all_stacks_are_back()) return 3;

    const Course again = live_through();
    if (again.wrong || again.refused > 0) return 4;
    const std::size_t open = descriptors();
    const Course third = live_through();
    if (third.wrong || third.refused > 0) return 5;
    if (descriptors() != open) return 6;
    if (!all_stacks_are_back()) return 7;
    if (resident_bytes_of_free_stacks() > 0) return 8;
    return none_failed ? 100 : 0;
}

void fail_each_call(int error, const culm::KernelFeatures& features) {
    long nth = 1;
    for (; nth < kCallsMax; ++nth) {
        const auto end = run_in_child([&] { return live_with_failure(nth, error, features); });
        if (end.exited_with(100)) break;
        CAPTURE(nth);
        CAPTURE(error);
        CAPTURE(end.status);
        CAPTURE(end.stderr_text);
        REQUIRE(end.exited_with(0));
    }
    CHECK(nth > 20);
    CHECK(nth < kCallsMax);
}

}  // namespace

// What a kernel gives: no memory, interrupted midway, and what it says of locked memory.
TEST_CASE("a whole life with each call failing in turn") {
    for (const int error : {ENOMEM, EAGAIN, EINVAL}) fail_each_call(error, culm::kernel_features());
}

TEST_CASE("a whole life with each call failing in turn, on a kernel with nothing new") {
    culm::KernelFeatures features;
    features.page_bytes = culm::kernel_features().page_bytes;
    fail_each_call(ENOMEM, features);
}

TEST_CASE("a whole life with each call failing in turn, where the process has no name for itself") {
    culm::KernelFeatures features = culm::kernel_features();
    features.self_pidfd = false;
    fail_each_call(ENOMEM, features);
}
