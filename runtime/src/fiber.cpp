// The control block's few out-of-line members: its name, and its end when nobody holds it any more.
// Invariant: a control block returns to its slab exactly once, when the last reference goes, on whatever thread that
// is.
#include "culm/runtime/fiber.hpp"

#include <cstdlib>
#include <cstring>

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

void Fiber::release() noexcept {
    // The only holder needs no read-modify-write: nobody else can retain what nobody else holds.
    const bool last =
        references_.load(std::memory_order_acquire) == 1 || references_.fetch_sub(1, std::memory_order_acq_rel) == 1;
    if (!last) return;
    if (has_reservation_) scheduler_->return_promise(*this);
    std::free(name_);
    FiberSlab::give_back(*this);
}

}  // namespace culm::runtime
