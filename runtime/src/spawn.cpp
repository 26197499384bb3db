// The out-of-line part of the C++ user's words.
#include "culm/runtime/spawn.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace culm {

void abort_with(const Error& error) noexcept {
    std::fprintf(stderr, "culm: cannot %s: %s; %s\n", error.operation, std::strerror(error.code), error.advice);
    std::abort();
}

namespace {

runtime::Scheduler& scheduler_or_abort() noexcept {
    auto scheduler = runtime::Scheduler::ensure();
    if (!scheduler) abort_with(scheduler.error());
    return *scheduler.value();
}

}  // namespace

runtime::Wake JoinHandle::join(std::int64_t deadline_ns) noexcept {
    return scheduler_or_abort().join(fiber(), deadline_ns);
}

void yield_now() noexcept { scheduler_or_abort().yield_now(); }

runtime::Wake sleep_for(std::chrono::nanoseconds duration) noexcept {
    runtime::Scheduler& scheduler = scheduler_or_abort();
    return scheduler.sleep_until(runtime::deadline_after(scheduler.clock().now_ns(), duration.count()));
}

}  // namespace culm
