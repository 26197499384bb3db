// How many stacks there can be, and with what error the next one is refused.
//
// Stacks are made and their base pages touched until the strategy refuses one or `count` is reached. For the strategy
// that allocates one block for all stacks, a single block is asked for, twice as large each time, because it is the
// block that is refused.
#include <cerrno>
#include <cstring>

#include "experiment.hpp"
#include "measure.hpp"

namespace culm::lab {

namespace {

constexpr std::size_t kUsualCount = 100'000;
constexpr std::size_t kBatch = 64;

const char* name_of(int error) {
    switch (error) {
        case ENOMEM:
            return "ENOMEM";
        case EINVAL:
            return "EINVAL";
        case EAGAIN:
            return "EAGAIN";
        case EPERM:
            return "EPERM";
        default:
            return std::strerror(error);
    }
}

struct Attempt {
    std::size_t stacks = 0;
    Error refusal;
};

Attempt one_by_one(Stacks& stacks, std::size_t limit_bytes, std::size_t count) {
    Attempt attempt;
    std::size_t batch = kBatch;
    while (attempt.stacks < count) {
        batch = std::min(batch, count - attempt.stacks);
        const Result<void> created = stacks.create(limit_bytes, batch);
        if (created) {
            for (std::size_t i = 0; i < batch; ++i) touch_down(stacks[attempt.stacks + i], 1);
            attempt.stacks += batch;
            continue;
        }
        attempt.refusal = created.error();
        if (batch == 1) break;
        batch /= 2;
    }
    return attempt;
}

// The largest block that can be had, to within an eighth.
Attempt as_one_block(StackStrategy& strategy, std::size_t limit_bytes, std::size_t count) {
    Attempt attempt;
    std::size_t step = 1;
    for (std::size_t asked = 1; asked <= count; asked += step) {
        Stacks block(strategy);
        const Result<void> created = block.create(limit_bytes, asked);
        if (!created) {
            attempt.refusal = created.error();
            break;
        }
        attempt.stacks = asked;
        step = std::max<std::size_t>(1, asked / 8);
    }
    return attempt;
}

}  // namespace

Answer ceiling(const Request& request) {
    const std::size_t count = request.count.value_or(kUsualCount);
    Stacks stacks(*request.strategy);
    const bool is_one_block = std::string_view(request.strategy->id()) == "one-block";
    const Attempt attempt = is_one_block ? as_one_block(*request.strategy, request.limit_bytes, count)
                                         : one_by_one(stacks, request.limit_bytes, count);
    const bool refused = attempt.refusal.code != 0;
    const std::size_t mappings = mapping_count();
    Answer answer;
    answer.object.add("stacks", attempt.stacks)
        .add("stopped_by", refused ? "error" : "count")
        .add("errno_name", refused ? name_of(attempt.refusal.code) : nullptr);
    const std::string message = std::string(attempt.refusal.operation) + ": " + attempt.refusal.advice;
    answer.object.add("message", refused ? message.c_str() : nullptr).add("mappings", mappings);
    return answer;
}

}  // namespace culm::lab
