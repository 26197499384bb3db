// The first frame of a new stack on AArch64: the picture "new" in aarch64_aapcs_elf.S, as a struct.
//
// Invariant: the offsets here and the loads there name the same words.
#include <cstddef>
#include <cstdint>
#include <new>

#include "context/frame.hpp"

extern "C" void culm_context_entry();

namespace culm {

namespace {

struct Frame {
    ContextEntry x19_entry = nullptr;
    void* x20_argument = nullptr;
    std::uint64_t x21_to_x28[8] = {};
    std::uint64_t x29 = 0;  // ends the chain of frame pointers
    void (*x30_resume)() = nullptr;
    std::uint64_t d8_to_d15[8] = {};
    std::uint64_t end[2] = {0, 0};  // what a walker that ignores unwind tables reads as a caller: nothing
};
static_assert(offsetof(Frame, x29) == 80);
static_assert(offsetof(Frame, x30_resume) == 88);
static_assert(offsetof(Frame, d8_to_d15) == 96);
static_assert(offsetof(Frame, end) == 160);
static_assert(sizeof(Frame) % 16 == 0);  // sp is a multiple of 16 whenever it is used

}  // namespace

void* context::write_first_frame(std::byte* base, std::byte*, ContextEntry entry, void* argument) noexcept {
    const auto end = reinterpret_cast<std::uintptr_t>(base) & ~std::uintptr_t{15};
    auto* frame = new (reinterpret_cast<void*>(end - sizeof(Frame))) Frame;
    frame->x19_entry = entry;
    frame->x20_argument = argument;
    frame->x30_resume = culm_context_entry;
    return frame;
}

const char* context_implementation() noexcept { return "aarch64_aapcs"; }

}  // namespace culm
