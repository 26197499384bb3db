// What the rest of core must know about a CPU we have no assembly for: the careful choice everywhere.
#include "context/machine.hpp"

namespace culm {

std::size_t machine::stack_probe_bytes() noexcept { return std::size_t{64} << 10; }

const void* machine::interrupted_sp(const void*) noexcept { return nullptr; }

const void* machine::interrupted_pc(const void*) noexcept { return nullptr; }

}  // namespace culm
