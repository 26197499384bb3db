// When there is an undertaker, who is handed over to it, and what it does. See culm/runtime/undertaker.hpp.
#include "culm/runtime/undertaker.hpp"

#include <utility>

#include "culm/overflow.hpp"
#include "culm/runtime/scheduler.hpp"
#include "embedder.hpp"
#include "scheduler_parts.hpp"

namespace culm::runtime {

bool Undertaker::keep_ready(Scheduler& scheduler) noexcept {
    Scheduler::Parts& parts = *scheduler.parts_;
    const auto make = detail::embedder.overflows.make_undertaker;
    if (!is_wanted() || !make) return true;
    if (parts.undertaker && parts.undertaker->state() != FiberState::kFinished) return true;
    let_go(scheduler);
    Fiber* made = make();
    if (!made) return false;
    made->retain();
    parts.undertaker = made;
    // Those that the last one has not come to.
    if (!parts.out_of_stack.empty()) scheduler.start(*made);
    return true;
}

bool Undertaker::take_over(Fiber& running) noexcept {
    Scheduler& scheduler = running.scheduler();
    Scheduler::Parts& parts = *scheduler.parts_;
    Fiber* undertaker = parts.undertaker;
    if (!is_wanted() || running.is_main()) return false;
    if (!undertaker || undertaker->state() == FiberState::kFinished) return false;
    if (!parts.out_of_stack.reserve(parts.out_of_stack.size() + 1)) return false;
    running.retain();
    parts.out_of_stack.push(&running);
    if (undertaker->state() == FiberState::kNew) scheduler.start(*undertaker);
    report_running_out(running.stack());
    return true;
}

void Undertaker::bury_all(Scheduler& scheduler) noexcept {
    Scheduler::Parts& parts = *scheduler.parts_;
    while (!parts.out_of_stack.empty()) {
        Fiber& fiber = *parts.out_of_stack.pop();
        if (fiber.state() != FiberState::kFinished) detail::embedder.overflows.bury(fiber);
        fiber.release();
    }
    let_go(scheduler);
}

void Undertaker::dismiss(Scheduler& scheduler) noexcept {
    FlatArray<Fiber*>& out_of_stack = scheduler.parts_->out_of_stack;
    while (!out_of_stack.empty()) out_of_stack.pop()->release();
    let_go(scheduler);
}

void Undertaker::let_go(Scheduler& scheduler) noexcept {
    Fiber* undertaker = std::exchange(scheduler.parts_->undertaker, nullptr);
    if (!undertaker) return;
    detail::embedder.overflows.let_undertaker_go(*undertaker);
    undertaker->release();
}

}  // namespace culm::runtime
