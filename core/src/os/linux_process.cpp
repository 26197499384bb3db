// What Linux says about this process and the machine: page size, mappings, settings, fork.
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "os/os.hpp"

namespace culm {

namespace {

// read(), made again when a signal interrupted it.
ssize_t read_again(int fd, void* buffer, std::size_t bytes) noexcept {
    ssize_t got = -1;
    do {
        got = read(fd, buffer, bytes);
    } while (got < 0 && errno == EINTR);
    return got;
}

}  // namespace

std::size_t os::page_bytes() noexcept { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }

std::size_t os::mapping_count() noexcept {
    const int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    char buffer[2048];
    std::size_t lines = 0;
    for (ssize_t got = 0; (got = read_again(fd, buffer, sizeof(buffer))) > 0;) {
        lines += static_cast<std::size_t>(std::count(buffer, buffer + got, '\n'));
    }
    close(fd);
    return lines;
}

long os::read_number(const char* path, long otherwise) noexcept {
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return otherwise;
    char buffer[32] = {};
    const ssize_t got = read_again(fd, buffer, sizeof(buffer) - 1);
    close(fd);
    if (got <= 0) return otherwise;
    char* end = nullptr;
    const long number = std::strtol(buffer, &end, 10);
    return end == buffer ? otherwise : number;
}

std::size_t os::read_text(const char* path, std::span<char> text) noexcept {
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    std::size_t used = 0;
    while (used < text.size()) {
        const ssize_t got = read_again(fd, text.data() + used, text.size() - used);
        if (got <= 0) break;
        used += static_cast<std::size_t>(got);
    }
    close(fd);
    return used;
}

bool os::kernel_can_write(void* address) noexcept {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return true;  // not known to be guarded
    const char byte = 1;
    bool can_write = true;
    if (write(ends[1], &byte, 1) == 1) can_write = read_again(ends[0], address, 1) == 1;
    close(ends[0]);
    close(ends[1]);
    return can_write;
}

int os::at_fork(void (*prepare)(), void (*parent)(), void (*child)()) noexcept {
    return pthread_atfork(prepare, parent, child);
}

}  // namespace culm
