// The list of all strategies, and finding one by its name.
//
// Invariant: the order here is the order in which the lab's tables show them.
#include "strategies/strategies.hpp"

#include <algorithm>
#include <vector>

namespace culm::lab::strategies {

std::span<StackStrategy* const> all() noexcept {
    static const std::vector<StackStrategy*> strategies = [] {
        const auto of_core = stack_strategies();
        std::vector<StackStrategy*> listed(of_core.begin(), of_core.end());
        const auto of_lab = {&bare_mmap(),   &fault_thread(), &growsdown(),  &one_block(),
                             &userfaultfd(), &copying(),      &fixed_small()};
        listed.insert(listed.end(), of_lab.begin(), of_lab.end());
        return listed;
    }();
    return strategies;
}

StackStrategy* find(std::string_view id) noexcept {
    const auto strategies = all();
    const auto found = std::find_if(strategies.begin(), strategies.end(),
                                    [id](const StackStrategy* strategy) { return id == strategy->id(); });
    return found == strategies.end() ? nullptr : *found;
}

std::string ids() {
    std::string list;
    for (const StackStrategy* strategy : all()) list += (list.empty() ? "" : ", ") + std::string(strategy->id());
    return list;
}

}  // namespace culm::lab::strategies
