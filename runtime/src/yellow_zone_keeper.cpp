// Yellow zones of fibers. See yellow_zone_keeper.hpp and culm/runtime/yellow_zone.hpp.
#include "yellow_zone_keeper.hpp"

#include <atomic>

#include "culm/runtime/scheduler.hpp"
#include "culm/runtime/yellow_zone.hpp"
#include "embedder.hpp"

namespace culm::runtime {

namespace {

// The stack counts as shrunk only this far above its limit: else what runs next would overflow it at once.
constexpr std::ptrdiff_t kShrunkBytes = 4096;
// More than close_yellow_zone() takes.
constexpr std::ptrdiff_t kClosingBytes = 2048;

}  // namespace

bool YellowZoneKeeper::may_open(const Stack& stack, YellowZone wanted) noexcept {
    Scheduler* scheduler = Scheduler::current();
    if (!scheduler || scheduler->running().stack_base_ != stack.base) return false;
    Fiber& self = scheduler->running();
    if (self.yellow_ >= wanted) return false;  // it is open, and yet it faulted
    const auto begins = detail::embedder.overflows.begins;
    if (!begins || !begins(self, wanted != YellowZone::kHalfOpen)) return false;
    self.yellow_ = wanted;
    return true;
}

bool YellowZoneKeeper::is_nearly_out(const Fiber& self) noexcept {
    const Stack stack = self.stack();
    const auto* sp = static_cast<const std::byte*>(__builtin_frame_address(0));
    return stack.limit() - sp > static_cast<std::ptrdiff_t>(yellow_zone_bytes(stack) / 2);
}

void YellowZoneKeeper::settle(Fiber& self) noexcept {
    const Stack stack = self.stack();
    const auto* sp = static_cast<const std::byte*>(__builtin_frame_address(0));
    if (!stack.contains(sp) || sp - stack.limit() < kShrunkBytes) return;
    const Overflows& overflows = detail::embedder.overflows;
    if (overflows.is_pending && overflows.is_pending(self)) return;
    if (!close_yellow_zone(stack)) return;  // the kernel is short of memory: next time
    self.yellow_ = YellowZone::kClosed;
    if (overflows.ended) overflows.ended(self);
}

void YellowZoneKeeper::leaves(Fiber& self) noexcept {
    if (self.yellow_ == YellowZone::kClosed) {
        // Refused, or a stack without a zone: then the switch has to do with what there is.
        const bool is_open = open_yellow_zone(self.stack());
        std::atomic_signal_fence(std::memory_order_seq_cst);
        if (self.yellow_ == YellowZone::kClosed) {
            if (is_open) self.yellow_ = YellowZone::kLent;
            return;
        }
        // Opening it has taken what was left, and the fault handler was there first.
    }
    settle(self);
    if (self.yellow_ == YellowZone::kClosed) return;
    if (self.yellow_ < YellowZone::kOpen && open_yellow_zone(self.stack())) self.yellow_ = YellowZone::kOpen;
    if (detail::embedder.overflows.leaves) detail::embedder.overflows.leaves(self);
}

// What was lent for a switch. Closed, the zone must not hold the frames of whoever closes it: a fiber with so little
// left has used its stack up.
void YellowZoneKeeper::takes_back(Fiber& self) noexcept {
    const Stack stack = self.stack();
    const auto* here = static_cast<const std::byte*>(__builtin_frame_address(0));
    if (here - stack.limit() >= kClosingBytes) {
        if (close_yellow_zone(stack)) self.yellow_ = YellowZone::kClosed;
        return;
    }
    const auto begins = detail::embedder.overflows.begins;
    if (begins && begins(self, false)) self.yellow_ = YellowZone::kOpen;
}

void YellowZoneKeeper::returns(Fiber& self) noexcept {
    if (self.yellow_ == YellowZone::kClosed) return;
    if (self.yellow_ == YellowZone::kLent) return takes_back(self);
    if (detail::embedder.overflows.returns) detail::embedder.overflows.returns(self);
    settle(self);
}

void YellowZoneKeeper::takes(Fiber& fiber) noexcept {
    if (take_over_open_yellow_zone(fiber.stack())) fiber.yellow_ = YellowZone::kOpen;
}

void YellowZoneKeeper::gives_back(Fiber& fiber) noexcept {
    if (fiber.yellow_ == YellowZone::kClosed) return;
    const Stack stack = fiber.stack();
    if (!close_yellow_zone(stack)) leave_yellow_zone_open(stack);
    fiber.yellow_ = YellowZone::kClosed;
}

void settle_open_zone(Fiber& running) noexcept { YellowZoneKeeper::settle(running); }

}  // namespace culm::runtime
