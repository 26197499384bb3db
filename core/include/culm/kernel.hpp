// What the kernel under us offers, probed once at start. Everything that depends on a kernel version asks here.
#pragma once

#include <cstddef>
#include <cstdint>

namespace culm {

enum class GuardKind : std::uint8_t {
    kMadvise,   // MADV_GUARD_INSTALL, Linux 6.13: no extra mapping, survives MADV_DONTNEED and fork
    kMprotect,  // mprotect(PROT_NONE): two mappings per stack, counted against vm.max_map_count
};

struct KernelFeatures {
    std::size_t page_bytes = 4096;
    GuardKind guard = GuardKind::kMprotect;
    bool vectored_guard = false;       // process_madvise(self, MADV_GUARD_INSTALL) accepts vectors
    bool vectored_discard = false;     // process_madvise(self, MADV_DONTNEED) accepts vectors
    bool self_pidfd = false;           // PIDFD_SELF_PROCESS is understood; otherwise a pidfd is opened
    bool pagemap_scan = false;         // ioctl PAGEMAP_SCAN, Linux 6.7
    int overcommit_mode = 0;           // vm.overcommit_memory; 2 means that reservations are charged
    std::size_t mappings_max = 65530;  // vm.max_map_count
};

// Probed at the first call, the same afterwards. Never fails: what cannot be probed counts as absent.
const KernelFeatures& kernel_features() noexcept;

}  // namespace culm
