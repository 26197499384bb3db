// Reads /proc/self/maps line by line; only the addresses and the protection at the start of each line matter. Without
// /proc, the program headers of what is loaded: its segments, and the parts that the loader protects after relocating.
#include "memory_map.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

namespace culm::runtime::interpose {

// "7f0c8a000000-7f0c8a021000 rw-p 00000000 00:00 0 ..."
void MemoryMap::parse_line(const char* line) noexcept {
    char* rest = nullptr;
    const std::uintptr_t start = std::strtoul(line, &rest, 16);
    if (*rest != '-') return;
    const std::uintptr_t end = std::strtoul(rest + 1, &rest, 16);
    if (*rest != ' ') return;
    const int protection =
        (rest[1] == 'r' ? PROT_READ : 0) | (rest[2] == 'w' ? PROT_WRITE : 0) | (rest[3] == 'x' ? PROT_EXEC : 0);
    ranges_.push({start, end, protection});
}

bool MemoryMap::read() noexcept {
    const int fd = ::open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return read_headers();
    const bool complete = read_maps(fd);
    ::close(fd);
    return complete;
}

bool MemoryMap::read_maps(int fd) noexcept {
    char line[64];  // as much of a line as is parsed
    std::size_t used = 0;
    bool complete = true;
    char buffer[4096];
    for (;;) {
        const ssize_t got = ::read(fd, buffer, sizeof buffer);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            complete = got == 0;
            break;
        }
        for (ssize_t i = 0; i < got && complete; ++i) {
            if (buffer[i] != '\n') {
                if (used < sizeof line - 1) line[used++] = buffer[i];
                continue;
            }
            line[used] = '\0';
            used = 0;
            complete = ranges_.reserve(ranges_.size() + 1);
            if (complete) parse_line(line);
        }
        if (!complete) break;
    }
    return complete;
}

bool MemoryMap::read_headers() noexcept {
    const int failed =
        ::dl_iterate_phdr([](dl_phdr_info* object, std::size_t,
                             void* map) { return static_cast<MemoryMap*>(map)->add_object(*object) ? 0 : 1; },
                          this);
    std::sort(ranges_.begin(), ranges_.end(),
              [](const Range& one, const Range& other) { return one.start < other.start; });
    return failed == 0;
}

bool MemoryMap::add_object(const dl_phdr_info& object) noexcept {
    const auto page_mask = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE)) - 1;
    for (int i = 0; i < object.dlpi_phnum; ++i) {
        const ElfW(Phdr)& header = object.dlpi_phdr[i];
        const std::uintptr_t start = object.dlpi_addr + header.p_vaddr;
        const std::uintptr_t end = start + header.p_memsz;
        if (header.p_type == PT_LOAD) {
            const int protection = ((header.p_flags & PF_R) != 0 ? PROT_READ : 0) |
                                   ((header.p_flags & PF_W) != 0 ? PROT_WRITE : 0) |
                                   ((header.p_flags & PF_X) != 0 ? PROT_EXEC : 0);
            if (!ranges_.reserve(ranges_.size() + 1)) return false;
            ranges_.push({start & ~page_mask, (end + page_mask) & ~page_mask, protection});
        } else if (header.p_type == PT_GNU_RELRO) {
            if (!relocated_.reserve(relocated_.size() + 1)) return false;
            relocated_.push({start & ~page_mask, end & ~page_mask, PROT_READ});  // whole pages only, as the loader does
        }
    }
    return true;
}

int MemoryMap::protection(const void* address) const noexcept {
    const auto at = reinterpret_cast<std::uintptr_t>(address);
    for (const Range& range : relocated_) {
        if (at >= range.start && at < range.end) return range.protection;
    }
    std::size_t low = 0;
    std::size_t high = ranges_.size();
    while (low < high) {
        const std::size_t middle = low + (high - low) / 2;
        if (ranges_[middle].end <= at) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == ranges_.size() || ranges_[low].start > at) return -1;
    return ranges_[low].protection;
}

bool MemoryMap::executable(const void* address) const noexcept {
    const int bits = protection(address);
    return bits >= 0 && (bits & PROT_EXEC) != 0;
}

}  // namespace culm::runtime::interpose
