// Tells which file descriptors are ready. One per scheduler; epoll in earnest, simulated in tests.
//
// A descriptor stays registered between waits, so that a request-response connection costs no epoll_ctl per request;
// registration is level-triggered and withdrawn when an event finds nobody waiting. Whoever closes a descriptor says so
// by forget(). Closes that nobody announced are found by recheck(), which re-registers what has waited long.
// Used by one OS thread, except for notify().
// Invariant: an FdWait is linked from watch() until it was reported ready, forgotten or unwatched; never twice.
#pragma once

#include <cstdint>
#include <memory>

#include "culm/result.hpp"
#include "culm/runtime/intrusive_list.hpp"

namespace culm::runtime {

class Fiber;

// FdRequest::ready of a descriptor that is not open (the value of POLLNVAL; no epoll event uses it).
inline constexpr std::uint32_t kFdInvalid = 0x20;

// One descriptor of a wait for several.
struct FdRequest {
    int fd = -1;
    std::uint32_t wanted = 0;
    std::uint32_t ready = 0;  // set on return
};

// One fiber's wait for one descriptor. Lives in the scheduler's pool, never on a stack.
struct FdWait {
    ListLink link;
    Fiber* fiber = nullptr;
    FdWait* next = nullptr;   // the same fiber's next wait
    std::uint32_t index = 0;  // which of the fiber's requests this is
    int fd = -1;
    std::uint32_t wanted = 0;  // EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP
    std::uint32_t ready = 0;   // what came, with EPOLLERR and EPOLLHUP; 0 until then
    bool closed = false;       // forget() was called for the descriptor
    bool rechecked = false;    // recheck() has looked at this wait
    std::uint16_t closes = 0;  // of its number, at the time of watch()
};

class Reactor {
public:
    virtual ~Reactor() = default;

    // Starts waiting. EPERM: the descriptor is always ready (a regular file); EBADF: it is not open.
    // Several waits for one descriptor are served first come first served per direction; an error or hang-up wakes all.
    virtual Result<void> watch(FdWait& wait) noexcept = 0;
    // Ends a wait that was not reported. Harmless on a wait that is not linked.
    virtual void unwatch(FdWait& wait) noexcept = 0;

    // Waits at most timeout_ns (0: looks only, while fibers may be runnable; kNever: for ever) and calls on_ready for
    // each wait that became ready, after unlinking it. Returns the number of calls, or -EINTR if a signal came first.
    using OnReady = void (*)(FdWait& wait, void* context);
    virtual int poll(std::int64_t timeout_ns, OnReady on_ready, void* context) noexcept = 0;

    // The descriptor is about to be closed by this process: unlinks all its waits, marked closed, through on_ready.
    virtual void forget(int fd, OnReady on_ready, void* context) noexcept = 0;
    // forget() was called for its descriptor since watch(): the number may mean another file by now.
    virtual bool closed_since(const FdWait& wait) const noexcept = 0;
    // Verifies the registration of each wait that has not been verified yet. A wait whose number is no longer open is
    // unlinked, marked closed, through on_ready. True if there was any to verify.
    virtual bool recheck(OnReady on_ready, void* context) noexcept = 0;

    // Makes a poll() that is under way or the next one return. Thread-safe and async-signal-safe.
    virtual void notify() noexcept = 0;
    // After fork in the child: new kernel objects, the same waits.
    virtual Result<void> rebuild() noexcept = 0;
    // In the child of fork, for a reactor whose thread is gone: closes its descriptors and touches nothing else.
    virtual void close_descriptors() noexcept = 0;

    virtual std::size_t waiting() const noexcept = 0;  // linked FdWaits
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
