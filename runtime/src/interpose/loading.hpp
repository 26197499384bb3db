// Keeping up with objects that are loaded after install().
#pragma once

#include <atomic>

namespace culm::runtime::interpose {

// Looks that are still to be made for what a dlopen brought. Set by the hook of dlopen, counted down by the parks.
inline constinit std::atomic<unsigned> looks_after_load{0};

// Patches what was loaded since the last time, if anything was.
void look_for_loaded() noexcept;

// At each park: one load when nothing was opened lately.
inline void patch_what_was_loaded() noexcept {
    if (looks_after_load.load(std::memory_order_relaxed) != 0) [[unlikely]]
        look_for_loaded();
}

}  // namespace culm::runtime::interpose
