// The counter behind the budget.
#include "stack/mapping_budget.hpp"

#include <atomic>

#include "culm/kernel.hpp"
#include "os/os.hpp"

namespace culm {

namespace {

constinit std::atomic<std::size_t> mappings_used{0};

std::size_t mappings_allowed() noexcept {
    static const std::size_t allowed = [] {
        const std::size_t limit = kernel_features().mappings_max;
        const std::size_t current = os::mapping_count();
        return limit > current ? (limit - current) / 2 : 0;
    }();
    return allowed;
}

}  // namespace

bool stack::charge_mappings(std::size_t count) noexcept {
    if (count == 0) return true;
    const std::size_t before = mappings_used.fetch_add(count, std::memory_order_relaxed);
    if (before + count <= mappings_allowed()) return true;
    mappings_used.fetch_sub(count, std::memory_order_relaxed);
    return false;
}

void stack::refund_mappings(std::size_t count) noexcept { mappings_used.fetch_sub(count, std::memory_order_relaxed); }

}  // namespace culm
