// Tells which file descriptors are ready. One per scheduler; epoll in earnest, simulated in tests.
//
// A descriptor stays registered between waits, so that a request-response connection costs no epoll_ctl per request;
// registration is level-triggered and withdrawn when an event finds nobody waiting, in a poll that may sleep. Whoever
// closes a descriptor says so by forget(). Closes that nobody announced are found by recheck(), which re-registers what
// has waited long. Used by one OS thread, except for notify(). Invariant: a wait is linked from watch() until it was
// reported ready, forgotten or unwatched; never twice.
#pragma once

#include <csignal>
#include <cstdint>
#include <memory>

#include "culm/result.hpp"
#include "culm/runtime/wait.hpp"

namespace culm::runtime {

// FdRequest::ready of a descriptor that is not open (the value of POLLNVAL; no epoll event uses it), and of one that
// could not be watched for another reason (the value of EPOLLERR).
inline constexpr std::uint32_t kFdInvalid = 0x20;
inline constexpr std::uint32_t kFdFailed = 0x08;
// What to wait for, as epoll and poll number it.
inline constexpr std::uint32_t kFdReadable = 0x01;
inline constexpr std::uint32_t kFdWritable = 0x04;

// One descriptor to wait for.
struct FdRequest {
    int fd = -1;
    std::uint32_t wanted = 0;  // kFdReadable and so on
    std::uint32_t ready = 0;   // set on return
};

class Reactor {
public:
    virtual ~Reactor() = default;

    // Starts waiting. EPERM: the descriptor is always ready (a regular file); EBADF: it is not open.
    // Several waits for one descriptor are served first come first served per direction; an error or hang-up wakes all.
    virtual Result<void> watch(Wait& wait) noexcept = 0;
    // Ends a wait that was not reported. Harmless on a wait that is not linked.
    virtual void unwatch(Wait& wait) noexcept = 0;

    // Waits at most timeout_ns (0: looks only, while fibers may be runnable; kNever: for ever) and calls on_ready for
    // each wait that became ready, after unlinking it. Returns the number of calls, or -EINTR if a signal came first.
    // `signal_mask` is in force while it waits, as in epoll_pwait(2); null leaves the thread's own.
    using OnReady = void (*)(Wait& wait, void* context);
    virtual int poll(std::int64_t timeout_ns, OnReady on_ready, void* context,
                     const sigset_t* signal_mask = nullptr) noexcept = 0;

    // The descriptor is about to be closed by this process: unlinks all its waits, marked closed, through on_ready.
    virtual void forget(int fd, OnReady on_ready, void* context) noexcept = 0;
    // forget() was called for its descriptor since watch(): the number may mean another file by now.
    virtual bool closed_since(const Wait& wait) const noexcept = 0;
    // Verifies the registration of each wait that has not been verified yet. A wait whose number is no longer open is
    // unlinked, marked closed, through on_ready. True if there was any to verify.
    virtual bool recheck(OnReady on_ready, void* context) noexcept = 0;

    // Makes a poll() that is under way or the next one return. Thread-safe and async-signal-safe.
    virtual void notify() noexcept = 0;
    // After fork in the child: new kernel objects, the same waits.
    virtual Result<void> rebuild() noexcept = 0;
    // In the child of fork, for a reactor whose thread is gone: closes its descriptors and touches nothing else.
    virtual void close_descriptors() noexcept = 0;

    virtual std::size_t waiting() const noexcept = 0;  // linked waits
};

Result<std::unique_ptr<Reactor>> make_epoll_reactor();

// A reactor without a kernel: a test says what is ready.
class SimulatedReactor : public Reactor {
public:
    virtual void set_ready(int fd, std::uint32_t events) noexcept = 0;  // stays ready until cleared
    virtual void clear_ready(int fd, std::uint32_t events) noexcept = 0;
};
std::unique_ptr<SimulatedReactor> make_simulated_reactor();

}  // namespace culm::runtime
