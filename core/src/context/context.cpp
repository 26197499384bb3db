// The parts of a context that are the same on every CPU: telling the instruments, and laying out the first call.
//
// Invariant: every context that was prepared or adopted is known to the instrument of this build until it is retired.
#include "culm/context.hpp"

#include "context/frame.hpp"
#include "culm/check.hpp"

namespace culm {

void prepare_context(Context& context, std::byte* base, std::byte* limit, ContextEntry entry, void* argument) noexcept {
    check(limit < base, "prepare_context() takes the highest address of the stack first, then the lowest");
    check(entry != nullptr, "prepare_context() needs a function to run");
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

void culm_context_entry_returned() noexcept {
    culm::end_by_misuse(
        "the function that a context runs has returned: its last act must be a switch away, with from_ends");
}
