// Memory on Linux: reservations, guards, discarding.
//
// Vectors go through process_madvise on ourselves, which needs a descriptor of our own process: PIDFD_SELF_PROCESS
// where the kernel knows it, else a pidfd that is opened once and again after fork.
// Invariant: a descriptor of the parent is never used in the child.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>

#include "os/fault_injection.hpp"
#include "os/linux_abi.hpp"
#include "os/os.hpp"

namespace culm {

namespace {

static_assert(sizeof(os::Range) == sizeof(iovec));
static_assert(offsetof(os::Range, start) == offsetof(iovec, iov_base));
static_assert(offsetof(os::Range, bytes) == offsetof(iovec, iov_len));

constexpr std::size_t kRangesPerCallMax = 512;  // more gains nothing; the kernel takes up to 1024

constinit std::atomic<int> own_pidfd{-1};

void forget_pidfd() noexcept {
    const int inherited = own_pidfd.exchange(-1);
    if (inherited >= 0) close(inherited);
}

// A descriptor of this process, or -1.
int self_pidfd() noexcept {
    const int known = own_pidfd.load(std::memory_order_acquire);
    if (known >= 0) return known;
    static const bool reopens_after_fork = os::at_fork(nullptr, nullptr, forget_pidfd) == 0;
    if (!reopens_after_fork || os::injected_error() != 0) return -1;
    const int opened = static_cast<int>(syscall(os::linux_abi::kSysPidfdOpen, getpid(), 0));
    if (opened < 0) return -1;
    int expected = -1;
    if (own_pidfd.compare_exchange_strong(expected, opened)) return opened;
    close(opened);
    return expected;
}

int access_flags(os::Access access) noexcept {
    return access == os::Access::kNone ? PROT_NONE : PROT_READ | PROT_WRITE;
}

int advise(os::Range range, int advice) noexcept {
    if (const int error = os::injected_error()) return error;
    return madvise(range.start, range.bytes, advice) == 0 ? 0 : errno;
}

// How many leading ranges `bytes` covers. A range that was done in part counts as not done: doing it again is harmless.
std::size_t ranges_covered(std::span<const os::Range> ranges, std::size_t bytes) noexcept {
    std::size_t covered = 0;
    for (const os::Range& range : ranges) {
        if (bytes < range.bytes) break;
        bytes -= range.bytes;
        ++covered;
    }
    return covered;
}

os::Progress advise_all(std::span<const os::Range> ranges, int advice, bool by_self_pidfd) noexcept {
    const int process = by_self_pidfd ? os::linux_abi::kPidfdSelfProcess : self_pidfd();
    if (process == -1) return {0, ENOSYS};
    os::Progress progress;
    while (progress.ranges < ranges.size()) {
        const auto rest = ranges.subspan(progress.ranges);
        const std::size_t count = std::min(rest.size(), kRangesPerCallMax);
        if (const int error = os::injected_error()) return {progress.ranges, error};
        const long advised = syscall(os::linux_abi::kSysProcessMadvise, process, rest.data(), count, advice, 0);
        if (advised < 0) return {progress.ranges, errno};
        const std::size_t covered = ranges_covered(rest.first(count), static_cast<std::size_t>(advised));
        // No progress without an error: stop here rather than ask for the same for ever.
        if (covered == 0) return {progress.ranges, EAGAIN};
        progress.ranges += covered;
    }
    return progress;
}

}  // namespace

std::byte* os::reserve(std::size_t bytes, Access access, int& error) noexcept {
    error = injected_error();
    if (error != 0) return nullptr;
    // Without access at first: under mlockall(MCL_FUTURE) the kernel would fill what can be accessed at once, to the
    // last of its gigabytes. The lock is taken off before access is given.
    void* start = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (start == MAP_FAILED) {
        error = errno;
        return nullptr;
    }
    const bool is_unlocked = munlock(start, bytes) == 0;
    if (access == Access::kReadWrite && (!is_unlocked || mprotect(start, bytes, access_flags(access)) != 0)) {
        error = errno;
        munmap(start, bytes);
        return nullptr;
    }
    return static_cast<std::byte*>(start);
}

void os::release(Range range) noexcept { munmap(range.start, range.bytes); }

int os::set_access(Range range, Access access) noexcept {
    if (const int error = injected_error()) return error;
    return mprotect(range.start, range.bytes, access_flags(access)) == 0 ? 0 : errno;
}

int os::reserve_again(Range range) noexcept {
    if (const int error = injected_error()) return error;
    void* start = mmap(range.start, range.bytes, PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK | MAP_FIXED, -1, 0);
    return start == MAP_FAILED ? errno : 0;
}

int os::install_guard(Range range) noexcept { return advise(range, linux_abi::kMadvGuardInstall); }

int os::remove_guard(Range range) noexcept { return advise(range, linux_abi::kMadvGuardRemove); }

int os::discard(Range range) noexcept { return advise(range, MADV_DONTNEED); }

os::Progress os::install_guards(std::span<const Range> ranges, bool by_self_pidfd) noexcept {
    return advise_all(ranges, linux_abi::kMadvGuardInstall, by_self_pidfd);
}

os::Progress os::discard_all(std::span<const Range> ranges, bool by_self_pidfd) noexcept {
    return advise_all(ranges, MADV_DONTNEED, by_self_pidfd);
}

void os::forbid_huge_pages(Range range) noexcept { static_cast<void>(advise(range, MADV_NOHUGEPAGE)); }

void os::leave_out_of_core_dumps(Range range) noexcept { static_cast<void>(advise(range, MADV_DONTDUMP)); }

int os::read_mincore(const std::byte* start, std::size_t page_bytes, std::span<unsigned char> pages) noexcept {
    if (const int error = injected_error()) return error;
    void* address = const_cast<std::byte*>(start);
    return mincore(address, pages.size() * page_bytes, pages.data()) == 0 ? 0 : errno;
}

}  // namespace culm
