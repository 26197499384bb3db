// Time, medians, and what the kernel says this process occupies.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace culm::lab {

std::int64_t now_ns();
double median(std::vector<double> values);  // 0 without any

// Bytes, from /proc/self; all zero when it is missing.
struct MemoryUse {
    std::int64_t resident = 0;     // exact: added up from the page tables
    std::int64_t page_tables = 0;  // VmPTE
    std::int64_t reserved = 0;     // VmSize
};
MemoryUse memory_use();
std::size_t mapping_count();
std::size_t page_bytes();

// Of the pages in [start, start + bytes), how many bytes are in memory. What is not mapped is not.
std::size_t resident_bytes(const std::byte* start, std::size_t bytes);

}  // namespace culm::lab
