// Keeping up with objects that are loaded after install().
#pragma once

#include <atomic>

namespace culm::runtime::interpose {

// How many of the next parks search for objects that a dlopen has brought. Set by the hook of dlopen; each park counts
// it down.
inline constinit std::atomic<unsigned> parks_after_load{0};

// Patches what was loaded since the last time, if anything was.
void patch_newly_loaded() noexcept;

// At each park: one load when nothing was opened lately.
inline void patch_what_was_loaded() noexcept {
    if (parks_after_load.load(std::memory_order_relaxed) != 0) [[unlikely]]
        patch_newly_loaded();
}

}  // namespace culm::runtime::interpose
