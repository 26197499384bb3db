// Mappings that grow down, locked memory and userfaultfd on Linux.
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "os/fault_injection.hpp"
#include "strategies/growth.hpp"

namespace culm::lab::strategies {

namespace {

constexpr int kAnonymous = MAP_PRIVATE | MAP_ANONYMOUS;

// Numbers that are newer than the headers we may be built with. They never change.
constexpr int kMadvDontneedLocked = 24;      // Linux 5.18
constexpr int kUserfaultfdUserModeOnly = 1;  // Linux 5.11

// What the kernel copies into a missing page. Never written, so it costs no memory.
alignas(4096) constinit std::byte zeroes[65536] = {};

}  // namespace

std::byte* reserve_near(std::byte* wanted, std::size_t bytes, int& error) noexcept {
    error = os::injected_error();
    if (error != 0) return nullptr;
    void* start = mmap(wanted, bytes, PROT_NONE, kAnonymous | MAP_NORESERVE, -1, 0);
    if (start != MAP_FAILED) return static_cast<std::byte*>(start);
    error = errno;
    return nullptr;
}

int map_growing_down(Range range) noexcept {
    if (const int error = os::injected_error()) return error;
    void* start = mmap(range.start, range.bytes, PROT_READ | PROT_WRITE,
                       kAnonymous | MAP_STACK | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE, -1, 0);
    if (start == MAP_FAILED) return errno;
    if (start == range.start) return 0;
    munmap(start, range.bytes);  // a kernel before 4.17 takes the address for a hint
    return EEXIST;
}

std::size_t growing_down_bytes_max() noexcept {
    rlimit limit{};
    if (getrlimit(RLIMIT_STACK, &limit) != 0) return 0;
    return limit.rlim_cur == RLIM_INFINITY ? SIZE_MAX : static_cast<std::size_t>(limit.rlim_cur);
}

// The advice is the default; the kernel says ENOMEM when part of the range is no mapping.
bool is_mapped(Range range) noexcept { return madvise(range.start, range.bytes, MADV_NORMAL) == 0; }

int lock_on_fault(Range range) noexcept {
    if (const int error = os::injected_error()) return error;
    return mlock2(range.start, range.bytes, MLOCK_ONFAULT) == 0 ? 0 : errno;
}

void unlock_memory(Range range) noexcept { munlock(range.start, range.bytes); }

int discard_locked(Range range) noexcept {
    if (const int error = os::injected_error()) return error;
    return madvise(range.start, range.bytes, kMadvDontneedLocked) == 0 ? 0 : errno;
}

int open_userfaultfd(bool user_mode_only, int& error) noexcept {
    error = os::injected_error();
    if (error != 0) return -1;
    const int flags = O_CLOEXEC | (user_mode_only ? kUserfaultfdUserModeOnly : 0);
    const int fd = static_cast<int>(syscall(SYS_userfaultfd, flags));
    uffdio_api api{};
    api.api = UFFD_API;
    if (fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0) return fd;
    error = errno;
    if (fd >= 0) close(fd);
    return -1;
}

int watch_missing_pages(int fd, Range range) noexcept {
    if (const int error = os::injected_error()) return error;
    uffdio_register wanted{};
    wanted.range.start = reinterpret_cast<std::uintptr_t>(range.start);
    wanted.range.len = range.bytes;
    wanted.mode = UFFDIO_REGISTER_MODE_MISSING;
    return ioctl(fd, UFFDIO_REGISTER, &wanted) == 0 ? 0 : errno;
}

bool next_missing_page(int fd, void*& address) noexcept {
    for (;;) {
        uffd_msg message{};
        const ssize_t got = read(fd, &message, sizeof(message));
        if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (got != static_cast<ssize_t>(sizeof(message))) return false;
        if (message.event != UFFD_EVENT_PAGEFAULT) continue;
        address = reinterpret_cast<void*>(message.arg.pagefault.address);
        return true;
    }
}

int fill_missing_page(int fd, void* page, std::size_t page_bytes) noexcept {
    uffdio_copy copy{};
    copy.dst = reinterpret_cast<std::uintptr_t>(page);
    copy.src = reinterpret_cast<std::uintptr_t>(zeroes);
    copy.len = page_bytes;
    if (ioctl(fd, UFFDIO_COPY, &copy) == 0) return 0;
    const int error = errno;
    // The page cannot be filled. Whoever waits for it is woken and tries again: either the page is there by now
    // (EEXIST), or the fault is reported once more.
    uffdio_range range{reinterpret_cast<std::uintptr_t>(page), page_bytes};
    ioctl(fd, UFFDIO_WAKE, &range);
    return error;
}

void close_descriptor(int fd) noexcept { close(fd); }

}  // namespace culm::lab::strategies
