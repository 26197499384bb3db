// What the tests of the strategies share: making stacks, looking at mappings, running code on a stack.
//
// All of it is used in child processes only. Invariant: a failure to set up ends the child with a code above 100.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "child.hpp"
#include "culm/context.hpp"
#include "culm/kernel.hpp"
#include "culm/overflow.hpp"
#include "culm/stack_strategy.hpp"
#include "strategies/fixed_small.hpp"
#include "strategies/strategies.hpp"

namespace culm::testing {

// Processors differ in what a signal handler's stack must hold, and so in the size of the fixed small stack. CTest runs
// these programs with this variable set to a small and to a large size too; without it they use the machine's own.
inline std::size_t forced_signal_stack_bytes() {
    const char* text = std::getenv("CULM_TEST_SIGNAL_STACK_BYTES");
    return text == nullptr ? 0 : std::strtoul(text, nullptr, 10);
}
// The strategy must know before its size is first asked for.
inline const bool kSignalStackIsForced = [] {
    const std::size_t bytes = forced_signal_stack_bytes();
    if (bytes != 0) lab::strategies::override_signal_stack_bytes(bytes);
    return bytes != 0;
}();

inline constexpr std::size_t kUsualLimitBytes = std::size_t{10} << 20;

inline std::size_t limit_for(const StackStrategy& strategy) {
    const std::size_t limit_max = strategy.traits().limit_bytes_max;
    // RLIMIT_STACK is 8 MB nearly everywhere.
    if (strategy.traits().guard == GuardMeans::kGap) return std::size_t{4} << 20;
    return limit_max == 0 ? kUsualLimitBytes : std::min(limit_max, kUsualLimitBytes);
}

inline std::vector<StrategyStack> make_stacks(StackStrategy& strategy, std::size_t count) {
    std::vector<StrategyStack> stacks(count);
    if (!strategy.prepare_thread()) _exit(101);
    if (!strategy.create(limit_for(strategy), stacks)) _exit(102);
    return stacks;
}

// Not instrumented: it writes where a sanitizer would object, which is what is tested.
[[gnu::noinline, gnu::no_sanitize_address]] inline void poke(std::byte* at, std::byte value = std::byte{1}) {
    *const_cast<volatile std::byte*>(at) = value;
}
[[gnu::noinline, gnu::no_sanitize_address]] inline std::byte peek(const std::byte* at) {
    return *const_cast<const volatile std::byte*>(at);
}

inline void touch_down(const StrategyStack& stack, std::size_t bytes) {
    const std::size_t page = kernel_features().page_bytes;
    for (std::size_t depth = page; depth <= bytes; depth += page) poke(stack.base - depth);
}

struct Mapping {
    std::uintptr_t start = 0;
    std::uintptr_t end = 0;
    bool writable = false;
    bool is_private = false;
};

inline std::vector<Mapping> mappings() {
    std::vector<Mapping> found;
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
        Mapping mapping;
        char access[5] = {};
        if (std::sscanf(line.c_str(), "%" SCNxPTR "-%" SCNxPTR " %4s", &mapping.start, &mapping.end, access) != 3)
            _exit(103);
        mapping.writable = access[1] == 'w';
        mapping.is_private = access[3] == 'p';
        found.push_back(mapping);
    }
    return found;
}

// The sum of what strict overcommit would charge.
inline std::size_t writable_bytes() {
    std::size_t bytes = 0;
    for (const Mapping& mapping : mappings()) {
        if (mapping.writable && mapping.is_private) bytes += mapping.end - mapping.start;
    }
    return bytes;
}

inline std::size_t present_bytes(const std::byte* start, std::size_t bytes) {
    const std::size_t page = kernel_features().page_bytes;
    std::size_t present = 0;
    for (std::size_t at = 0; at < bytes; at += page) {
        unsigned char is_present = 0;
        if (mincore(const_cast<std::byte*>(start) + at, page, &is_present) != 0) continue;
        if ((is_present & 1) != 0) present += page;
    }
    return present;
}

// Runs `body` on a strategy's stack until it ends or steps out; tells the strategy of each.
class OnStrategyStack {
public:
    OnStrategyStack(StackStrategy& strategy, StrategyStack& stack, std::function<void(OnStrategyStack&)> body)
        : strategy_(strategy), stack_(stack), body_(std::move(body)) {
        adopt_thread_context(outside_);
        prepare_context(inside_, stack.base, stack.limit(), &OnStrategyStack::run, this);
        if (!strategy_.suspended(stack_, inside_.sp)) _exit(104);
    }
    ~OnStrategyStack() {
        retire_context(inside_);
        retire_context(outside_);
    }
    OnStrategyStack(const OnStrategyStack&) = delete;
    OnStrategyStack& operator=(const OnStrategyStack&) = delete;

    void step_in() {
        strategy_.resuming(stack_);
        switch_context(outside_, inside_);
        if (!ended_ && !strategy_.suspended(stack_, inside_.sp)) _exit(104);
    }
    void step_out() { switch_context(inside_, outside_); }
    bool ended() const { return ended_; }

private:
    static void run(void* argument) {
        auto& self = *static_cast<OnStrategyStack*>(argument);
        self.body_(self);
        self.ended_ = true;
        switch_context(self.inside_, self.outside_, true);
        _exit(105);
    }

    StackStrategy& strategy_;
    StrategyStack& stack_;
    std::function<void(OnStrategyStack&)> body_;
    Context outside_;
    Context inside_;
    bool ended_ = false;
};

}  // namespace culm::testing
