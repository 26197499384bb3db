// userfaultfd: a monitor thread fills each missing page when it is touched, whoever touches it.
//
// Unlike a signal this covers the kernel's own writes, if the process may have them reported (it is privileged, or
// vm.unprivileged_userfaultfd is 1); otherwise those fail with EFAULT. A child of fork is not watched: there demand
// paging fills in. Invariant: the monitor touches no watched page.
#include <atomic>
#include <cerrno>
#include <mutex>

#include "strategies/growth.hpp"
#include "strategies/strategies.hpp"
#include "strategy/mapping_each.hpp"

namespace culm::lab::strategies {

namespace {

constexpr StrategyTraits kWatchingTheKernel{
    .grows = true,
    .shrinks = true,
    .guard = GuardMeans::kMprotect,
    .catches_small_overflow = true,
    .catches_large_overflow = false,
    .neighbour_safe = true,
    .kernel_may_write = KernelWrites::kYes,
    .mappings_per_stack = 2,
    .strict_overcommit = StrictOvercommit::kCharged,
    .survives_fork = true,
    .guard_survives_fork = true,
};
constexpr StrategyTraits kWatchingTheProgram = [] {
    StrategyTraits traits = kWatchingTheKernel;
    traits.kernel_may_write = KernelWrites::kNo;
    return traits;
}();

class UserFaultFd final : public strategy::MappingEach {
public:
    UserFaultFd() noexcept : MappingEach(GuardPage::kBelow) {}

    const char* id() const noexcept override { return "userfaultfd"; }
    const char* name() const noexcept override { return "userfaultfd + monitor thread"; }
    const char* summary() const noexcept override {
        return "A monitor thread fills each missing page through userfaultfd: correct for the kernel's writes where "
               "the "
               "process is allowed to watch them, and the dearest way to grow.";
    }
    const StrategyTraits& traits() const noexcept override {
        return probe().user_mode_only ? kWatchingTheProgram : kWatchingTheKernel;
    }
    const char* why_unavailable() const noexcept override { return probe().why_not; }

    std::uint64_t faults_handled() const noexcept override { return faults_.load(std::memory_order_relaxed); }

private:
    struct Probe {
        bool user_mode_only = false;
        const char* why_not = nullptr;
    };

    static const Probe& probe() noexcept {
        static const Probe found = [] {
            Probe result;
            int error = 0;
            int fd = open_userfaultfd(false, error);
            result.user_mode_only = fd < 0;
            if (fd < 0) fd = open_userfaultfd(true, error);
            if (fd >= 0) {
                close_descriptor(fd);
            } else if (error == ENOSYS) {
                result.why_not = "this kernel has no userfaultfd";
            } else {
                result.why_not =
                    "this process may not use userfaultfd (a sandbox, or an old kernel without "
                    "vm.unprivileged_userfaultfd=1)";
            }
            return result;
        }();
        return found;
    }

    Result<void> begin() noexcept override { return start_monitor(); }
    int mapped(os::Range stack) noexcept override {
        return watch_missing_pages(fd_.load(std::memory_order_relaxed), stack);
    }

    static Error refused(int error) noexcept {
        return {error, "watch stacks with userfaultfd",
                "run as root or set vm.unprivileged_userfaultfd=1, or use another strategy"};
    }

    Result<void> start_monitor() noexcept {
        const std::lock_guard lock(mutex_);
        if (fd_.load(std::memory_order_relaxed) >= 0) return {};
        only_ = this;
        static const int hooked = os::at_fork(nullptr, nullptr, [] { only_->forget_monitor(); });
        if (hooked != 0) return refused(hooked);
        int error = 0;
        const int fd = open_userfaultfd(probe().user_mode_only, error);
        if (fd < 0) return refused(error);
        fd_.store(fd, std::memory_order_release);
        error = start_thread(&UserFaultFd::monitor, this);
        if (error == 0) return {};
        fd_.store(-1, std::memory_order_release);
        close_descriptor(fd);
        return refused(error);
    }

    // The thread. It lives as long as the process.
    static void* monitor(void* self) noexcept {
        auto* strategy = static_cast<UserFaultFd*>(self);
        const int fd = strategy->fd_.load(std::memory_order_acquire);
        const std::size_t page_bytes = kernel_features().page_bytes;
        void* address = nullptr;
        while (next_missing_page(fd, address)) {
            strategy->faults_.fetch_add(1, std::memory_order_relaxed);
            // If this fails, it wakes whoever waits all the same, and the fault is reported again.
            static_cast<void>(fill_missing_page(fd, strategy::page_floor(address), page_bytes));
        }
        return nullptr;
    }

    // In the child of a fork: what it inherited watches the parent's memory.
    void forget_monitor() noexcept {
        const int inherited = fd_.exchange(-1);
        if (inherited >= 0) close_descriptor(inherited);
    }

    static inline UserFaultFd* only_ = nullptr;
    std::mutex mutex_;  // guards starting the monitor
    std::atomic<int> fd_{-1};
    std::atomic<std::uint64_t> faults_{0};
};

}  // namespace

StackStrategy& userfaultfd() noexcept {
    static UserFaultFd only;
    return only;
}

}  // namespace culm::lab::strategies
