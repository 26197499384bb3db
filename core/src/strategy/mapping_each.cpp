// Mapping and unmapping stacks one by one.
#include "strategy/mapping_each.hpp"

namespace culm::strategy {

Result<void> MappingEach::create_rounded(std::size_t limit_bytes, std::span<StrategyStack> stacks) noexcept {
    if (Result<void> begun = begin(); !begun) return begun;
    for (std::size_t made = 0; made < stacks.size(); ++made) {
        int error = 0;
        std::byte* limit = map_stack(limit_bytes, guard_bytes(), error);
        if (limit != nullptr) {
            error = mapped({limit, limit_bytes});
            if (error != 0) os::release({limit - guard_bytes(), limit_bytes + guard_bytes()});
        }
        if (error != 0) {
            destroy(stacks.first(made));
            return no_stack(error);
        }
        stacks[made] = {limit + limit_bytes, limit_bytes, nullptr};
    }
    return {};
}

void MappingEach::destroy(std::span<const StrategyStack> stacks) noexcept {
    for (const StrategyStack& stack : stacks) {
        os::release({stack.limit() - guard_bytes(), stack.limit_bytes + guard_bytes()});
    }
}

std::size_t MappingEach::shrink(std::span<const SuspendedStrategyStack> stacks) noexcept {
    return discard_unused(stacks);
}

}  // namespace culm::strategy
