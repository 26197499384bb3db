// How the process's memory is mapped and protected, as /proc/self/maps tells it: a snapshot.
#pragma once

#include <cstddef>
#include <cstdint>

#include "flat_array.hpp"

namespace culm::runtime::interpose {

class MemoryMap {
public:
    // False: /proc is not there, or there is no memory.
    bool read() noexcept;
    // PROT_ bits of the mapping that holds the address; -1 when it was not mapped.
    int protection(const void* address) const noexcept;
    bool executable(const void* address) const noexcept;

private:
    struct Range {
        std::uintptr_t start, end;
        int protection;
    };
    void parse_line(const char* line) noexcept;

    FlatArray<Range> ranges_;  // ascending
};

}  // namespace culm::runtime::interpose
