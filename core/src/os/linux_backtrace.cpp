// The C frames of a thread that is about to die.
//
// The C library's unwinder goes through the kernel's signal frame to the interrupted stack. Its first use loads a
// library and allocates, so it is used once beforehand.
// Invariant: after prepare_backtrace() nothing here allocates.
#include <execinfo.h>
#include <unistd.h>

#include <algorithm>

#include "os/os.hpp"

namespace culm {

void os::prepare_backtrace() noexcept {
    void* frame = nullptr;
    static_cast<void>(backtrace(&frame, 1));
}

void os::write_backtrace_to_stderr(const void* from_pc, std::size_t frames_max) noexcept {
    constexpr int kFramesMax = 128;
    void* frames[kFramesMax];
    const int count = backtrace(frames, kFramesMax);
    if (count <= 0) return;
    // The innermost ones are those of the signal handler.
    void** first = std::find(frames, frames + count, from_pc);
    if (first == frames + count) first = frames;
    const auto left = static_cast<std::size_t>(frames + count - first);
    backtrace_symbols_fd(first, static_cast<int>(std::min(left, frames_max)), STDERR_FILENO);
}

}  // namespace culm
