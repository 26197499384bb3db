// Must be stopped by ThreadSanitizer, with one side of the race on a fiber's stack: proof that it is on.
#include <thread>

#include "culm/context.hpp"
#include "culm/stack_arena.hpp"

namespace {

culm::Context thread_context;
culm::Context fiber_context;
int shared = 0;

void count(void*) {
    for (int i = 0; i < 1000; ++i) ++shared;
    culm::switch_context(fiber_context, thread_context, true);
}

}  // namespace

int main() {
    culm::Stack stack;
    if (!culm::StackArena::of(culm::StackClass::k256K).take(std::span(&stack, 1))) return 1;
    culm::adopt_thread_context(thread_context);
    culm::prepare_context(fiber_context, stack.base, stack.limit(), count, nullptr);
    std::thread other([] {
        for (int i = 0; i < 1000; ++i) ++shared;
    });
    culm::switch_context(thread_context, fiber_context);
    other.join();
    return 0;
}
