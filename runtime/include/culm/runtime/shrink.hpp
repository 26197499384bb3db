// When the memory of parked fibers goes back to the system: the settings, one set for the process, and the counters.
//
// A fiber that has been parked for `after_ns` since it last ran is looked at once: what lies in memory below its stack
// pointer, less one spare page, is its excess. The excess is given back when the scheduler has been idle for as long,
// when all fibers of the process together keep more than the budget, or when memory is short. All of it happens in
// slices of bounded size between two fibers, never in a switch.
// Invariant: of a fiber that runs, and of an OS thread's own stack, nothing is ever given back.
#pragma once

#include <cstddef>
#include <cstdint>

#include "culm/runtime/clock.hpp"

namespace culm::runtime {

struct ShrinkSettings {
    // Idle age of a fiber; of the scheduler, before it gives back everything. kNever: only under pressure or by trim().
    // Measured in eighths: it may take one eighth longer. Less than a millisecond counts as one.
    std::int64_t after_ns = 1'000'000'000;
    // Excess that all fibers of the process may keep while their threads are busy.
    std::size_t budget_bytes = std::size_t{32} << 20;
    // Memory that the free stacks of one thread may keep.
    std::size_t pool_budget_bytes = std::size_t{64} << 20;
    // Give everything back at once, whatever its age, when memory is short.
    bool react_to_pressure = true;
    // Stacks are given back whole when a fiber ends, so that a peak never includes what an earlier fiber has touched.
    // Costs some microseconds for each fiber.
    bool exact_peaks = false;

    bool operator==(const ShrinkSettings&) const = default;
};

// Thread-safe. The settings in force, for every scheduler that is or will be.
ShrinkSettings shrink_settings() noexcept;
// The calling thread's scheduler follows at once, others when they next look at timers and requests; idle ones are
// woken for it.
void set_shrink_settings(const ShrinkSettings& settings) noexcept;

struct ShrinkStatistics {
    std::uint64_t slices = 0;
    std::uint64_t visited = 0;  // fibers looked at
    std::uint64_t shrunk = 0;   // fibers that gave something back
    std::uint64_t ranges = 0;   // given to the kernel
    std::uint64_t refused = 0;  // of these, kept by it: locked memory
    std::uint64_t bytes = 0;    // given back
    std::uint64_t cpu_ns = 0;   // spent on all of it
    std::uint64_t pressure_events = 0;
    std::size_t kept_bytes = 0;  // excess that is known and has not been given back
};

// Excess kept by all schedulers of the process. Thread-safe.
std::size_t kept_excess_bytes() noexcept;

}  // namespace culm::runtime
