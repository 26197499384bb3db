// What transparent huge pages would do to stacks: one byte that is touched takes 2 MB. They are allowed on some stacks,
// and left as the strategy has set them on others.
//
// The advice reverses what the strategy has asked for, as `always` would for one that has asked for nothing.
#include <cstdint>
#include <fstream>
#include <string>

#include "experiment.hpp"
#include "measure.hpp"
#include "raw_calls.hpp"

namespace culm::lab {

namespace {

std::string selected(const char* path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    const std::size_t from = line.find('[');
    const std::size_t to = line.find(']');
    return from == std::string::npos || to == std::string::npos ? line : line.substr(from + 1, to - from - 1);
}

double resident_per_stack(Stacks& stacks) {
    const MemoryUse before = memory_use();
    for (const StrategyStack& stack : stacks) touch_down(stack, 1);
    const MemoryUse after = memory_use();
    return static_cast<double>(after.resident - before.resident) / static_cast<double>(stacks.size());
}

}  // namespace

Answer huge_pages(const Request& request) {
    if (!request.strategy->traits().pointers_stay_valid) return unsupported("copying stacks run in one place");
    const std::string enabled = selected("/sys/kernel/mm/transparent_hugepage/enabled");
    if (enabled.empty()) return unsupported("this kernel has no transparent huge pages");
    const std::size_t count = request.count.value_or(64);
    Stacks as_built(*request.strategy);
    Stacks allowed(*request.strategy);
    for (Stacks* stacks : {&as_built, &allowed}) {
        if (const Result<void> created = stacks->create(request.limit_bytes, count); !created) {
            return unsupported(created.error());
        }
    }
    int refused = 0;
    for (const StrategyStack& stack : allowed) {
        const auto* edge = request.strategy->committed_limit(stack);
        auto* start = const_cast<std::byte*>(edge);
        const int error = raw_allow_huge_pages(start, static_cast<std::size_t>(stack.base - start));
        if (error != 0) refused = error;
    }
    const double built_bytes = resident_per_stack(as_built);
    const double allowed_bytes = resident_per_stack(allowed);
    Answer answer;
    answer.object.add("count", count)
        .add("enabled", enabled)
        .add("as_built_rss_bytes_per_stack", built_bytes)
        .add("allowed_rss_bytes_per_stack", allowed_bytes)
        .add("rss_bytes_per_stack", built_bytes)
        .add("advice", errno_name(refused));
    return answer;
}

}  // namespace culm::lab
