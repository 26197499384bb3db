// How memory is protected, told by the program headers where /proc is not mounted, is what /proc/self/maps says.
#include "memory_map.hpp"

#include <sys/mman.h>

#include "harness.hpp"

using culm::runtime::interpose::MemoryMap;

TEST_CASE("the headers tell the same about every page of what is loaded as /proc/self/maps") {
    open_victim(kVictimNow);  // its offset table is read-only
    open_victim(kVictimLazy);
    struct Comparison {
        MemoryMap maps, headers;
        std::size_t pages = 0;
        std::size_t read_only_in_writable = 0;
    } comparison;
    REQUIRE(comparison.maps.read());
    REQUIRE(comparison.headers.read_headers());
    ::dl_iterate_phdr(
        [](dl_phdr_info* object, std::size_t, void* argument) {
            Comparison& all = *static_cast<Comparison*>(argument);
            for (int i = 0; i < object->dlpi_phnum; ++i) {
                const ElfW(Phdr)& header = object->dlpi_phdr[i];
                if (header.p_type != PT_LOAD) continue;
                const auto* start = reinterpret_cast<const std::byte*>(object->dlpi_addr + header.p_vaddr);
                for (std::size_t at = 0; at < header.p_memsz; at += 4096) {
                    const int expected = all.maps.protection(start + at);
                    CAPTURE(object->dlpi_name);
                    CAPTURE(header.p_vaddr + at);
                    CHECK(all.headers.protection(start + at) == expected);
                    ++all.pages;
                    if ((header.p_flags & PF_W) != 0 && (expected & PROT_WRITE) == 0) ++all.read_only_in_writable;
                }
            }
            return 0;
        },
        &comparison);
    CHECK(comparison.pages > 100);
    CHECK(comparison.read_only_in_writable > 0);
}

TEST_CASE("of memory that belongs to no object the headers say nothing") {
    MemoryMap headers;
    REQUIRE(headers.read_headers());
    void* page = ::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(page != MAP_FAILED);
    CHECK(headers.protection(page) == -1);
    CHECK_FALSE(headers.executable(page));
    CHECK(headers.executable(reinterpret_cast<void*>(&::mmap)));
    ::munmap(page, 4096);
}
