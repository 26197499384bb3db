// ThreadSanitizer: it keeps a shadow call stack and a clock per fiber, and must be told which one runs.
//
// Compiled without instrumentation: between the announcement and the switch the shadow call stack is already that of
// the other side, so no function may report its entry or exit there.
#include <sanitizer/tsan_interface.h>

#include "culm/instrument.hpp"

namespace culm {

static_assert(CULM_INSTRUMENTED == 1);

instrument::FirstCall instrument::context_created(ContextRecord& record, std::byte*, std::byte*,
                                                  FirstCall first) noexcept {
    record = {};
    record.thread_sanitizer = __tsan_create_fiber(0);
    return first;
}

void instrument::context_adopted(ContextRecord& record) noexcept {
    record = {};
    record.thread_sanitizer = __tsan_get_current_fiber();
    record.is_thread = true;
}

void instrument::context_retired(ContextRecord& record, const void*) noexcept {
    if (!record.is_thread && record.thread_sanitizer != nullptr) __tsan_destroy_fiber(record.thread_sanitizer);
    record = {};
}

void instrument::before_switch(ContextRecord&, ContextRecord& to, bool) noexcept {
    // Flags 0: what the one did before the switch happens before what the other does after it.
    __tsan_switch_to_fiber(to.thread_sanitizer, 0);
}

void instrument::after_switch(ContextRecord&) noexcept {}

}  // namespace culm
