// culm-stack-probe: runs one experiment on one way of allocating stacks and prints one JSON object.
//
// `culm lab` runs it once per experiment, because some of them end the process: that is a result. README.md has the
// contract. Invariant: stdout holds at most one "before" line and one result line; nothing outside this process is
// changed.
#include <sys/resource.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "culm/overflow.hpp"
#include "experiment.hpp"
#include "strategies/strategies.hpp"

namespace culm::lab {

namespace {

constexpr int kWrongUse = 2;
constexpr std::size_t kUsualLimitBytes = std::size_t{10} << 20;

struct Experiment {
    const char* name;
    Answer (*run)(const Request& request);
};

constexpr Experiment kExperiments[] = {
    {"lifecycle", &lifecycle},
    {"ceiling", &ceiling},
    {"idle", &idle},
    {"growth", &growth},
    {"shrink", &shrink},
    {"kernel-write", &kernel_write},
    {"overflow-small", &overflow_small},
    {"overflow-large", &overflow_large},
    {"growsdown", &growsdown},
    {"fork", &fork_cost},
    {"switch", &switch_cost},
    {"thp", &huge_pages},
    {"mlock", &locked_memory},
};

[[noreturn]] void refuse(const std::string& message) {
    std::fprintf(stderr, "culm-stack-probe: %s\n", message.c_str());
    std::exit(kWrongUse);
}

const Experiment& experiment_named(std::string_view name) {
    std::string known = "strategies";
    for (const Experiment& experiment : kExperiments) {
        if (name == experiment.name) return experiment;
        known += std::string(", ") + experiment.name;
    }
    refuse("unknown experiment '" + std::string(name) + "'; there are: " + known);
}

std::size_t number(std::string_view option, std::string_view text) {
    std::size_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || value == 0) {
        refuse(std::string(option) + " takes a number above zero, not '" + std::string(text) + "'");
    }
    return value;
}

StackStrategy& strategy_named(std::string_view id) {
    if (id == "split") refuse("split stacks have a program of their own: culm-split-stack-probe");
    StackStrategy* found = strategies::find(id);
    if (found == nullptr) refuse("unknown strategy '" + std::string(id) + "': use one of: " + strategies::ids());
    return *found;
}

void take_option(Request& request, std::string_view option, std::string_view text) {
    if (option == "--strategy") {
        request.strategy = &strategy_named(text);
    } else if (option == "--limit") {
        request.limit_bytes = number(option, text);
    } else if (option == "--count") {
        request.count = number(option, text);
    } else if (option == "--pages") {
        request.pages = number(option, text);
    } else if (option == "--bytes") {
        request.bytes = number(option, text);
    } else if (option == "--switch") {
        request.switch_id = text;
    } else if (option == "--stride") {
        if (text != "odd" && text != "power-of-two") refuse("--stride is odd or power-of-two");
        request.stride = text == "odd" ? Stride::kOdd : Stride::kPowerOfTwo;
    } else {
        refuse("unknown option '" + std::string(option) +
               "'; there are: --strategy, --limit, --count, --pages, --bytes, --stride, --switch, --locked");
    }
}

Request request_from(int count, char** words) {
    Request request;
    request.experiment = words[1];
    request.strategy = strategies::all().front();
    for (int i = 2; i < count; ++i) {
        if (std::strcmp(words[i], "--locked") == 0) {
            request.locked = true;
            continue;
        }
        if (i + 1 == count) refuse(std::string(words[i]) + " needs a value");
        take_option(request, words[i], words[i + 1]);
        ++i;
    }
    if (request.locked) request.strategy = &strategies::locked_on_fault(*request.strategy);
    const std::size_t limit_max = request.strategy->traits().limit_bytes_max;
    if (request.limit_bytes == 0) {
        request.limit_bytes = limit_max == 0 ? kUsualLimitBytes : std::min(limit_max, kUsualLimitBytes);
    }
    return request;
}

// No core file, and as much room for stacks that grow down as this process may give itself.
void set_own_limits() {
    const rlimit no_core{0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    rlimit stack{};
    if (getrlimit(RLIMIT_STACK, &stack) != 0) return;
    stack.rlim_cur = stack.rlim_max;
    setrlimit(RLIMIT_STACK, &stack);
}

Answer run(const Experiment& experiment, const Request& request) {
    if (const char* why_not = request.strategy->why_unavailable()) return unsupported(why_not);
    // A stack that ends in a guard is reported on stderr by the handler that programs get.
    if (const Result<void> ready = install_overflow_handler(nullptr); !ready) return unsupported(ready.error());
    if (const Result<void> ready = ensure_thread_signal_stack(); !ready) return unsupported(ready.error());
    return experiment.run(request);
}

}  // namespace

}  // namespace culm::lab

int main(int count, char** words) {
    using namespace culm::lab;
    if (count < 2) refuse("name an experiment: culm-stack-probe EXPERIMENT --strategy ID ...; `strategies` lists both");
    set_own_limits();
    const Answer answer = std::strcmp(words[1], "strategies") == 0
                              ? inventory()
                              : run(experiment_named(words[1]), request_from(count, words));
    std::puts(answer.object.text().c_str());
    std::fflush(stdout);
    // Stacks that a body never left are not unwound: nothing to tidy up but the process.
    std::_Exit(0);
}
