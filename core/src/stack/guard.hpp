// Putting a guard below each stack, by the best way the kernel offers.
//
// Invariant: a slot that guard_slots() counts as done faults on every access to its guard; there is no unguarded slot.
#pragma once

#include <cstddef>
#include <span>

#include "culm/result.hpp"
#include "os/os.hpp"

namespace culm::stack {

// Slots that lie one after the other, each with its guard at its low end.
struct SlotRun {
    std::byte* start = nullptr;
    std::size_t stride_bytes = 0;
    std::size_t guard_bytes = 0;
    std::size_t slots = 0;
    bool is_accessible = true;  // reserved readable and writable; otherwise without any access
};

// Makes slots usable and guarded, from the first on. Returns how many were done, at least one; an error only when none
// was. `scratch` holds at least as many ranges as there are slots.
Result<std::size_t> guard_slots(const SlotRun& run, std::span<os::Range> scratch) noexcept;

}  // namespace culm::stack
