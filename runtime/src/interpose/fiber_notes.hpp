// What interposition notes about a fiber, in two bytes that its control block keeps for that.
// Invariant: used on the fiber's own thread only.
#pragma once

#include <cstdint>

#include "culm/runtime/fiber.hpp"

namespace culm::runtime::interpose {

struct FiberNotes {
    explicit FiberNotes(Fiber& fiber) noexcept : word_(fiber.interposition_) {}

    // How many pthread mutexes the hooks have seen this fiber take and not release yet. The count stops at the largest
    // number that there is room for.
    unsigned held_mutexes() const noexcept { return word_ & kMutexes; }
    void note_mutex_taken() noexcept {
        if (held_mutexes() < kMutexes) ++word_;
    }
    void note_mutex_released() noexcept {
        if (held_mutexes() > 0) --word_;
    }

    // The interpreter has been told this fiber's identity at least once.
    bool was_asked_identity() const noexcept { return (word_ & kIdentityAsked) != 0; }
    void note_identity_asked() noexcept { word_ |= kIdentityAsked; }

    // A wait for a lock has failed because the fiber was cancelled, and the language has not raised that yet.
    bool is_lock_cancelled() const noexcept { return (word_ & kLockCancelled) != 0; }
    void set_lock_cancelled(bool cancelled) noexcept {
        word_ = static_cast<std::uint16_t>(cancelled ? word_ | kLockCancelled : word_ & ~kLockCancelled);
    }

private:
    static constexpr std::uint16_t kLockCancelled = 0x8000;
    static constexpr std::uint16_t kIdentityAsked = 0x4000;
    static constexpr std::uint16_t kMutexes = 0x3fff;

    std::uint16_t& word_;
};

}  // namespace culm::runtime::interpose
