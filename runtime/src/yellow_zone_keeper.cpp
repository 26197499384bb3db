// Yellow zones of fibers. See yellow_zone_keeper.hpp and culm/runtime/yellow_zone.hpp.
#include "yellow_zone_keeper.hpp"

#include "culm/runtime/scheduler.hpp"
#include "culm/runtime/yellow_zone.hpp"
#include "switch_hook.hpp"

namespace culm::runtime {

namespace {

// The stack counts as shrunk only this far above its limit: else what runs next would overflow it at once.
constexpr std::ptrdiff_t kShrunkBytes = 4096;

}  // namespace

bool YellowZoneKeeper::may_open(const Stack& stack, YellowZone wanted) noexcept {
    Scheduler* scheduler = Scheduler::current();
    if (!scheduler || scheduler->running().stack_base_ != stack.base) return false;
    Fiber& self = scheduler->running();
    const bool last = wanted == YellowZone::kOpen;
    const bool is_open = self.yellow_ == YellowState::kHalfOpen ? !last : self.yellow_ != YellowState::kClosed;
    if (is_open) return false;  // and yet it faulted
    const auto overflown = detail::installed_hook.overflown;
    if (!overflown || !overflown(self, last)) return false;
    self.yellow_ = last ? YellowState::kOpen : YellowState::kHalfOpen;
    return true;
}

void YellowZoneKeeper::settle(Fiber& self) noexcept {
    const Stack stack = self.stack();
    const auto* sp = static_cast<const std::byte*>(__builtin_frame_address(0));
    if (!stack.contains(sp) || sp - stack.limit() < kShrunkBytes) return;
    const SwitchHook& hook = detail::installed_hook;
    if (hook.overflow_pending && hook.overflow_pending(self)) return;
    if (!close_yellow_zone(stack)) return;  // the kernel is short of memory: next time
    self.yellow_ = YellowState::kClosed;
    if (hook.overflow_ended) hook.overflow_ended(self);
}

void YellowZoneKeeper::leaves(Fiber& self) noexcept {
    if (self.yellow_ == YellowState::kClosed) {
        // Refused, or a stack without a zone: then the switch has to do with what there is.
        if (open_yellow_zone(self.stack())) self.yellow_ = YellowState::kLent;
        return;
    }
    settle(self);
    if (self.yellow_ == YellowState::kClosed) return;
    if (self.yellow_ == YellowState::kHalfOpen && open_yellow_zone(self.stack())) self.yellow_ = YellowState::kOpen;
    if (detail::installed_hook.overflow_leaves) detail::installed_hook.overflow_leaves(self);
}

void YellowZoneKeeper::returns(Fiber& self) noexcept {
    if (self.yellow_ == YellowState::kClosed) return;
    if (self.yellow_ == YellowState::kLent) {
        if (close_yellow_zone(self.stack())) self.yellow_ = YellowState::kClosed;
        return;
    }
    if (detail::installed_hook.overflow_returns) detail::installed_hook.overflow_returns(self);
    settle(self);
}

void YellowZoneKeeper::takes(Fiber& fiber) noexcept {
    if (take_over_open_yellow_zone(fiber.stack())) fiber.yellow_ = YellowState::kOpen;
}

void YellowZoneKeeper::gives_back(Fiber& fiber) noexcept {
    if (fiber.yellow_ == YellowState::kClosed) return;
    const Stack stack = fiber.stack();
    if (!close_yellow_zone(stack)) leave_yellow_zone_open(stack);
    fiber.yellow_ = YellowState::kClosed;
}

void settle_open_zone(Fiber& running) noexcept { YellowZoneKeeper::settle(running); }

}  // namespace culm::runtime
