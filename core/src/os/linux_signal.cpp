// Signals on Linux: handlers on the alternate stack, handing a signal on, the alternate stack itself.
//
// Invariant: what runs inside a handler uses async-signal-safe calls only.
#include <sys/auxv.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "os/fault_injection.hpp"
#include "os/os.hpp"

namespace culm {

namespace {

// Restores the default action and lets it happen. After a fault the instruction runs again once the handler returns,
// and faults again; a signal that somebody sent is raised again and delivered then.
void take_default_action(int signal, const siginfo_t* what) noexcept {
    struct sigaction action {};
    action.sa_handler = SIG_DFL;
    sigemptyset(&action.sa_mask);
    sigaction(signal, &action, nullptr);
    const bool faulted = what->si_code > 0;
    if (!faulted) raise(signal);  // blocked while we handle it, delivered when we return
}

}  // namespace

int os::install_signal_handler(int signal, SignalHandler handler, struct sigaction& previous) noexcept {
    if (const int error = injected_error()) return error;
    struct sigaction action {};
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    return sigaction(signal, &action, &previous) == 0 ? 0 : errno;
}

bool os::is_signal_handler(int signal, SignalHandler handler) noexcept {
    struct sigaction action {};
    if (sigaction(signal, nullptr, &action) != 0) return false;
    return (action.sa_flags & SA_SIGINFO) != 0 && action.sa_sigaction == handler;
}

void os::put_back_signal_handler(int signal, const struct sigaction& previous) noexcept {
    sigaction(signal, &previous, nullptr);
}

void os::hand_on_signal(int signal, siginfo_t* what, void* context, const struct sigaction& previous) noexcept {
    if ((previous.sa_flags & SA_SIGINFO) != 0) {
        previous.sa_sigaction(signal, what, context);
        return;
    }
    if (previous.sa_handler == SIG_DFL) {
        take_default_action(signal, what);
        return;
    }
    if (previous.sa_handler == SIG_IGN) {
        // A fault cannot be ignored, the kernel ends the process for it; a signal that somebody sent can be.
        if (what->si_code > 0) take_default_action(signal, what);
        return;
    }
    previous.sa_handler(signal);
}

bool os::was_raised_by_handler(const siginfo_t* what, const void* context, const void* interrupted_sp) noexcept {
    if (what->si_code != SI_TKILL || what->si_pid != getpid()) return false;
    const stack_t& alternate = static_cast<const ucontext_t*>(context)->uc_stack;
    const auto* start = static_cast<const std::byte*>(alternate.ss_sp);
    return interrupted_sp >= start && interrupted_sp < start + alternate.ss_size;
}

bool os::may_be_lost_signal(const siginfo_t* what) noexcept {
    return what->si_signo == SIGSEGV && what->si_code == SI_KERNEL && what->si_addr == nullptr;
}

std::size_t os::signal_frame_bytes() noexcept {
    constexpr std::size_t kAtLeast = 4096;  // what kernels before 5.14 do not tell
    return std::max(kAtLeast, static_cast<std::size_t>(getauxval(AT_MINSIGSTKSZ)));
}

void os::write_to_stderr(const char* text, std::size_t bytes) noexcept {
    while (bytes > 0) {
        const ssize_t written = write(STDERR_FILENO, text, bytes);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return;
        text += written;
        bytes -= static_cast<std::size_t>(written);
    }
}

std::size_t os::signal_stack_bytes() noexcept {
    stack_t current{};
    if (sigaltstack(nullptr, &current) != 0) return 0;
    return (current.ss_flags & SS_DISABLE) != 0 ? 0 : current.ss_size;
}

int os::set_signal_stack(Range range, stack_t& previous) noexcept {
    if (const int error = injected_error()) return error;
    stack_t wanted{};
    wanted.ss_sp = range.start;
    wanted.ss_size = range.bytes;
    return sigaltstack(&wanted, &previous) == 0 ? 0 : errno;
}

void os::restore_signal_stack(Range range, const stack_t& previous) noexcept {
    stack_t current{};
    if (sigaltstack(nullptr, &current) != 0) return;
    if (current.ss_sp != range.start) return;  // somebody else has replaced it since
    stack_t wanted = previous;
    wanted.ss_flags &= SS_DISABLE;
    sigaltstack(&wanted, nullptr);
}

}  // namespace culm
