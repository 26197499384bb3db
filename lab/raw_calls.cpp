// Bare madvise and mmap.
#include "raw_calls.hpp"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>

namespace culm::lab {

namespace {

// Newer than the headers we may be built with; they never change.
constexpr int kMadvDontneedLocked = 24;
constexpr int kMadvGuardInstall = 102;

int advise(std::byte* start, std::size_t bytes, int advice) { return madvise(start, bytes, advice) == 0 ? 0 : errno; }

}  // namespace

const char* errno_name(int error) {
    switch (error) {
        case 0:
            return "ok";
        case EINVAL:
            return "EINVAL";
        case ENOMEM:
            return "ENOMEM";
        case EPERM:
            return "EPERM";
        case EAGAIN:
            return "EAGAIN";
        case EEXIST:
            return "EEXIST";
        default:
            return std::strerror(error);
    }
}

int raw_discard(std::byte* start, std::size_t bytes) { return advise(start, bytes, MADV_DONTNEED); }

int raw_discard_locked(std::byte* start, std::size_t bytes) { return advise(start, bytes, kMadvDontneedLocked); }

int raw_install_guard(std::byte* start, std::size_t bytes) { return advise(start, bytes, kMadvGuardInstall); }

int raw_allow_huge_pages(std::byte* start, std::size_t bytes) { return advise(start, bytes, MADV_HUGEPAGE); }

int raw_map_at(std::byte* start, std::size_t bytes) {
    void* mapped = mmap(start, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (mapped == MAP_FAILED) return errno;
    if (mapped == start) return 0;
    munmap(mapped, bytes);
    return EEXIST;
}

}  // namespace culm::lab
