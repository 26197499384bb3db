// What fork costs a process with many stacks, before and after; and whether stack and guard still work in the child.
//
// The child of the timed fork waits until the parent has written to its stacks again, so that each write copies a page.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "child.hpp"
#include "experiment.hpp"
#include "measure.hpp"

namespace culm::lab {

namespace {

constexpr int kRounds = 3;
constexpr std::size_t kDeeperBytes = std::size_t{256} << 10;

void write_bases(Stacks& stacks) {
    for (const StrategyStack& stack : stacks) const_cast<volatile std::byte*>(stack.base)[-64] = std::byte{2};
}

struct Timing {
    double fork_ns = 0;
    double cow_ns_per_page = 0;
    bool was_made = false;
};

Timing time_fork(Stacks& stacks) {
    Timing timing;
    int hold[2];
    if (pipe(hold) != 0) return timing;
    std::int64_t start = now_ns();
    const pid_t child = fork();
    if (child == 0) {
        close(hold[1]);
        char none;
        const ssize_t ended = read(hold[0], &none, 1);
        _exit(ended == 0 ? 0 : 1);
    }
    timing.fork_ns = static_cast<double>(now_ns() - start);
    close(hold[0]);
    if (child > 0) {
        start = now_ns();
        write_bases(stacks);
        timing.cow_ns_per_page = static_cast<double>(now_ns() - start) / static_cast<double>(stacks.size());
        timing.was_made = true;
    }
    close(hold[1]);
    if (child > 0) waitpid(child, nullptr, 0);
    return timing;
}

}  // namespace

Answer fork_cost(const Request& request) {
    const std::size_t count = request.count.value_or(1000);
    if (!request.strategy->traits().pointers_stay_valid)
        return unsupported("copying stacks are heap blocks: fork costs what they hold");
    Stacks stacks(*request.strategy);
    if (const Result<void> created = stacks.create(request.limit_bytes, count); !created)
        return unsupported(created.error());
    write_bases(stacks);
    std::vector<double> fork_ns;
    std::vector<double> cow_ns;
    for (int round = 0; round < kRounds; ++round) {
        const Timing timing = time_fork(stacks);
        if (!timing.was_made) return unsupported("fork was refused");
        fork_ns.push_back(timing.fork_ns);
        cow_ns.push_back(timing.cow_ns_per_page);
    }
    const StrategyStack used = stacks[count / 2];
    const ChildEnd deeper = run_in_child([&](const Tell&) {
        touch_down(used, std::min(kDeeperBytes, used.limit_bytes));
        return 0;
    });
    const ChildEnd below = run_in_child([&](const Tell&) {
        const_cast<volatile std::byte*>(used.limit())[-8] = std::byte{1};
        return 0;
    });
    const bool has_guard = request.strategy->traits().catches_small_overflow;
    Answer answer;
    answer.object.add("stacks", count)
        .add("fork_ns", median(fork_ns))
        .add("fork_ns_per_stack", median(fork_ns) / static_cast<double>(count))
        .add("parent_cow_ns_per_page", median(cow_ns))
        .add("child_goes_on", deeper.exit_code == 0)
        .add("child_goes_on_signal", signal_name(deeper.signal))
        .add("has_guard", has_guard)
        .add("guard_survives", has_guard && below.signal != 0)
        .add("child_signal", signal_name(below.signal));
    return answer;
}

}  // namespace culm::lab
