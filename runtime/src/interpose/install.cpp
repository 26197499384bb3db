// install(), uninstall() and what happens to them at fork.
// Invariant: slots are patched and restored under installation.mutex only.
#include "install.hpp"

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <mutex>

#include "culm/runtime/interpose.hpp"
#include "gate.hpp"
#include "got.hpp"
#include "table.hpp"

namespace culm::runtime::interpose {

namespace {

struct Installation {
    std::mutex mutex;  // held across fork, so that the child finds it free
    std::atomic<bool> installed{false};
    std::atomic<unsigned long long> loads_seen{0};
    std::atomic<pid_t> process{0};
    const void* interpreter_object = nullptr;  // under mutex
    bool prepared = false;                     // under mutex: real functions known, fork handlers registered
};
constinit Installation installation;

void before_fork() noexcept { installation.mutex.lock(); }

void after_fork_in_parent() noexcept { installation.mutex.unlock(); }

void after_fork_in_child() noexcept {
    installation.process.store(::getpid(), std::memory_order_relaxed);
    installation.mutex.unlock();
}

int prepare() noexcept {
    if (installation.prepared) return 0;
    resolve_real_functions();
    if (const int failure = ::pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child); failure != 0) {
        return failure;
    }
    installation.process.store(::getpid(), std::memory_order_relaxed);
    installation.prepared = true;
    return 0;
}

// Under the mutex.
int patch() noexcept {
    const unsigned long long loads = got::loads();
    const got::Outcome outcome = got::patch(installation.interpreter_object);
    // An object still being loaded is looked at again, however little has been loaded since.
    installation.loads_seen.store(outcome.unsettled ? 0 : loads, std::memory_order_relaxed);
    return outcome.failure;
}

}  // namespace

Result<void> install(const Options& options) noexcept {
    const std::lock_guard lock(installation.mutex);
    if (const int failure = prepare(); failure != 0) {
        return Error{failure, "prepare interposition", "raise the memory limit of the process"};
    }
    if (options.interpreter_object) installation.interpreter_object = options.interpreter_object;
    const bool first = !installation.installed.load(std::memory_order_relaxed);
    const int failure = patch();
    if (failure == 0) {
        installation.installed.store(true, std::memory_order_release);
        return {};
    }
    if (first) got::unpatch();
    return Error{failure, "write the offset table of a loaded object",
                 "a security module may forbid it: allow the process to change the protection of its own memory"};
}

void uninstall() noexcept {
    const std::lock_guard lock(installation.mutex);
    if (!installation.installed.load(std::memory_order_relaxed)) return;
    got::unpatch();
    installation.interpreter_object = nullptr;
    installation.installed.store(false, std::memory_order_release);
}

bool installed() noexcept { return installation.installed.load(std::memory_order_acquire); }

Statistics statistics() noexcept {
    const std::lock_guard lock(installation.mutex);
    Statistics result;
    result.objects = got::object_count();
    result.slots = got::slot_count();
    result.parks = counters.parks.load(std::memory_order_relaxed);
    result.direct = counters.direct.load(std::memory_order_relaxed);
    return result;
}

void patch_new_objects() noexcept {
    if (!installed()) return;
    if (got::loads() == installation.loads_seen.load(std::memory_order_relaxed)) return;
    const int errno_before = errno;
    {
        const std::lock_guard lock(installation.mutex);
        // What cannot be patched stays with libc; install() reports it when it is called again.
        if (installed()) static_cast<void>(patch());
    }
    errno = errno_before;
}

void forget_unloaded_objects() noexcept {
    if (!installed()) return;
    const int errno_before = errno;
    {
        const std::lock_guard lock(installation.mutex);
        if (installed()) static_cast<void>(patch());
    }
    errno = errno_before;
}

bool in_this_process() noexcept { return ::getpid() == installation.process.load(std::memory_order_relaxed); }

}  // namespace culm::runtime::interpose
