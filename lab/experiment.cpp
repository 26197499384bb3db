// What the experiments share: answers that say why not, the line before a danger, stacks that are given back.
#include "experiment.hpp"

#include <cstdio>
#include <cstring>

#include "measure.hpp"

namespace culm::lab {

Answer unsupported(std::string_view reason) {
    Answer answer;
    answer.object.add("unsupported", reason);
    return answer;
}

Answer unsupported(const Error& error) {
    const std::string reason = std::string(error.operation) + ": " + std::strerror(error.code) + "; " + error.advice;
    return unsupported(reason);
}

void announce(std::string_view danger) {
    JsonObject line;
    line.add("before", danger);
    std::puts(line.text().c_str());
    std::fflush(stdout);
}

Result<void> Stacks::create(std::size_t limit_bytes, std::size_t count) {
    const std::size_t before = stacks_.size();
    stacks_.resize(before + count);
    const Result<void> created = strategy_->create(limit_bytes, std::span(stacks_).subspan(before));
    if (!created) stacks_.resize(before);
    return created;
}

void Stacks::destroy() {
    if (stacks_.empty()) return;
    strategy_->destroy(stacks_);
    stacks_.clear();
}

void touch_down(const StrategyStack& stack, std::size_t bytes) {
    const std::size_t page = page_bytes();
    for (std::size_t depth = page; depth < bytes + page; depth += page) {
        *const_cast<volatile std::byte*>(stack.base - depth) = std::byte{1};
    }
}

}  // namespace culm::lab
