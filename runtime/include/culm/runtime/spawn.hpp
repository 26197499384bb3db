// The few words a C++ program needs: spawn, join, sleep, yield.
//
//   auto fiber = culm::spawn([] { culm::sleep_for(1ms); });
//   fiber.join();
//
// The first of them on an OS thread makes its scheduler. Errors of the environment are Results; an exception that
// leaves the spawned function ends the process, as in std::thread. Invariant: a JoinHandle owns a reference to its
// fiber, not its execution: dropping it detaches.
#pragma once

#include <chrono>
#include <memory>
#include <type_traits>
#include <utility>

#include "culm/result.hpp"
#include "culm/runtime/scheduler.hpp"

namespace culm {

class JoinHandle {
public:
    JoinHandle() = default;
    explicit JoinHandle(runtime::Fiber* fiber) noexcept : fiber_(fiber) {}  // takes the reference over
    JoinHandle(JoinHandle&& other) noexcept : fiber_(std::exchange(other.fiber_, nullptr)) {}
    JoinHandle& operator=(JoinHandle&& other) noexcept {
        std::swap(fiber_, other.fiber_);
        return *this;
    }
    ~JoinHandle() {
        if (fiber_) fiber_->release();
    }

    // Parks until the fiber has finished. Same OS thread only.
    runtime::Wake join(std::int64_t deadline_ns = runtime::kNever) noexcept {
        return runtime::Scheduler::current()->join(*fiber_, deadline_ns);
    }
    void cancel() noexcept { runtime::Scheduler::current()->cancel(*fiber_); }
    runtime::Fiber& fiber() const noexcept { return *fiber_; }
    explicit operator bool() const noexcept { return fiber_ != nullptr; }

private:
    runtime::Fiber* fiber_ = nullptr;
};

struct SpawnOptions {
    const char* name = nullptr;
    StackClass stack_class = kDefaultStackClass;
    const StackStrategy* strategy = nullptr;  // null: default_stack_strategy()
};

// Starts function() on a fiber of the calling thread. ENOMEM when no stack can be had.
template <class Function>
Result<JoinHandle> try_spawn(Function&& function, const SpawnOptions& options = {}) {
    using Body = std::decay_t<Function>;
    auto scheduler = runtime::Scheduler::ensure();
    if (!scheduler) return scheduler.error();
    auto body = std::make_unique<Body>(std::forward<Function>(function));
    auto fiber = scheduler.value()->new_fiber(
        [](runtime::Fiber&, void* argument) {
            std::unique_ptr<Body> owned(static_cast<Body*>(argument));
            (*owned)();
        },
        body.get(), options.stack_class, options.strategy);
    if (!fiber) return fiber.error();
    body.release();
    if (options.name) fiber.value()->set_name(options.name);
    scheduler.value()->start(*fiber.value());
    return JoinHandle(fiber.value());
}

// The same, for programs that treat running out of stacks as fatal: aborts with the reason.
[[noreturn]] void abort_with(const Error& error) noexcept;
template <class Function>
JoinHandle spawn(Function&& function, const SpawnOptions& options = {}) {
    auto handle = try_spawn(std::forward<Function>(function), options);
    if (!handle) abort_with(handle.error());
    return std::move(handle).value();
}

void yield_now() noexcept;
runtime::Wake sleep_for(std::chrono::nanoseconds duration) noexcept;

}  // namespace culm
