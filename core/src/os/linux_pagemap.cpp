// /proc/self/pagemap: which pages are present.
//
// The descriptor stays bound to the memory of the process that opened it, so the child of a fork opens its own. A
// program may also close descriptors it does not know (daemons do) and reuse the number, so the file behind it is
// checked at each use.
// Invariant: what is read comes from the pagemap of the calling process.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>

#include "os/fault_injection.hpp"
#include "os/linux_abi.hpp"
#include "os/os.hpp"

namespace culm {

namespace {

constinit std::atomic<int> pagemap_fd{-1};
constinit std::atomic<std::uint64_t> pagemap_device{0};
constinit std::atomic<std::uint64_t> pagemap_inode{0};

// The quirk that forbids more: with longer vectors the kernel returns regions beyond walk_end.
constexpr std::size_t kRunsPerScanMax = 512;

bool is_our_pagemap(int fd) noexcept {
    struct stat status {};
    if (fstat(fd, &status) != 0) return false;
    return status.st_ino == pagemap_inode.load(std::memory_order_relaxed) &&
           status.st_dev == pagemap_device.load(std::memory_order_relaxed);
}

void forget_pagemap() noexcept {
    const int inherited = pagemap_fd.exchange(-1);
    if (inherited >= 0 && is_our_pagemap(inherited)) close(inherited);
}

int open_pagemap(int& error) noexcept {
    static const bool reopens_after_fork = os::at_fork(nullptr, nullptr, forget_pagemap) == 0;
    if (!reopens_after_fork) {
        error = ENOMEM;
        return -1;
    }
    const int opened = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    struct stat status {};
    if (opened < 0 || fstat(opened, &status) != 0) {
        error = errno;
        return -1;
    }
    pagemap_inode.store(status.st_ino, std::memory_order_relaxed);
    pagemap_device.store(status.st_dev, std::memory_order_relaxed);
    int expected = -1;
    if (pagemap_fd.compare_exchange_strong(expected, opened)) return opened;
    close(opened);  // another thread was faster
    return expected;
}

// The pagemap, opened if need be; -1 with the reason in `error`.
int pagemap(int& error) noexcept {
    const int known = pagemap_fd.load(std::memory_order_acquire);
    if (known >= 0 && is_our_pagemap(known)) return known;
    // The number, if any, belongs to somebody else now: forget it without closing it.
    int expected = known;
    pagemap_fd.compare_exchange_strong(expected, -1);
    return open_pagemap(error);
}

}  // namespace

os::PresentRuns os::scan_present(std::byte* start, std::byte* end, std::span<Range> runs) noexcept {
    PresentRuns result;
    result.scanned_until = start;
    result.error = injected_error();
    if (result.error != 0) return result;
    const int fd = pagemap(result.error);
    if (fd < 0) return result;

    constexpr std::size_t kRegionsMax = 64;  // they lie on the caller's stack, which may be a fiber's
    static_assert(kRegionsMax <= kRunsPerScanMax);
    linux_abi::PageRegion regions[kRegionsMax] = {};  // valgrind does not know that the call fills them
    linux_abi::PagemapScan scan{};
    scan.size = sizeof(scan);
    scan.start = reinterpret_cast<std::uintptr_t>(start);
    scan.end = reinterpret_cast<std::uintptr_t>(end);
    scan.vec = reinterpret_cast<std::uintptr_t>(regions);
    scan.vec_len = std::min(runs.size(), kRegionsMax);
    scan.category_mask = linux_abi::kPageIsPresent;
    scan.return_mask = linux_abi::kPageIsPresent;
    const int found = ioctl(fd, linux_abi::kPagemapScan, &scan);
    if (found < 0) {
        result.error = errno;
        return result;
    }
    std::uint64_t until = scan.walk_end;
    for (int i = 0; i < found; ++i) {
        runs[result.count++] = {reinterpret_cast<void*>(regions[i].start),
                                static_cast<std::size_t>(regions[i].end - regions[i].start)};
        until = std::max(until, regions[i].end);
    }
    result.scanned_until = reinterpret_cast<std::byte*>(until);
    return result;
}

int os::read_pagemap(const std::byte* start, std::size_t page_bytes, std::span<std::uint64_t> entries) noexcept {
    if (const int error = injected_error()) return error;
    int error = 0;
    const int fd = pagemap(error);
    if (fd < 0) return error;
    const auto page = reinterpret_cast<std::uintptr_t>(start) / page_bytes;
    const ssize_t got = pread(fd, entries.data(), entries.size_bytes(), static_cast<off_t>(page * sizeof(entries[0])));
    if (got < 0) return errno;
    return static_cast<std::size_t>(got) == entries.size_bytes() ? 0 : EIO;
}

bool os::pagemap_entry_is_present(std::uint64_t entry) noexcept {
    return (entry & linux_abi::kPagemapEntryPresent) != 0;
}

}  // namespace culm
