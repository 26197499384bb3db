// The fault handler: is it a guard of ours, whose, say so, hand on.
//
// Whether a fault is an overflow is decided by two addresses: what was touched lies in a guard, and the code that
// touched it runs on the stack above that guard. The second keeps a write past the end of a neighbour's stack from
// being reported as an overflow of this one. Invariant: the handler allocates nothing, takes no lock and writes once.
#include "culm/overflow.hpp"

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <mutex>

#include "context/machine.hpp"
#include "culm/fault_resolver.hpp"
#include "culm/kernel.hpp"
#include "culm/stack_arena.hpp"
#include "os/os.hpp"

namespace culm {

namespace {

constexpr std::size_t kSignalStackBytes = std::size_t{64} << 10;

constinit std::atomic<DescribeStackOwner> describe_owner{nullptr};
// Written once under install_mutex before the handlers can run.
struct sigaction previous_segv;
struct sigaction previous_bus;
constinit std::mutex install_mutex;
constinit bool is_installed = false;

// Text put together without the C library: snprintf is not async-signal-safe.
class Report {
public:
    void add(const char* text) noexcept { add(text, std::strlen(text)); }
    void add(const char* text, std::size_t bytes) noexcept {
        for (std::size_t i = 0; i < bytes && length_ < sizeof(text_); ++i) text_[length_++] = text[i];
    }
    void add_number(std::uint64_t number, unsigned radix = 10) noexcept {
        char digits[20];
        std::size_t count = 0;
        do {
            digits[count++] = "0123456789abcdef"[number % radix];
            number /= radix;
        } while (number != 0);
        while (count > 0) add(&digits[--count], 1);
    }
    void send() const noexcept { os::write_to_stderr(text_, length_); }

private:
    char text_[1024];
    std::size_t length_ = 0;
};

void add_owner(Report& report, const Stack& stack) noexcept {
    const DescribeStackOwner describe = describe_owner.load(std::memory_order_acquire);
    char owner[256];
    std::size_t length = describe == nullptr ? 0 : describe(stack, owner, sizeof(owner));
    if (length > sizeof(owner)) length = sizeof(owner);
    if (length == 0) {
        report.add("a fiber");
    } else {
        report.add(owner, length);
    }
}

void report_overflow(const Stack& stack, const std::byte* touched, const std::byte* sp) noexcept {
    const std::byte* deepest = sp != nullptr && sp < touched ? sp : touched;
    Report report;
    report.add("culm: ");
    add_owner(report, stack);
    report.add(" ran out of stack: limit ");
    report.add_number(stack_limit_bytes(stack.size_class));
    report.add(" bytes, used ");
    report.add_number(static_cast<std::uint64_t>(stack.base - deepest));
    report.add(" bytes (fault at 0x");
    report.add_number(reinterpret_cast<std::uintptr_t>(touched), 16);
    report.add("). Spawn it with a larger stack_limit=, or recurse less.\n");
    report.send();
}

// The stack that ran into its guard, or an empty one.
Stack overflown_stack(const std::byte* touched, const std::byte* sp) noexcept {
    const Stack guarded = stack_of_guard_address(touched);
    if (!guarded) return {};
    if (sp == nullptr) return guarded;  // not known on this CPU
    const Stack running = stack_of_address(sp);
    const bool on_another = running && running.base != guarded.base;
    return on_another ? Stack{} : guarded;
}

// Another handler, installed after ours, has restored ours and raised the signal again instead of returning to the
// fault. Letting that pass makes the faulting instruction run again, with its address. Once: a second one is meant.
bool let_pass(const siginfo_t* what, const void* context, const void* sp) noexcept {
    static constinit std::atomic<bool> passed{false};
    if (!os::was_raised_by_handler(what, context, sp)) return false;
    return !passed.exchange(true);
}

void handle_fault(int signal, siginfo_t* what, void* context) {
    const int saved_errno = errno;
    const void* sp = machine::interrupted_sp(context);
    if (let_pass(what, context, sp)) return;
    const bool faulted = what->si_code > 0;
    if (faulted && signal == SIGSEGV && resolve_fault(what->si_addr)) {
        errno = saved_errno;
        return;
    }
    if (faulted) {
        const auto* touched = static_cast<const std::byte*>(what->si_addr);
        const auto* at = static_cast<const std::byte*>(sp);
        const Stack stack = overflown_stack(touched, at);
        if (stack) report_overflow(stack, touched, at);
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

Result<void> install_overflow_handler(DescribeStackOwner describe) noexcept {
    if (describe != nullptr) describe_owner.store(describe, std::memory_order_release);
    const std::lock_guard lock(install_mutex);
    if (is_installed) return {};
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
