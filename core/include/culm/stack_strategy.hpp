// Ways to allocate a stack, behind one interface, with what each can and cannot do declared beside it.
//
// The arena is what fibers get unless a program chooses another of those listed here (spawn with a strategy). More
// ways, which are there to be measured and which no fiber can run on, are in lab/strategies, behind the same interface.
// What a strategy declares is proven by tests/core/strateg*.cpp, the failures included. Invariant: a stack that
// create() handed out is usable over all of [limit, base) by code that runs on it, in the way the traits say, until
// destroy().
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "culm/result.hpp"
#include "culm/stack.hpp"

namespace culm {

// What lies below the limit.
enum class GuardMeans : std::uint8_t {
    kNone,
    kKernelMarker,  // MADV_GUARD_INSTALL: no mapping of its own
    kMprotect,      // a range without access: a mapping of its own
    kGap,           // nothing but the kernel's stack_guard_gap, which holds towards some neighbours only
};

// Whether a system call may write into stack that nothing has touched yet.
enum class KernelWrites : std::uint8_t {
    kYes,
    kThroughFunction,  // if a function was called after the buffer was made: the return address lies below the buffer
    kNo,
};

// vm.overcommit_memory=2.
enum class StrictOvercommit : std::uint8_t {
    kWorks,    // what is used is charged
    kCharged,  // works, and the whole limit of each stack is charged
    kFails,
};

struct StrategyTraits {
    bool grows = false;    // memory arrives as the stack deepens; otherwise all of it at creation
    bool shrinks = false;  // shrink() gives memory back
    GuardMeans guard = GuardMeans::kNone;
    bool catches_small_overflow = false;  // running on page by page, as recursion does, ends in a fault at the limit
    bool catches_large_overflow = false;  // so does one access 64 KB below the limit
    bool neighbour_safe = false;          // running on page by page never reaches another stack
    KernelWrites kernel_may_write = KernelWrites::kYes;
    std::uint32_t mappings_per_stack = 0;  // in the long run; 0: neighbours share one
    StrictOvercommit strict_overcommit = StrictOvercommit::kWorks;
    bool survives_fork = true;  // the child can go on using the stack
    bool guard_survives_fork = false;
    bool carries_python = false;         // a Python fiber may run on it
    bool pointers_stay_valid = true;     // into the stack, while it is suspended
    std::size_t limit_bytes_min = 4096;  // a smaller limit is refused
    std::size_t limit_bytes_max = 0;     // a larger one is refused; 0: only the address space bounds it
};

struct StrategyStack {
    std::byte* base = nullptr;    // highest address, exclusive
    std::size_t limit_bytes = 0;  // usable; what was asked for, rounded up to whole pages (arena: to a size class)
    void* record = nullptr;       // the strategy's own

    std::byte* limit() const noexcept { return base - limit_bytes; }
};

// A suspended stack: nothing below `sp` is in use but the red zone.
struct SuspendedStrategyStack {
    StrategyStack* stack = nullptr;
    const void* sp = nullptr;
};

// One of a kind per process; thread-safe, except that each stack belongs to one thread at a time.
class StackStrategy {
public:
    virtual const char* id() const noexcept = 0;       // "fault-handler": what lookups and spawn take
    virtual const char* name() const noexcept = 0;     // "PROT_NONE + SIGSEGV handler"
    virtual const char* summary() const noexcept = 0;  // one sentence
    virtual const StrategyTraits& traits() const noexcept = 0;
    // Null when it works on this kernel and with these settings; otherwise why not.
    virtual const char* why_unavailable() const noexcept { return nullptr; }

    // Makes a stack of at least `limit_bytes` for each element, all or none. EINVAL for a limit outside the traits'
    // bounds, ENOMEM when memory, address space or mappings run out, ENOSYS or EPERM where the kernel refuses.
    // The thread that runs the stack must have called prepare_thread().
    Result<void> create(std::size_t limit_bytes, std::span<StrategyStack> stacks) noexcept;
    // None of them is in use any more.
    virtual void destroy(std::span<const StrategyStack> stacks) noexcept = 0;
    // Gives memory below sp - kRedZoneBytes - one page back. Returns how many ranges the kernel was given.
    virtual std::size_t shrink(std::span<const SuspendedStrategyStack> stacks) noexcept = 0;

    // What a thread needs before it runs such stacks: the signal stack, where faults grow them.
    virtual Result<void> prepare_thread() noexcept { return {}; }
    // Around a switch, on the stack of neither: copying stacks move in and out here.
    virtual Result<void> suspended(StrategyStack&, const void* /* sp */) noexcept { return {}; }
    virtual void resuming(StrategyStack&) noexcept {}

    // Where a fault grows the stack: makes it accessible from its base to the page of `address`. False: not in a stack
    // of this strategy, or below its limit. Async-signal-safe.
    virtual bool commit_on_fault(void* /* address */) noexcept { return false; }
    // The lowest address that is accessible as things are; a touch below it makes a strategy that works by faults grow.
    virtual const std::byte* committed_limit(const StrategyStack& stack) const noexcept { return stack.limit(); }
    // How often commit_on_fault() or a monitor has grown a stack, in the process.
    virtual std::uint64_t faults_handled() const noexcept { return 0; }

    StackStrategy(const StackStrategy&) = delete;
    StackStrategy& operator=(const StackStrategy&) = delete;

protected:
    StackStrategy() = default;
    ~StackStrategy() = default;  // they live as long as the process

    virtual Result<void> create_rounded(std::size_t limit_bytes, std::span<StrategyStack> stacks) noexcept = 0;
};

// Those that a fiber can run on, the default first.
std::span<StackStrategy* const> stack_strategies() noexcept;
// EINVAL for an unknown one; the advice lists those there are.
Result<StackStrategy*> stack_strategy(std::string_view id) noexcept;
// "arena, mmap, ...": their names, for error messages.
const char* stack_strategy_ids() noexcept;

}  // namespace culm
