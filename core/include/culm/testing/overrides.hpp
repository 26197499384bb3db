// What tests and benchmarks put in the place of the machine they run on: another kernel, other sources of memory
// pressure, stacks that lie otherwise.
//
// A program has no use for any of it, and nothing in core, runtime or lab includes this header but the files that
// define the functions. Invariant: without a call of one of them, everything is as the machine has it.
#pragma once

#include <cstdint>

#include "culm/kernel.hpp"
#include "culm/memory_pressure.hpp"

namespace culm {

// From now on kernel_features() says this. Must precede the first stack of the process.
void override_kernel_features(const KernelFeatures& features) noexcept;

// From now on pressure_sources() says this; null restores what was found on the machine. A simulated clock's scheduler
// heeds such sources only, because the machine's have nothing to do with its time. Thread-safe; the sources are copied
// and kept for ever. False: memory ran out.
bool override_pressure_sources(const PressureSources* sources) noexcept;

// How far apart stacks lie. kPowerOfTwo is what an allocator that rounds up would do: benchmarks show what it costs.
enum class StrideRule : std::uint8_t { kOddPages, kPowerOfTwo };
// Must precede the first stack of the process.
void override_stride_rule(StrideRule rule) noexcept;

}  // namespace culm
