// The parts of a context that are the same on every CPU: telling the instruments, and laying out the first call.
//
// Invariant: every context that was prepared or adopted is known to the instrument of this build until it is retired.
#include "culm/context.hpp"

#include <cassert>

#include "context/frame.hpp"

namespace culm {

void prepare_context(Context& context, std::byte* base, std::byte* limit, ContextEntry entry, void* argument) noexcept {
    assert(limit < base);
    assert(entry != nullptr);
    const instrument::FirstCall first = instrument::context_created(context.record, limit, base, {entry, argument});
    context.sp = context::write_first_frame(base, limit, first.entry, first.argument);
}

void adopt_thread_context(Context& context) noexcept {
    context.sp = nullptr;
    instrument::context_adopted(context.record);
}

void retire_context(Context& context) noexcept {
    instrument::context_retired(context.record, context.sp);
    context.sp = nullptr;
}

}  // namespace culm
