// The countdown behind fail_call().
#include "os/fault_injection.hpp"

namespace culm {

namespace os::detail {
constinit std::atomic<long> calls_until_failure{0};
}

namespace {
constinit std::atomic<int> error_to_give{0};
}

void os::fail_call(long nth, int error) noexcept {
    error_to_give.store(error, std::memory_order_relaxed);
    detail::calls_until_failure.store(nth, std::memory_order_relaxed);
}

bool os::failure_pending() noexcept { return detail::calls_until_failure.load(std::memory_order_relaxed) > 0; }

int os::detail::count_call() noexcept {
    // Another thread may have fired it between the load and here: then the count is below 1 and nothing happens.
    if (calls_until_failure.fetch_sub(1, std::memory_order_relaxed) != 1) return 0;
    return error_to_give.load(std::memory_order_relaxed);
}

}  // namespace culm
