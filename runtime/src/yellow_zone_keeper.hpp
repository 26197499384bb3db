// What the scheduler does about yellow zones: opened in the fault handler, looked after at a switch, closed at the end.
// Invariant: a fiber's yellow_ is kClosed exactly when no part of its zone is open.
#pragma once

#include <cstdint>

#include "culm/overflow.hpp"
#include "culm/runtime/fiber.hpp"

namespace culm::runtime {

struct YellowZoneKeeper {
    static bool may_open(const Stack& stack, YellowZone wanted) noexcept;  // async-signal-safe

    // At a switch away from `fiber`, whose stack pointer is `sp`: has leaves() to be called before it, and returns()
    // when it continues? So it has with an open zone, and with less stack left than a switch needs: a fault in the
    // middle of it would find the words of two fibers mixed. The difference is never small for a main fiber, which has
    // no stack of ours.
    [[gnu::always_inline]] static bool must_see_leaving(const Fiber& fiber, const void* sp) noexcept {
        constexpr std::uintptr_t kSwitchBytes = 4096;
        const auto limit =
            reinterpret_cast<std::uintptr_t>(fiber.stack_base_) - stack_limit_bytes_unchecked(fiber.stack_class_);
        const bool is_near = reinterpret_cast<std::uintptr_t>(sp) - limit < kSwitchBytes;
        return is_near || fiber.yellow_ != YellowZone::kClosed;
    }
    static void leaves(Fiber& self) noexcept;
    static void returns(Fiber& self) noexcept;
    static void takes_back(Fiber& self) noexcept;

    // The running fiber has come to the lower half of its zone.
    static bool is_nearly_out(const Fiber& self) noexcept;

    // Once the running fiber's stack has shrunk.
    static void settle(Fiber& self) noexcept;

    // The fiber has just been given its stack, or is about to lose it.
    static void takes(Fiber& fiber) noexcept;
    static void gives_back(Fiber& fiber) noexcept;
};

}  // namespace culm::runtime
