// The first frame of a new stack on x86-64: the picture "new" in x86_64_sysv_elf.S, as a struct.
//
// Invariant: the offsets here and the pops there name the same words.
#include <cstddef>
#include <cstdint>
#include <new>

#include "context/frame.hpp"

extern "C" void culm_context_entry();

namespace culm {

namespace {

struct Frame {
    std::uint64_t r15 = 0;
    std::uint64_t r14 = 0;
    void* r13_argument = nullptr;
    ContextEntry r12_entry = nullptr;
    std::uint64_t rbx = 0;
    std::uint64_t rbp = 0;  // ends the chain of frame pointers
    void (*resume)() = nullptr;
    std::uint64_t end[2] = {0, 0};  // what a walker that ignores unwind tables reads as a caller: nothing
};
static_assert(offsetof(Frame, r13_argument) == 16);
static_assert(offsetof(Frame, r12_entry) == 24);
static_assert(offsetof(Frame, resume) == 48);
// The entry runs with rsp at `end`, which must be a multiple of 16.
static_assert(sizeof(Frame) == 72);
static_assert(offsetof(Frame, end) == 56);

}  // namespace

void* context::write_first_frame(std::byte* base, std::byte*, ContextEntry entry, void* argument) noexcept {
    const auto end = reinterpret_cast<std::uintptr_t>(base) & ~std::uintptr_t{15};
    auto* frame = new (reinterpret_cast<void*>(end - sizeof(Frame))) Frame;
    frame->r13_argument = argument;
    frame->r12_entry = entry;
    frame->resume = culm_context_entry;
    return frame;
}

const char* context_implementation() noexcept { return "x86_64_sysv"; }

}  // namespace culm
