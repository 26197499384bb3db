// A function that is to run on a fiber and has not been started.
//
// A task promises nothing: it has no stack, no place in any queue, and belongs to no scheduler. The promises are made
// where it starts (Scheduler::new_fiber), on whatever thread that is, and that is also where it fails when no stack can
// be had. A started fiber stays on its thread for life.
// Invariant: an id is given once; a task that is started hands its own on to the fiber.
#pragma once

#include <cstdint>

#include "culm/stack.hpp"

namespace culm {
class StackStrategy;
}

namespace culm::runtime {

class Fiber;
class Scope;

struct Task {
    // Runs on the fiber's stack; when it returns the fiber is finished. Must not let an exception out.
    using Body = void (*)(Fiber& self, void* argument);

    Body body = nullptr;
    void* argument = nullptr;
    const char* name = nullptr;  // copied when the task starts; a short label for reports
    StackClass stack_class = kDefaultStackClass;
    const StackStrategy* strategy = nullptr;  // null: default_stack_strategy()
    Scope* scope = nullptr;                   // the scope around all that the fiber does; null: none
    std::uint64_t id = 0;                     // of new_fiber_id(); 0: given when it starts
    // For the embedding language: its object, and the bytes near the stack's base that it keeps for itself.
    void* host = nullptr;
    std::uint16_t host_stack_bytes = 0;
    // Somebody may wait for its end already (Scheduler::join_task).
    bool may_be_joined = false;
};

// 1, 2, 3... within the process, never given twice. Thread-safe.
std::uint64_t new_fiber_id() noexcept;

}  // namespace culm::runtime
