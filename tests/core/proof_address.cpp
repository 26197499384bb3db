// Must be stopped by AddressSanitizer, on a fiber's stack: proof that it is on and knows where it is.
#include "culm/context.hpp"
#include "culm/stack_arena.hpp"

namespace {

culm::Context thread_context;
culm::Context fiber_context;
volatile int index_past_the_end = 17;

void overrun(void*) {
    char buffer[16] = {};
    char* start = buffer;
    asm volatile("" : "+r"(start));  // an array's bounds would be checked by UndefinedBehaviorSanitizer first
    start[index_past_the_end] = 1;
    asm volatile("" : : "r"(start) : "memory");
    culm::switch_context(fiber_context, thread_context, true);
}

}  // namespace

int main() {
    culm::Stack stack;
    if (!culm::StackArena::of(culm::StackClass::k256K).take(std::span(&stack, 1))) return 1;
    culm::adopt_thread_context(thread_context);
    culm::prepare_context(fiber_context, stack.base, stack.limit(), overrun, nullptr);
    culm::switch_context(thread_context, fiber_context);
    return 0;
}
