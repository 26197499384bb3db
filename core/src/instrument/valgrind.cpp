// Valgrind: a jump of the stack pointer is a switch of stacks if it lands in a registered stack, else it looks like a
// huge allocation. The requests are no-ops outside valgrind.
#include <valgrind/valgrind.h>

#include "culm/instrument.hpp"

namespace culm {

static_assert(CULM_INSTRUMENTED == 1);

instrument::FirstCall instrument::context_created(ContextRecord& record, std::byte* limit, std::byte* base,
                                                  FirstCall first) noexcept {
    record = {};
    record.valgrind_id = VALGRIND_STACK_REGISTER(limit, base - 1);
    return first;
}

void instrument::context_adopted(ContextRecord& record) noexcept {
    record = {};
    record.is_thread = true;
}

void instrument::context_retired(ContextRecord& record, const void*) noexcept {
    if (!record.is_thread) VALGRIND_STACK_DEREGISTER(record.valgrind_id);
    record = {};
}

void instrument::before_switch(ContextRecord&, ContextRecord&, bool) noexcept {}

void instrument::after_switch(ContextRecord&) noexcept {}

}  // namespace culm
