// A suspended flow of control, and the switch between two of them.
//
// The switch saves the callee-saved registers on the stack that is left and restores them from the stack that is
// entered; it enters no kernel, keeps no signal mask and is O(1) whatever the depth. One source file per CPU in
// src/context implements it; ucontext.cpp is the reference and the fallback.
// Invariant: a Context is resumed at most once per suspension, on the OS thread that suspended it.
#pragma once

#include <cstddef>

#include "culm/instrument.hpp"

namespace culm {

// Runs first on a new stack. Must not return: the last thing it does is a switch away for good.
using ContextEntry = void (*)(void* argument);

struct Context {
    void* sp = nullptr;  // stack pointer while suspended; unspecified while running
    [[no_unique_address]] instrument::ContextRecord record;
};

// The switch itself, in src/context: saves the callee-saved registers and the stack pointer at *from_sp, loads those at
// *to_sp. Call switch_context instead.
extern "C" void culm_context_switch(void** from_sp, void* const* to_sp) noexcept;

// Prepares `context` so that the first switch to it calls entry(argument) on the stack [limit, base).
// `base` is the highest address; it need not be aligned. Touches only the first page below base (ucontext, where its
// record is larger than that: two). The Context must stay where it is from here on.
void prepare_context(Context& context, std::byte* base, std::byte* limit, ContextEntry entry, void* argument) noexcept;

// Describes the stack that the calling OS thread was given by the system, so that it can be switched away from.
void adopt_thread_context(Context& context) noexcept;

// Tells the instruments that the context will never run again; afterwards its stack may be reused. A context cannot do
// this for itself: whoever runs after it does.
void retire_context(Context& context) noexcept;

// Suspends the caller in `from` and continues `to`. Returns when something switches back to `from`.
// `from_ends` says that `from` will never be resumed (instruments drop its shadow state).
// Inlined: without instruments it is the one call into assembly.
// Switches: control leaves here and comes back.
inline void switch_context(Context& from, Context& to, bool from_ends = false) noexcept {
    instrument::before_switch(from.record, to.record, from_ends);
    culm_context_switch(&from.sp, &to.sp);
    instrument::after_switch(from.record);
}

// "x86_64_sysv", "aarch64_aapcs" or "ucontext": which implementation this build uses.
const char* context_implementation() noexcept;

}  // namespace culm
