// Registers what the runtime does at fork. See forking.cpp.
#pragma once

namespace culm::runtime {

// Once per process; later calls do nothing.
void handle_forks() noexcept;

}  // namespace culm::runtime
