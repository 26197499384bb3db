// Guards: by MADV_GUARD_INSTALL in vectors, one by one where vectors are not taken, by mprotect where it is unknown or
// refused (locked memory).
//
// A guard made by mprotect splits the mapping: two more mappings per stack, charged to the budget of all stacks.
// Invariant: no access is changed before the mappings it costs have been charged.
#include "stack/guard.hpp"

#include <cassert>
#include <cerrno>

#include "culm/kernel.hpp"
#include "stack/mapping_budget.hpp"

namespace culm {

namespace {

constexpr std::size_t kMappingsPerGuard = 2;

Error out_of_mappings() noexcept {
    return {ENOMEM, "install a stack's guard",
            "the guards on this kernel use two mappings each: raise vm.max_map_count, run fewer fibers at once, or use "
            "Linux 6.13 or newer, where guards need no mappings"};
}

os::Range guard_of(const stack::SlotRun& run, std::size_t slot) noexcept {
    return {run.start + slot * run.stride_bytes, run.guard_bytes};
}

// Changes the access of one range, which costs mappings.
Result<void> set_access_charged(os::Range range, os::Access access, Error refused) noexcept {
    if (!stack::charge_mappings(kMappingsPerGuard)) return out_of_mappings();
    const int error = os::set_access(range, access);
    if (error == 0) return {};
    stack::refund_mappings(kMappingsPerGuard);
    refused.code = error;
    return refused;
}

Result<void> guard_by_mapping(os::Range guard) noexcept {
    return set_access_charged(guard, os::Access::kNone, out_of_mappings());
}

// One slot of memory that is accessible already.
Result<void> guard_one(const stack::SlotRun& run, std::size_t slot) noexcept {
    const os::Range guard = guard_of(run, slot);
    if (kernel_features().guard == GuardKind::kMadvise) {
        const int error = os::install_guard(guard);
        if (error == 0) return {};
        // EINVAL is what locked memory (mlockall) answers: mprotect works there.
        if (error != EINVAL) {
            return Error{error, "install a stack's guard", "free memory, or run fewer fibers at once"};
        }
    }
    return guard_by_mapping(guard);
}

// One slot of a reservation without access: opening the stack leaves its guard closed.
Result<void> open_one(const stack::SlotRun& run, std::size_t slot) noexcept {
    std::byte* limit = run.start + slot * run.stride_bytes + run.guard_bytes;
    return set_access_charged({limit, run.stride_bytes - run.guard_bytes}, os::Access::kReadWrite,
                              Error{ENOMEM, "commit a stack",
                                    "strict overcommit (vm.overcommit_memory=2) charges the whole limit of each stack: "
                                    "use a smaller stack limit, or raise vm.overcommit_ratio"});
}

std::size_t guard_vectored(const stack::SlotRun& run, std::span<os::Range> scratch) noexcept {
    for (std::size_t slot = 0; slot < run.slots; ++slot) scratch[slot] = guard_of(run, slot);
    return os::install_guards(scratch.first(run.slots), kernel_features().self_pidfd).ranges;
}

}  // namespace

Result<std::size_t> stack::guard_slots(const SlotRun& run, std::span<os::Range> scratch) noexcept {
    assert(run.slots > 0);
    assert(run.slots <= scratch.size());
    std::size_t done = 0;
    const KernelFeatures& features = kernel_features();
    const bool by_vector = run.is_accessible && features.guard == GuardKind::kMadvise && features.vectored_guard;
    if (by_vector) done = guard_vectored(run, scratch);
    // What the call with a vector has not done, if anything, is done one by one: there more ways can be tried.
    for (; done < run.slots; ++done) {
        const Result<void> guarded = run.is_accessible ? guard_one(run, done) : open_one(run, done);
        if (guarded) continue;
        if (done > 0) return done;
        return guarded.error();
    }
    return done;
}

}  // namespace culm
