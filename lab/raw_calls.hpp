// Calls into the kernel whose bare answer is what an experiment wants to know. The only such calls of the lab.
//
// They return 0 or an errno. Invariant: no call here is hidden behind another strategy or retried.
#pragma once

#include <cstddef>

namespace culm::lab {

const char* errno_name(int error);  // "ok" for 0

int raw_discard(std::byte* start, std::size_t bytes);         // MADV_DONTNEED
int raw_discard_locked(std::byte* start, std::size_t bytes);  // MADV_DONTNEED_LOCKED
int raw_install_guard(std::byte* start, std::size_t bytes);   // MADV_GUARD_INSTALL
int raw_allow_huge_pages(std::byte* start, std::size_t bytes);
int raw_map_at(std::byte* start, std::size_t bytes);  // readable and writable, at exactly that place

}  // namespace culm::lab
