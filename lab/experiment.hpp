// What an experiment is given and what it answers. One file per experiment; main.cpp has the table.
//
// Invariant: an experiment changes nothing outside its own process.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "culm/stack_strategy.hpp"
#include "json.hpp"

namespace culm::lab {

enum class Stride { kOdd, kPowerOfTwo };

struct Request {
    std::string experiment;
    StackStrategy* strategy = nullptr;  // with --locked: the locked one
    bool locked = false;
    std::size_t limit_bytes = 0;
    std::optional<std::size_t> count;
    std::optional<std::size_t> pages;
    std::optional<std::size_t> bytes;
    Stride stride = Stride::kOdd;
    std::string switch_id = "assembly";
};

// The result line; `unsupported` says why the strategy or this kernel cannot do it.
struct Answer {
    JsonObject object;
};
Answer unsupported(std::string_view reason);
Answer unsupported(const Error& error);
// Flushes {"before": "..."}: what follows may kill this process.
void announce(std::string_view danger);

Answer inventory();  // the command `strategies`
Answer lifecycle(const Request& request);
Answer ceiling(const Request& request);
Answer idle(const Request& request);
Answer growth(const Request& request);
Answer shrink(const Request& request);
Answer kernel_write(const Request& request);
Answer overflow_small(const Request& request);
Answer overflow_large(const Request& request);
Answer growsdown(const Request& request);
Answer fork_cost(const Request& request);
Answer switch_cost(const Request& request);
Answer huge_pages(const Request& request);
Answer locked_memory(const Request& request);

// Stacks of one strategy, given back at the end.
class Stacks {
public:
    explicit Stacks(StackStrategy& strategy) : strategy_(&strategy) {}
    ~Stacks() { destroy(); }
    Stacks(const Stacks&) = delete;
    Stacks& operator=(const Stacks&) = delete;
    Stacks(Stacks&& other) noexcept : strategy_(other.strategy_), stacks_(std::move(other.stacks_)) {
        other.stacks_.clear();
    }

    Result<void> create(std::size_t limit_bytes, std::size_t count);
    void destroy();
    StrategyStack& operator[](std::size_t index) { return stacks_[index]; }
    std::size_t size() const { return stacks_.size(); }
    auto begin() { return stacks_.begin(); }
    auto end() { return stacks_.end(); }

private:
    StackStrategy* strategy_;
    std::vector<StrategyStack> stacks_;
};

// Writes one byte into each page from the base down to `bytes` below it.
void touch_down(const StrategyStack& stack, std::size_t bytes);

}  // namespace culm::lab
