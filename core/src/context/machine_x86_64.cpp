// What the rest of core must know about x86-64.
#include <ucontext.h>

#include "context/machine.hpp"

namespace culm {

std::size_t machine::stack_probe_bytes() noexcept { return std::size_t{4} << 10; }

const void* machine::interrupted_sp(const void* signal_context) noexcept {
    return reinterpret_cast<const void*>(static_cast<const ucontext_t*>(signal_context)->uc_mcontext.gregs[REG_RSP]);
}

const void* machine::interrupted_pc(const void* signal_context) noexcept {
    return reinterpret_cast<const void*>(static_cast<const ucontext_t*>(signal_context)->uc_mcontext.gregs[REG_RIP]);
}

}  // namespace culm
