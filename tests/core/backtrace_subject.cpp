// Stops in a fiber, three calls deep, for gdb to look at; then goes on and ends.
//
// Invariant: the function names are what backtrace.cmake expects to see.
#include "culm/context.hpp"
#include "culm/stack_arena.hpp"

namespace {

culm::Context thread_context;
culm::Context fiber_context;

}  // namespace

extern "C" {

[[gnu::noinline]] void fiber_stops_here() { asm volatile("" ::: "memory"); }

[[gnu::noinline]] void fiber_inner() {
    fiber_stops_here();
    asm volatile("" ::: "memory");
    culm::switch_context(fiber_context, thread_context);
    asm volatile("" ::: "memory");
}

[[gnu::noinline]] void fiber_entry(void*) {
    fiber_inner();
    culm::switch_context(fiber_context, thread_context, true);
}
}

int main() {
    culm::Stack stack;
    if (!culm::StackArena::of(culm::StackClass::k256K).take(std::span(&stack, 1))) return 1;
    culm::adopt_thread_context(thread_context);
    culm::prepare_context(fiber_context, stack.base, stack.limit(), fiber_entry, nullptr);
    culm::switch_context(thread_context, fiber_context);
    culm::switch_context(thread_context, fiber_context);
    return 0;
}
