// Finds out what the kernel offers by trying it on scratch pages: version numbers lie under containers and emulators.
//
// An advice that is accepted is not yet obeyed (qemu-user returns success for those it does not know), so each probe
// looks at the effect as well. A guard is looked at through a system call that writes, which fails without a signal.
// Invariant: a feature counts as present only if its effect was seen.
#include "culm/kernel.hpp"

#include <algorithm>
#include <span>

#include "culm/testing/overrides.hpp"
#include "os/os.hpp"

namespace culm {

namespace {

// Four scratch pages: guards on the first and third, so that a vector has two ranges.
class Scratch {
public:
    explicit Scratch(std::size_t page_bytes) noexcept : page_bytes_(page_bytes) {
        int error = 0;
        start_ = os::reserve(4 * page_bytes, os::Access::kReadWrite, error);
    }
    ~Scratch() {
        if (start_ != nullptr) os::release({start_, 4 * page_bytes_});
    }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

    explicit operator bool() const noexcept { return start_ != nullptr; }
    std::byte* page(std::size_t index) const noexcept { return start_ + index * page_bytes_; }
    os::Range range(std::size_t index) const noexcept { return {page(index), page_bytes_}; }

private:
    std::size_t page_bytes_;
    std::byte* start_ = nullptr;
};

bool guards_work(std::size_t page_bytes) noexcept {
    const Scratch scratch(page_bytes);
    if (!scratch) return false;
    if (os::install_guard(scratch.range(0)) != 0) return false;
    if (os::kernel_can_write(scratch.page(0))) return false;
    return os::kernel_can_write(scratch.page(1));
}

bool vectored_guards_work(std::size_t page_bytes, bool by_self_pidfd) noexcept {
    const Scratch scratch(page_bytes);
    if (!scratch) return false;
    const os::Range ranges[] = {scratch.range(0), scratch.range(2)};
    if (os::install_guards(ranges, by_self_pidfd).ranges != std::size(ranges)) return false;
    if (os::kernel_can_write(scratch.page(0))) return false;
    return !os::kernel_can_write(scratch.page(2));
}

bool vectored_discards_work(std::size_t page_bytes, bool by_self_pidfd) noexcept {
    const Scratch scratch(page_bytes);
    if (!scratch) return false;
    *scratch.page(0) = std::byte{1};
    *scratch.page(2) = std::byte{1};
    const os::Range ranges[] = {scratch.range(0), scratch.range(2)};
    if (os::discard_all(ranges, by_self_pidfd).ranges != std::size(ranges)) return false;
    if (*scratch.page(0) != std::byte{0}) return false;
    return *scratch.page(2) == std::byte{0};
}

bool pagemap_scan_works(std::size_t page_bytes) noexcept {
    const Scratch scratch(page_bytes);
    if (!scratch) return false;
    *scratch.page(1) = std::byte{1};
    os::Range runs[4];
    const os::PresentRuns present = os::scan_present(scratch.page(0), scratch.page(0) + 4 * page_bytes, runs);
    if (present.error != 0) return false;
    if (present.count != 1) return false;
    return runs[0].start == scratch.page(1) && runs[0].bytes == page_bytes;
}

KernelFeatures probe() noexcept {
    KernelFeatures found;
    found.page_bytes = os::page_bytes();
    found.overcommit_mode = static_cast<int>(os::read_number("/proc/sys/vm/overcommit_memory", 0));
    found.mappings_max = static_cast<std::size_t>(std::max(0L, os::read_number("/proc/sys/vm/max_map_count", 65530)));
    found.self_pidfd = vectored_discards_work(found.page_bytes, true);
    found.vectored_discard = found.self_pidfd || vectored_discards_work(found.page_bytes, false);
    if (guards_work(found.page_bytes)) {
        found.guard = GuardKind::kMadvise;
        found.vectored_guard = vectored_guards_work(found.page_bytes, found.self_pidfd);
    }
    found.pagemap_scan = pagemap_scan_works(found.page_bytes);
    return found;
}

KernelFeatures& features() noexcept {
    static KernelFeatures probed = probe();
    return probed;
}

}  // namespace

const KernelFeatures& kernel_features() noexcept { return features(); }

void override_kernel_features(const KernelFeatures& wanted) noexcept { features() = wanted; }

}  // namespace culm
