// How many of the process's mappings stacks may take, whatever way they are allocated.
//
// The kernel gives a process vm.max_map_count mappings. Guards made by mprotect and stacks that are mappings of their
// own use them up; the program needs some too. Stacks get half of those that were left when the first one asked.
// Invariant: what is charged here is at most that half, in the whole process.
#pragma once

#include <cstddef>

namespace culm::stack {

// Asks for `count` mappings. False, and nothing is charged, when the budget does not hold as many. Thread-safe.
[[nodiscard]] bool charge_mappings(std::size_t count) noexcept;
// Gives back what has been charged. Thread-safe.
void refund_mappings(std::size_t count) noexcept;

}  // namespace culm::stack
