// PROT_NONE reservations that the SIGSEGV handler opens, on the alternate stack, by mprotect in place.
//
// mprotect is not on POSIX's list of async-signal-safe functions; on Linux it is a bare system call. What the kernel
// itself writes raises no signal: it fails with EFAULT where nothing has been opened yet. Invariant: the handler takes
// no lock and allocates nothing.
#include <atomic>

#include "culm/fault_resolver.hpp"
#include "culm/overflow.hpp"
#include "strategy/faulted_slots.hpp"
#include "strategy/strategy.hpp"

namespace culm {

namespace {

constexpr StrategyTraits kTraits{
    .grows = true,
    .shrinks = true,
    .guard = GuardMeans::kMprotect,
    .catches_small_overflow = true,
    .catches_large_overflow = true,  // its guard is a piece of the reservation, so 64 KB of it cost nothing
    .neighbour_safe = true,
    .kernel_may_write = KernelWrites::kThroughFunction,
    .mappings_per_stack = 2,
    .strict_overcommit = StrictOvercommit::kWorks,
    .survives_fork = true,
    .guard_survives_fork = true,
    .carries_python = true,
};

bool resolve(void* address) { return strategy::fault_handler().commit_on_fault(address); }

class FaultHandler final : public StackStrategy {
public:
    const char* id() const noexcept override { return "fault-handler"; }
    const char* name() const noexcept override { return "PROT_NONE + SIGSEGV handler"; }
    const char* summary() const noexcept override {
        return "A reservation without access that the SIGSEGV handler opens down to the faulting page; charged as "
               "used, "
               "even under strict overcommit, and closed to the kernel's own writes until opened.";
    }
    const StrategyTraits& traits() const noexcept override { return kTraits; }

    void destroy(std::span<const StrategyStack> stacks) noexcept override { slots_.destroy(stacks); }
    std::size_t shrink(std::span<const SuspendedStrategyStack> stacks) noexcept override {
        return slots_.shrink(stacks);
    }
    Result<void> prepare_thread() noexcept override { return ensure_thread_signal_stack(); }
    bool commit_on_fault(void* address) noexcept override { return slots_.open(address); }
    const std::byte* committed_limit(const StrategyStack& stack) const noexcept override {
        return slots_.open_from(stack);
    }
    std::uint64_t faults_handled() const noexcept override { return slots_.faults(); }

private:
    Result<void> create_rounded(std::size_t limit_bytes, std::span<StrategyStack> stacks) noexcept override {
        if (Result<void> ready = get_ready(); !ready) return ready;
        return slots_.create(limit_bytes, stacks);
    }

    // At the first stack of the process: has the fault handler ask us, and holds our lock across forks. If the former
    // fails, the next stack tries again.
    Result<void> get_ready() noexcept {
        if (is_ready_.load(std::memory_order_acquire)) return {};
        if (Result<void> added = add_fault_resolver(&resolve); !added) return added;
        static const int hooked = os::at_fork(&FaultHandler::lock, &FaultHandler::unlock, &FaultHandler::unlock);
        if (hooked != 0) return strategy::no_stack(hooked);
        is_ready_.store(true, std::memory_order_release);
        return {};
    }
    static void lock() noexcept { static_cast<FaultHandler&>(strategy::fault_handler()).slots_.lock(); }
    static void unlock() noexcept { static_cast<FaultHandler&>(strategy::fault_handler()).slots_.unlock(); }

    std::atomic<bool> is_ready_{false};
    strategy::FaultedSlots slots_;
};

}  // namespace

StackStrategy& strategy::fault_handler() noexcept {
    static FaultHandler only;
    return only;
}

}  // namespace culm
