// Links the running fiber's own record, and completes what it takes out.
#include "culm/runtime/wait_queue.hpp"

#include <cassert>

#include "culm/runtime/scheduler.hpp"

namespace culm::runtime {

WaitQueue::~WaitQueue() { assert(empty()); }

Wake WaitQueue::wait(Scheduler& scheduler, WaitKind kind, std::int64_t deadline_ns, bool front) noexcept {
    Wait& wait = scheduler.begin_wait(kind, &waits_);
    if (front) {
        waits_.push_front(wait);
    } else {
        waits_.push_back(wait);
    }
    return scheduler.await(deadline_ns);
}

Fiber* WaitQueue::notify_one() noexcept {
    while (Wait* wait = waits_.front()) {
        Fiber& fiber = *wait->fiber;
        waits_.remove(*wait);
        if (fiber.scheduler().complete(*wait)) return &fiber;
    }
    return nullptr;
}

void WaitQueue::notify_all() noexcept {
    while (notify_one()) {
    }
}

}  // namespace culm::runtime
