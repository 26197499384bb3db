// Opening and closing yellow zones.
//
// A zone is closed as its guard is: by markers in the page table, or by taking the access away. Opening undoes both,
// because which of the two it was is recorded nowhere; on memory that is accessible already the second call changes
// nothing. Beside a guard made by mprotect, neither direction costs a mapping.
// Invariant: what is here touches no lock and no heap: the fault handler calls it.
#include <algorithm>
#include <atomic>
#include <cerrno>

#include "culm/kernel.hpp"
#include "culm/overflow.hpp"
#include "os/os.hpp"
#include "stack/chunk_table.hpp"

namespace culm {

namespace {

// Stacks that were given back with an open zone. More than this, or refused for longer, and their next user has no
// second chance; the guard it has in any case.
constexpr std::size_t kLeftOpenMax = 64;
constinit std::atomic<std::byte*> left_open[kLeftOpenMax]{};
constinit std::atomic<std::size_t> left_open_count{0};

// So much of the zone; empty for a stack that is not an arena's.
os::Range zone_of(const Stack& stack, YellowZone wanted) noexcept {
    const stack::Place place = stack::place_of(stack.limit());
    if (place.stack.base != stack.base) return {};
    const std::size_t bytes = wanted == YellowZone::kHalfOpen ? place.yellow_bytes / 2 : place.yellow_bytes;
    return {stack.limit() - bytes, bytes};
}

}  // namespace

std::size_t yellow_zone_bytes(const Stack& stack) noexcept { return zone_of(stack, YellowZone::kOpen).bytes; }

bool open_yellow_zone(const Stack& stack, YellowZone wanted) noexcept {
    const os::Range zone = zone_of(stack, wanted);
    if (zone.start == nullptr) return false;
    if (kernel_features().guard == GuardKind::kMadvise && os::remove_guard(zone) != 0) return false;
    return os::set_access(zone, os::Access::kReadWrite) == 0;
}

bool close_yellow_zone(const Stack& stack) noexcept {
    const os::Range zone = zone_of(stack, YellowZone::kOpen);
    if (zone.start == nullptr) return false;
    if (kernel_features().guard == GuardKind::kMadvise) {
        const int error = os::install_guard(zone);
        if (error == 0) return true;
        if (error != EINVAL) return false;  // EINVAL: locked memory, where only the other way works
    }
    return os::set_access(zone, os::Access::kNone) == 0;
}

void leave_yellow_zone_open(const Stack& stack) noexcept {
    for (std::atomic<std::byte*>& entry : left_open) {
        std::byte* none = nullptr;
        if (!entry.compare_exchange_strong(none, stack.base)) continue;
        left_open_count.fetch_add(1);
        return;
    }
}

bool take_over_open_yellow_zone(const Stack& stack) noexcept {
    if (left_open_count.load(std::memory_order_relaxed) == 0) [[likely]]
        return false;
    for (std::atomic<std::byte*>& entry : left_open) {
        std::byte* wanted = stack.base;
        if (!entry.compare_exchange_strong(wanted, nullptr)) continue;
        left_open_count.fetch_sub(1);
        return true;
    }
    return false;
}

}  // namespace culm
