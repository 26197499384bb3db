// AddressSanitizer: it keeps the bounds of the current stack and, for use-after-return, a fake stack beside it.
//
// A switch is announced before it and confirmed after it, on the other stack. The confirmation tells the bounds of the
// stack that was left, which is how those of an OS thread become known.
// Invariant: when a stack may be reused, none of it is poisoned.
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>

#include "culm/instrument.hpp"

namespace culm {

static_assert(CULM_INSTRUMENTED == 1);

namespace {

// The context that the thread is leaving: written before a switch, read after it on the other stack of the same thread.
constinit thread_local instrument::ContextRecord* left = nullptr;

void confirm_arrival(void* fake_stack) noexcept {
    __sanitizer_finish_switch_fiber(fake_stack, &left->bottom, &left->size_bytes);
}

void run_first_call(void* argument) {
    const auto* record = static_cast<instrument::ContextRecord*>(argument);
    confirm_arrival(nullptr);
    record->first.entry(record->first.argument);
}

}  // namespace

instrument::FirstCall instrument::context_created(ContextRecord& record, std::byte* limit, std::byte* base,
                                                  FirstCall first) noexcept {
    record = {};
    record.bottom = limit;
    record.size_bytes = static_cast<std::size_t>(base - limit);
    record.first = first;
    return {run_first_call, &record};
}

void instrument::context_adopted(ContextRecord& record) noexcept {
    record = {};
    record.is_thread = true;
}

void instrument::context_retired(ContextRecord& record, const void* sp) noexcept {
    // The frames that were live at the last switch never returned, so their red zones are still poisoned.
    if (!record.is_thread && sp != nullptr) {
        const auto* end = static_cast<const std::byte*>(record.bottom) + record.size_bytes;
        __asan_unpoison_memory_region(sp, static_cast<std::size_t>(end - static_cast<const std::byte*>(sp)));
    }
    record = {};
}

void instrument::before_switch(ContextRecord& from, ContextRecord& to, bool from_ends) noexcept {
    left = &from;
    __sanitizer_start_switch_fiber(from_ends ? nullptr : &from.fake_stack, to.bottom, to.size_bytes);
}

void instrument::after_switch(ContextRecord& resumed) noexcept { confirm_arrival(resumed.fake_stack); }

}  // namespace culm
