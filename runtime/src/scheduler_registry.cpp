// Room in every list is made when a scheduler is enrolled, so that retiring one cannot fail.
#include "scheduler_registry.hpp"

#include <new>

#include "forking.hpp"
#include "scheduler_inside.hpp"
#include "scheduler_parts.hpp"

namespace culm::runtime {

SchedulerRegistry& SchedulerRegistry::get() noexcept {
    // Never destroyed: threads may end after static destructors have run.
    static SchedulerRegistry& registry = *new SchedulerRegistry();
    return registry;
}

bool SchedulerRegistry::enrol(Scheduler& scheduler) noexcept {
    handle_forks();
    const std::lock_guard lock(mutex_);
    destroy_unreferenced();
    const std::size_t count = open_.size() + closed_.size() + spare_.size() + 1;
    if (!open_.reserve(count) || !closed_.reserve(count) || !spare_.reserve(count)) return false;
    if (!kept_pools_.reserve(kept_pools_.size() + open_.size() + 1)) return false;
    FiberSlab* slab = spare_.empty() ? new (std::nothrow) FiberSlab() : spare_.pop();
    if (!slab) return false;
    scheduler.parts_->slab = slab;
    FiberSlab::set_owned(slab);
    open_.push(&scheduler);
    return true;
}

void SchedulerRegistry::withdraw(Scheduler& scheduler) noexcept {
    const std::lock_guard lock(mutex_);
    unlist(scheduler);
    FiberSlab::set_owned(nullptr);
    spare_.push(scheduler.parts_->slab);
}

void SchedulerRegistry::retire(Scheduler& scheduler) noexcept {
    const std::lock_guard lock(mutex_);
    unlist(scheduler);
    closed_.push(&scheduler);
    destroy_unreferenced();
}

void SchedulerRegistry::drop(Scheduler& scheduler) noexcept {
    const std::lock_guard lock(mutex_);
    unlist(scheduler);
}

void SchedulerRegistry::unlist(Scheduler& scheduler) noexcept {
    for (Scheduler*& listed : open_) {
        if (listed != &scheduler) continue;
        listed = open_[open_.size() - 1];
        open_.pop();
        return;
    }
}

void SchedulerRegistry::keep(std::unique_ptr<StackPool> pool) noexcept {
    const std::lock_guard lock(mutex_);
    kept_pools_.push(pool.release());
}

void SchedulerRegistry::follow_settings() noexcept {
    if (Scheduler* own = Scheduler::current()) own->epoch_ = own->parts_->shrinker.keep_time(own->clock_->now_ns());
    const std::lock_guard lock(mutex_);
    for (Scheduler* scheduler : open_) {
        if (scheduler != Scheduler::current()) scheduler->parts_->inbox.nudge();
    }
}

Scheduler* SchedulerRegistry::any_open_but(const Scheduler* except) noexcept {
    const std::lock_guard lock(mutex_);
    for (Scheduler* scheduler : open_) {
        if (scheduler != except) return scheduler;
    }
    return nullptr;
}

void SchedulerRegistry::destroy_unreferenced() noexcept {
    for (std::size_t i = 0; i < closed_.size();) {
        Scheduler* scheduler = closed_[i];
        FiberSlab* slab = scheduler->parts_->slab;
        if (slab->live() > 0) {
            ++i;
            continue;
        }
        closed_[i] = closed_[closed_.size() - 1];
        closed_.pop();
        spare_.push(slab);
        delete &scheduler->inside();
    }
}

}  // namespace culm::runtime
