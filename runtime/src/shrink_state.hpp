// What the shrinkers of all schedulers share.
// Invariant: kept_excess_bytes is the sum of what each shrinker has in its list of kept fibers.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace culm::runtime::detail {

extern constinit std::atomic<std::uint64_t> shrink_settings_version;
extern constinit std::atomic<std::size_t> kept_excess_bytes;

}  // namespace culm::runtime::detail
