// A list through the control blocks; its elements are fibers parked by wait().
#include "culm/runtime/wait_queue.hpp"

#include <cassert>

#include "culm/runtime/scheduler.hpp"

namespace culm::runtime {

WaitQueue::~WaitQueue() { assert(empty()); }

Wake WaitQueue::wait(Scheduler& scheduler, WaitKind kind, std::int64_t deadline_ns, bool front) noexcept {
    Fiber& self = scheduler.running();
    if (front) {
        link_front(self);
    } else {
        link_back(self);
    }
    return scheduler.block(kind, reinterpret_cast<std::uintptr_t>(this), deadline_ns);
}

Fiber* WaitQueue::notify_one() noexcept {
    Fiber* fiber = head_;
    if (fiber) fiber->scheduler_->make_ready(*fiber, Wake::kNotified);
    return fiber;
}

void WaitQueue::notify_all() noexcept {
    while (notify_one()) {
    }
}

// The links of neighbours point to each other's queue_link_; the ends point nowhere.
void WaitQueue::link_back(Fiber& fiber) noexcept {
    assert(!fiber.wait_queue_);
    fiber.wait_queue_ = this;
    fiber.queue_link_ = {tail_ ? &tail_->queue_link_ : nullptr, nullptr};
    if (tail_) {
        tail_->queue_link_.next = &fiber.queue_link_;
    } else {
        head_ = &fiber;
    }
    tail_ = &fiber;
}

void WaitQueue::link_front(Fiber& fiber) noexcept {
    assert(!fiber.wait_queue_);
    fiber.wait_queue_ = this;
    fiber.queue_link_ = {nullptr, head_ ? &head_->queue_link_ : nullptr};
    if (head_) {
        head_->queue_link_.previous = &fiber.queue_link_;
    } else {
        tail_ = &fiber;
    }
    head_ = &fiber;
}

void WaitQueue::unlink(Fiber& fiber) noexcept {
    using Links = IntrusiveList<Fiber, &Fiber::queue_link_>;
    assert(fiber.wait_queue_ == this);
    ListLink* previous = fiber.queue_link_.previous;
    ListLink* next = fiber.queue_link_.next;
    if (previous) {
        previous->next = next;
    } else {
        head_ = next ? Links::element(next) : nullptr;
    }
    if (next) {
        next->previous = previous;
    } else {
        tail_ = previous ? Links::element(previous) : nullptr;
    }
    fiber.queue_link_ = {};
    fiber.wait_queue_ = nullptr;
}

}  // namespace culm::runtime
