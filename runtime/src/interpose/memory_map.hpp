// How the process's memory is mapped and protected: a snapshot. As /proc/self/maps tells it; where /proc is not
// mounted, as the headers of the loaded objects do, and of other memory nothing is known.
#pragma once

#include <link.h>

#include <cstddef>
#include <cstdint>

#include "flat_array.hpp"

namespace culm::runtime::interpose {

class MemoryMap {
public:
    // False: there is no memory for it.
    bool read() noexcept;
    // What read() does without /proc.
    bool read_headers() noexcept;
    // PROT_ bits of the mapping that holds the address; -1 when it was not mapped.
    int protection(const void* address) const noexcept;
    bool executable(const void* address) const noexcept;

private:
    struct Range {
        std::uintptr_t start, end;
        int protection;
    };
    bool read_maps(int fd) noexcept;
    void parse_line(const char* line) noexcept;
    bool add_object(const dl_phdr_info& object) noexcept;

    FlatArray<Range> ranges_;     // ascending
    FlatArray<Range> relocated_;  // from headers only: parts of ranges_ that are read-only once they are relocated
};

}  // namespace culm::runtime::interpose
