// The control block's few out-of-line members: its name, and its end when nobody holds it any more.
// Invariant: a control block returns to its slab exactly once, when the last reference goes, on whatever thread that
// is.
#include "culm/runtime/fiber.hpp"

#include <cassert>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "culm/check.hpp"
#include "culm/runtime/scheduler.hpp"
#include "fiber_slab.hpp"

namespace culm::runtime {

// Three cache lines; a sanitizer's record makes it larger.
static_assert(instrument::kInstrumented || sizeof(Fiber) <= 192);

namespace {
constexpr std::size_t kNameBytesMax = 255;
}

void Fiber::set_name(const char* name) noexcept {
    char* copy = name ? strndup(name, kNameBytesMax) : nullptr;  // without memory it stays nameless
    std::free(std::exchange(name_, copy));
}

std::uintptr_t Fiber::wait_object() const noexcept {
    switch (wait_kind_) {
        case WaitKind::kFd:
            return static_cast<std::uintptr_t>(own_.target.descriptor.fd);
        case WaitKind::kJoin:
            if (is_shared_wait_) return reinterpret_cast<std::uintptr_t>(own_.target.key) >> 1;  // ParkingLot::end_of
            return fiber_joined_through(own_.target.key).id_;
        case WaitKind::kLock:
        case WaitKind::kQueue:
            return reinterpret_cast<std::uintptr_t>(own_.target.key);
        case WaitKind::kNone:
        case WaitKind::kPermit:
        case WaitKind::kSleep:
        case WaitKind::kOperation:
            break;
    }
    return 0;
}

const Fiber& Fiber::fiber_joined_through(const void* joiners) noexcept {
    return *owner_of(static_cast<WaitRing*>(const_cast<void*>(joiners)), &Fiber::joiners_);
}

unsigned long Fiber::identity() const noexcept {
    return is_main_ ? scheduler_->thread_identity() : reinterpret_cast<unsigned long>(this);
}

void* Fiber::take_argument() noexcept {
    assert(has_not_run());
    return std::exchange(own_.value, nullptr);
}

void* Fiber::value_sent() const noexcept { return has_extra_waits_ || has_not_run() ? nullptr : own_.value; }

void* Fiber::take_value_sent() noexcept { return value_sent() ? std::exchange(own_.value, nullptr) : nullptr; }

void* Fiber::take_value_of_permit() noexcept { return std::exchange(permit_value_, nullptr); }

void Fiber::release() noexcept {
    // The only holder needs no read-modify-write: nobody else can retain what nobody else holds.
    const bool last =
        references_.load(std::memory_order_acquire) == 1 || references_.fetch_sub(1, std::memory_order_acq_rel) == 1;
    if (!last) return;
    if (state_ == FiberState::kNew) {
        check(Scheduler::current() == scheduler_,
              "a fiber that was made and not started was released on another OS thread: discard it on its own");
        scheduler_->discard(*this);
    }
    std::free(name_);
    FiberSlab::give_back(*this);
}

}  // namespace culm::runtime
