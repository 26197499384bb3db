// The context switch by makecontext and swapcontext: the reference the assembly is checked against, and the fallback
// for CPUs without assembly. Slow, since the C library sets the signal mask twice per switch.
//
// A suspended stack holds its ucontext_t in the frame of culm_context_switch; Context::sp lies kSlackBytes below it.
// Invariant: no live byte of a suspended stack lies below its Context::sp.
#include <ucontext.h>

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <new>

#include "context/frame.hpp"

namespace culm {

namespace {

// More than the compiler puts below the ucontext_t in the frame of culm_context_switch, and than makecontext puts
// below the end of the stack it is given.
constexpr std::size_t kSlackBytes = 256;

struct FirstFrame {
    ucontext_t context{};
    ContextEntry entry = nullptr;
    void* argument = nullptr;
};
static_assert(offsetof(FirstFrame, context) == 0);

// Addresses as numbers: what lies below the ucontext_t is not part of any object.
void* sp_of(ucontext_t* context) noexcept {
    return reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(context) - kSlackBytes);
}

ucontext_t* context_at(void* sp) noexcept {
    return reinterpret_cast<ucontext_t*>(reinterpret_cast<std::uintptr_t>(sp) + kSlackBytes);
}

// makecontext passes ints, so the pointer travels in two halves.
void enter(unsigned high, unsigned low) {
    const auto* frame = reinterpret_cast<FirstFrame*>((std::uintptr_t{high} << 32) | low);
    frame->entry(frame->argument);
    culm_context_entry_returned();
}

}  // namespace

void* context::write_first_frame(std::byte* base, std::byte* limit, ContextEntry entry, void* argument) noexcept {
    const auto end = reinterpret_cast<std::uintptr_t>(base) & ~std::uintptr_t{63};
    const auto place = (end - sizeof(FirstFrame)) & ~std::uintptr_t{63};
    auto* frame = new (reinterpret_cast<void*>(place)) FirstFrame;
    frame->entry = entry;
    frame->argument = argument;
    const int got = getcontext(&frame->context);
    assert(got == 0);
    frame->context.uc_stack.ss_sp = limit;
    frame->context.uc_stack.ss_size = static_cast<std::size_t>(reinterpret_cast<std::byte*>(frame) - limit);
    frame->context.uc_link = nullptr;
    const auto address = static_cast<std::uint64_t>(place);
    makecontext(&frame->context, reinterpret_cast<void (*)()>(enter), 2, static_cast<unsigned>(address >> 32),
                static_cast<unsigned>(address));
    return sp_of(&frame->context);
}

const char* context_implementation() noexcept { return "ucontext"; }

}  // namespace culm

extern "C" void culm_context_switch(void** from_sp, void* const* to_sp) noexcept {
    ucontext_t here{};
    *from_sp = culm::sp_of(&here);
    const int switched = swapcontext(&here, culm::context_at(*to_sp));
    assert(switched == 0);
}
