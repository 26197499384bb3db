// Reading clocks and /proc/self.
#include "measure.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>

namespace culm::lab {

namespace {

// "VmPTE:	      48 kB" -> bytes; 0 when the file or the line is missing.
std::int64_t bytes_after(const char* path, const char* label) {
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
        if (line.rfind(label, 0) != 0) continue;
        return std::strtoll(line.c_str() + std::strlen(label), nullptr, 10) * 1024;
    }
    return 0;
}

}  // namespace

std::int64_t now_ns() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

double median(std::vector<double> values) {
    if (values.empty()) return 0;
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

MemoryUse memory_use() {
    MemoryUse use;
    // The counters in status lag behind by some pages per processor; the sum over the mappings does not.
    use.resident = bytes_after("/proc/self/smaps_rollup", "Rss:");
    if (use.resident == 0) use.resident = bytes_after("/proc/self/status", "VmRSS:");
    use.page_tables = bytes_after("/proc/self/status", "VmPTE:");
    use.reserved = bytes_after("/proc/self/status", "VmSize:");
    return use;
}

std::size_t mapping_count() {
    std::ifstream maps("/proc/self/maps");
    return static_cast<std::size_t>(
        std::count(std::istreambuf_iterator<char>(maps), std::istreambuf_iterator<char>(), '\n'));
}

std::size_t page_bytes() { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }

std::size_t resident_bytes(const std::byte* start, std::size_t bytes) {
    const std::size_t page = page_bytes();
    std::vector<unsigned char> present(bytes / page);
    auto* first = const_cast<std::byte*>(start);
    if (mincore(first, bytes, present.data()) != 0) {
        for (std::size_t i = 0; i < present.size(); ++i) {
            if (mincore(first + i * page, page, &present[i]) != 0) present[i] = 0;
        }
    }
    const auto is_present = [](unsigned char word) { return (word & 1) != 0; };
    return static_cast<std::size_t>(std::count_if(present.begin(), present.end(), is_present)) * page;
}

}  // namespace culm::lab
