// Numbers of the Linux kernel interface that are newer than the headers we may be built with.
//
// They never change once released; whether the running kernel knows them is probed (kernel.hpp).
#pragma once

#include <linux/ioctl.h>

#include <cstdint>

namespace culm::os::linux_abi {

inline constexpr int kMadvGuardInstall = 102;     // Linux 6.13
inline constexpr int kMadvGuardRemove = 103;      // the same
inline constexpr int kPidfdSelfProcess = -10001;  // Linux 6.14
inline constexpr long kSysPidfdOpen = 434;        // the same on every architecture
inline constexpr long kSysProcessMadvise = 440;

// struct page_region and struct pm_scan_arg of linux/fs.h, Linux 6.7.
struct PageRegion {
    std::uint64_t start;
    std::uint64_t end;
    std::uint64_t categories;
};
struct PagemapScan {
    std::uint64_t size;
    std::uint64_t flags;
    std::uint64_t start;
    std::uint64_t end;
    std::uint64_t walk_end;
    std::uint64_t vec;
    std::uint64_t vec_len;
    std::uint64_t max_pages;
    std::uint64_t category_inverted;
    std::uint64_t category_mask;
    std::uint64_t category_anyof_mask;
    std::uint64_t return_mask;
};
static_assert(sizeof(PagemapScan) == 96);
inline constexpr unsigned long kPagemapScan = _IOWR('f', 16, PagemapScan);
inline constexpr std::uint64_t kPageIsPresent = 1u << 3;

inline constexpr std::uint64_t kPagemapEntryPresent = std::uint64_t{1} << 63;

}  // namespace culm::os::linux_abi
