// Makes the n-th call to the operating system fail, so that tests can walk every error path.
//
// Every function in os.hpp that can fail because the machine has run out of something asks injected_error() first. It
// costs one load and one well predicted branch beside a system call.
// Invariant: at most one call fails per fail_call().
#pragma once

#include <atomic>

namespace culm::os {

// The n-th call from now on (1 is the next) fails with `error`. 0 switches it off.
void fail_call(long nth, int error) noexcept;

// Whether the failure asked for is still to come.
bool failure_pending() noexcept;

namespace detail {
extern std::atomic<long> calls_until_failure;
int count_call() noexcept;
}  // namespace detail

// The errno to fail with, or 0 to go ahead.
inline int injected_error() noexcept {
    if (detail::calls_until_failure.load(std::memory_order_relaxed) == 0) [[likely]]
        return 0;
    return detail::count_call();
}

}  // namespace culm::os
