// The few words a C++ program needs: spawn, join, sleep, yield.
//
//   auto fiber = culm::spawn([] { culm::sleep_for(1ms); });
//   fiber.join();
//
// The first of them on an OS thread makes its scheduler. Errors of the environment are Results; an exception that
// leaves the spawned function ends the process, as in std::thread. What has not been started is a culm::task, and may
// be started by any thread. Invariant: a JoinHandle owns a reference to its fiber, not its execution: dropping it
// detaches.
#pragma once

#include <chrono>
#include <memory>
#include <type_traits>
#include <utility>

#include "culm/check.hpp"
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

    // Parks until the fiber has finished, on whatever OS thread it runs; the calling thread gets a scheduler if it has
    // none. A fiber that joins itself ends the process with a sentence.
    runtime::Wake join(std::int64_t deadline_ns = runtime::kNever) noexcept;
    // The fiber's current or next wait ends with kCancelled. From any OS thread.
    void cancel() noexcept { runtime::Scheduler::cancel(fiber()); }
    // Ends the process with a sentence if the handle is empty: moved from, or made without a fiber.
    runtime::Fiber& fiber() const noexcept {
        check(fiber_ != nullptr, "this JoinHandle is empty: it was moved from, or never held a fiber");
        return *fiber_;
    }
    explicit operator bool() const noexcept { return fiber_ != nullptr; }

private:
    runtime::Fiber* fiber_ = nullptr;
};

struct SpawnOptions {
    const char* name = nullptr;
    StackClass stack_class = kDefaultStackClass;
    const StackStrategy* strategy = nullptr;  // null: default_stack_strategy()
};

// A function that has not been started yet. It promises no stack, and may be handed to another OS thread.
template <class Function>
class task {
public:
    explicit task(Function function, const SpawnOptions& options = {})
        : function_(std::make_unique<Function>(std::move(function))), options_(options) {}

    // Starts it on a fiber of the calling thread, where it stays. ENOMEM when no stack can be had: then the task is
    // still there. A task is started once; a second time ends the process with a sentence.
    Result<JoinHandle> start() && {
        check(function_ != nullptr, "a task was started twice: it runs once");
        auto scheduler = runtime::Scheduler::ensure();
        if (!scheduler) return scheduler.error();
        auto fiber = scheduler.value()->start({.body = &task::run,
                                               .argument = function_.get(),
                                               .name = options_.name,
                                               .stack_class = options_.stack_class,
                                               .strategy = options_.strategy});
        if (!fiber) return fiber.error();
        static_cast<void>(function_.release());
        return JoinHandle(fiber.value());
    }

private:
    static void run(runtime::Fiber&, void* argument) {
        const std::unique_ptr<Function> owned(static_cast<Function*>(argument));
        (*owned)();
    }

    std::unique_ptr<Function> function_;
    SpawnOptions options_;
};

// Starts function() on a fiber of the calling thread. ENOMEM when no stack can be had.
template <class Function>
Result<JoinHandle> try_spawn(Function&& function, const SpawnOptions& options = {}) {
    return task<std::decay_t<Function>>(std::forward<Function>(function), options).start();
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
