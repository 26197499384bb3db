// The fault handler: is it a yellow zone of ours, to be opened; is it a guard of ours, say so; else hand on.
//
// Whether a fault is an overflow is decided by two addresses: what was touched lies in a zone or guard, and the code
// that touched it runs on the stack above. The second keeps a write past the end of a neighbour's stack from being
// taken for an overflow of this one. Invariant: the handler allocates nothing and takes no lock.
#include "culm/overflow.hpp"

#include <atomic>
#include <cerrno>
#include <mutex>

#include "context/machine.hpp"
#include "culm/fault_resolver.hpp"
#include "culm/kernel.hpp"
#include "culm/residency.hpp"
#include "os/os.hpp"
#include "stack/chunk_table.hpp"
#include "stack/overflow_report.hpp"

namespace culm {

namespace {

constexpr std::size_t kSignalStackBytes = std::size_t{64} << 10;

constinit std::atomic<DescribeStackOwner> describe_owner{nullptr};
constinit std::atomic<bool (*)(const Stack&, YellowZone)> ask_owner{nullptr};
constinit std::atomic<void (*)(const Stack&)> trace_owner{nullptr};

StackOwner registered_owner() noexcept {
    return {describe_owner.load(std::memory_order_acquire), ask_owner.load(std::memory_order_acquire),
            trace_owner.load(std::memory_order_acquire)};
}
// Written once under install_mutex before the handlers can run.
struct sigaction previous_segv;
struct sigaction previous_bus;
constinit std::mutex install_mutex;
constinit bool is_installed = false;

// What a fault means for stacks of ours.
struct Fault {
    const std::byte* touched = nullptr;
    const std::byte* sp = nullptr;            // null: not known on this CPU
    Stack stack;                              // that ran out; empty: none did
    YellowZone wanted = YellowZone::kClosed;  // closed: this will not do, it is in the guard
};

// A fault without an address: the kernel may have failed to put a signal handler's frame on the stack.
Fault understand_lost_signal(const std::byte* sp) noexcept {
    if (sp == nullptr) return {};
    const stack::Place place = stack::place_of(sp);
    if (place.part == stack::Part::kGuard) return {};
    const std::byte* frame = sp - os::signal_frame_bytes() - kRedZoneBytes;
    if (place.stack.base == nullptr || frame >= place.stack.limit()) return {};
    return {sp, sp, place.stack, YellowZone::kOpen};
}

Fault understand(const siginfo_t* what, const std::byte* sp) noexcept {
    if (os::may_be_lost_signal(what)) return understand_lost_signal(sp);
    const auto* touched = static_cast<const std::byte*>(what->si_addr);
    const stack::Place place = stack::place_of(touched);
    if (place.stack.base == nullptr || place.part == stack::Part::kStack) return {};
    if (sp != nullptr) {
        const stack::Place running = stack::place_of(sp);
        // Far below the guard of the same stack is not below it any more, but in the stack next to it.
        if (running.stack.base != nullptr && running.stack.base != place.stack.base) return {};
    }
    Fault fault{touched, sp, place.stack};
    if (place.part == stack::Part::kGuard) return fault;
    const auto below = static_cast<std::size_t>(place.stack.limit() - touched);
    fault.wanted = below <= place.yellow_bytes / 2 ? YellowZone::kHalfOpen : YellowZone::kOpen;
    return fault;
}

// The owner has the zone opened, and what faulted is done again.
bool opened(const Fault& fault) noexcept {
    const auto may_open = ask_owner.load(std::memory_order_acquire);
    if (fault.wanted == YellowZone::kClosed || may_open == nullptr) return false;
    if (!may_open(fault.stack, fault.wanted)) return false;
    return open_yellow_zone(fault.stack, fault.wanted);
}

// Another handler, installed after ours, has restored ours and raised the signal again instead of returning to the
// fault. Letting that pass makes the faulting instruction run again, with its address. Once: a second one is meant.
constinit std::atomic<bool> passed{false};
bool let_pass(const siginfo_t* what, const void* context, const void* sp) noexcept {
    if (!os::was_raised_by_handler(what, context, sp)) return false;
    return !passed.exchange(true);
}

// The code that faulted may go on.
bool resolved(int signal, const siginfo_t* what, const void* context) noexcept {
    if (signal == SIGSEGV && resolve_fault(what->si_addr)) return true;
    const Fault fault = understand(what, static_cast<const std::byte*>(machine::interrupted_sp(context)));
    if (!fault.stack) return false;
    if (opened(fault)) {
        passed.store(false);
        return true;
    }
    if (os::may_be_lost_signal(what)) return false;
    stack::report_overflow(
        {.stack = fault.stack, .touched = fault.touched, .sp = fault.sp, .pc = machine::interrupted_pc(context)},
        registered_owner());
    return false;
}

void handle_fault(int signal, siginfo_t* what, void* context) {
    const int saved_errno = errno;
    const void* sp = machine::interrupted_sp(context);
    if (let_pass(what, context, sp)) return;
    if (what->si_code > 0 && resolved(signal, what, context)) {
        errno = saved_errno;
        return;
    }
    errno = saved_errno;
    os::hand_on_signal(signal, what, context, signal == SIGSEGV ? previous_segv : previous_bus);
}

// The alternate stack of the calling thread: a guard, then 64 KB.
struct SignalStack {
    os::Range mapping;
    os::Range usable;
    stack_t previous{};
};
thread_local SignalStack signal_stack;

Error no_signal_stack(int error) noexcept {
    return {error, "make an alternate signal stack", "free memory, or raise the address-space limit (ulimit -v)"};
}

}  // namespace

void report_running_out(const Stack& stack) noexcept {
    constexpr std::ptrdiff_t kBacktraceBytes = 8192;
    const auto* here = static_cast<const std::byte*>(__builtin_frame_address(0));
    const std::byte* guard = stack.limit() - yellow_zone_bytes(stack);
    stack::report_overflow({.stack = stack,
                            .touched = here,
                            .sp = here,
                            .pc = nullptr,
                            .is_fault = false,
                            .has_room = here - guard >= kBacktraceBytes},
                           registered_owner());
}

Result<void> install_overflow_handler(const StackOwner& owner) noexcept {
    if (owner.describe != nullptr) describe_owner.store(owner.describe, std::memory_order_release);
    if (owner.may_open != nullptr) ask_owner.store(owner.may_open, std::memory_order_release);
    if (owner.trace != nullptr) trace_owner.store(owner.trace, std::memory_order_release);
    const std::lock_guard lock(install_mutex);
    if (is_installed) return {};
    stack::prepare_overflow_report();
    constexpr const char* kOperation = "install the stack overflow handler";
    if (const int error = os::install_signal_handler(SIGSEGV, handle_fault, previous_segv)) {
        return Error{error, kOperation, "check whether the process may change its signal handlers"};
    }
    if (const int error = os::install_signal_handler(SIGBUS, handle_fault, previous_bus)) {
        // Both or none: a later call must not find ours as the one to hand on to.
        os::put_back_signal_handler(SIGSEGV, previous_segv);
        return Error{error, kOperation, "check whether the process may change its signal handlers"};
    }
    is_installed = true;
    return {};
}

bool remove_overflow_handler() noexcept {
    const std::lock_guard lock(install_mutex);
    if (!is_installed) return false;
    if (!os::is_signal_handler(SIGSEGV, handle_fault) || !os::is_signal_handler(SIGBUS, handle_fault)) return false;
    os::put_back_signal_handler(SIGSEGV, previous_segv);
    os::put_back_signal_handler(SIGBUS, previous_bus);
    is_installed = false;
    return true;
}

Result<void> ensure_thread_signal_stack() noexcept {
    if (os::signal_stack_bytes() >= kSignalStackBytes) return {};
    release_thread_signal_stack();  // ours, if somebody has replaced it by a smaller one
    const std::size_t page_bytes = kernel_features().page_bytes;
    const std::size_t bytes = kSignalStackBytes + page_bytes;
    int error = 0;
    std::byte* start = os::reserve(bytes, os::Access::kReadWrite, error);
    if (start == nullptr) return no_signal_stack(error);
    SignalStack made;
    made.mapping = {start, bytes};
    made.usable = {start + page_bytes, kSignalStackBytes};
    error = os::set_access({start, page_bytes}, os::Access::kNone);
    if (error == 0) error = os::set_signal_stack(made.usable, made.previous);
    if (error != 0) {
        os::release(made.mapping);
        return no_signal_stack(error);
    }
    signal_stack = made;
    return {};
}

void release_thread_signal_stack() noexcept {
    if (signal_stack.mapping.start == nullptr) return;
    os::restore_signal_stack(signal_stack.usable, signal_stack.previous);
    os::release(signal_stack.mapping);
    signal_stack = {};
}

}  // namespace culm
