// What an idle stack occupies: its pages, its share of the page tables, its addresses.
//
// Before and after making `count` stacks of which `bytes` are used. A copying stack is suspended, as an idle one is.
#include "experiment.hpp"
#include "measure.hpp"

namespace culm::lab {

Answer idle(const Request& request) {
    const std::size_t count = request.count.value_or(1000);
    const std::size_t used_bytes = request.bytes.value_or(1024);
    const bool copies = !request.strategy->traits().pointers_stay_valid;
    if (used_bytes > request.limit_bytes) return unsupported("--bytes is larger than the limit");

    Stacks stacks(*request.strategy);
    // The first stack also makes what all of them share, such as a reservation or a helper thread: it is not counted.
    if (const Result<void> created = stacks.create(request.limit_bytes, 1); !created)
        return unsupported(created.error());
    touch_down(stacks[0], used_bytes);
    const MemoryUse before = memory_use();
    if (before.resident == 0) return unsupported("/proc is not mounted");
    if (const Result<void> created = stacks.create(request.limit_bytes, count); !created) {
        return unsupported(created.error());
    }
    for (std::size_t i = 1; i < stacks.size(); ++i) {
        touch_down(stacks[i], used_bytes);
        if (copies && !request.strategy->suspended(stacks[i], stacks[i].base - used_bytes)) {
            return unsupported("no memory for the copies");
        }
    }
    const MemoryUse after = memory_use();

    const auto per_stack = [count](std::int64_t bytes) {
        return static_cast<double>(bytes) / static_cast<double>(count);
    };
    Answer answer;
    answer.object.add("count", count)
        .add("limit_bytes", stacks[0].limit_bytes)
        .add("used_bytes", used_bytes)
        .add("rss_bytes_per_stack", per_stack(after.resident - before.resident))
        .add("page_table_bytes_per_stack", per_stack(after.page_tables - before.page_tables))
        .add("reserved_bytes_per_stack", per_stack(after.reserved - before.reserved));
    return answer;
}

}  // namespace culm::lab
