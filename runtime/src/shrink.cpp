// The settings of shrinking and what the whole process keeps.
//
// Each setting is an atomic of its own: a scheduler that reads while they change sees some of the old ones for a
// moment, and the version, written last, makes it read again.
#include "culm/runtime/shrink.hpp"

#include <atomic>

#include "scheduler_registry.hpp"
#include "shrink_state.hpp"

namespace culm::runtime {

namespace {

constexpr ShrinkSettings kDefaults;

std::atomic<std::int64_t> after_ns{kDefaults.after_ns};
std::atomic<std::size_t> budget_bytes{kDefaults.budget_bytes};
std::atomic<std::size_t> pool_budget_bytes{kDefaults.pool_budget_bytes};
std::atomic<bool> react_to_pressure{kDefaults.react_to_pressure};
std::atomic<bool> exact_peaks{kDefaults.exact_peaks};

}  // namespace

constinit std::atomic<std::uint64_t> detail::shrink_settings_version{1};
constinit std::atomic<std::size_t> detail::kept_excess_bytes{0};

ShrinkSettings shrink_settings() noexcept {
    ShrinkSettings settings;
    settings.after_ns = after_ns.load(std::memory_order_relaxed);
    settings.budget_bytes = budget_bytes.load(std::memory_order_relaxed);
    settings.pool_budget_bytes = pool_budget_bytes.load(std::memory_order_relaxed);
    settings.react_to_pressure = react_to_pressure.load(std::memory_order_relaxed);
    settings.exact_peaks = exact_peaks.load(std::memory_order_relaxed);
    return settings;
}

void set_shrink_settings(const ShrinkSettings& settings) noexcept {
    after_ns.store(settings.after_ns, std::memory_order_relaxed);
    budget_bytes.store(settings.budget_bytes, std::memory_order_relaxed);
    pool_budget_bytes.store(settings.pool_budget_bytes, std::memory_order_relaxed);
    react_to_pressure.store(settings.react_to_pressure, std::memory_order_relaxed);
    exact_peaks.store(settings.exact_peaks, std::memory_order_relaxed);
    detail::shrink_settings_version.fetch_add(1, std::memory_order_release);
    SchedulerRegistry::get().follow_settings();
}

std::size_t kept_excess_bytes() noexcept { return detail::kept_excess_bytes.load(std::memory_order_relaxed); }

}  // namespace culm::runtime
