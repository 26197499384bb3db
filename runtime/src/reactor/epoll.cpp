// The reactor on epoll, level-triggered, with a table of 16 bytes per descriptor number.
//
// A descriptor is registered at its first wait and stays so. An event that nobody waits for is ignored while fibers may
// be runnable (its fiber has probably just not run yet), and withdrawn from epoll when the thread is about to block,
// which it would keep from blocking. So a connection that alternates between request and response never costs an
// epoll_ctl after its first wait.
// Invariant: the interest registered for a descriptor includes what each linked wait wants, unless somebody closed the
// descriptor without saying so; recheck() repairs that.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <ctime>
#include <new>

#include "culm/runtime/clock.hpp"
#include "culm/runtime/reactor.hpp"
#include "culm/runtime/wait_ring.hpp"
#include "flat_array.hpp"

#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

namespace culm::runtime {
namespace {

constexpr int kEventsMax = 256;
// How often one blocking poll asks again because the buffer was full.
constexpr int kRoundsMax = 16;
// The size of the kernel's own signal set, which is smaller than libc's.
constexpr std::size_t kSignalSetBytes = 8;
constexpr std::uint32_t kAlwaysReported = EPOLLERR | EPOLLHUP;
// The number under which the eventfd is registered; no descriptor has it.
constexpr int kNotifyNumber = -1;

struct Entry {
    WaitRing waits;
    std::uint32_t interest = 0;  // what epoll watches for
    bool registered = false;
    std::uint16_t closes = 0;  // calls of forget()
};
static_assert(sizeof(Entry) <= 16);

// All that somebody in the ring waits for.
std::uint32_t wanted_by(const WaitRing& waits) noexcept {
    std::uint32_t all = 0;
    waits.for_each([&all](const Wait& wait) { all |= wait.target.descriptor.wanted; });
    return all;
}

class EpollReactor final : public Reactor {
public:
    ~EpollReactor() override { close_descriptors(); }

    Result<void> open() noexcept;
    Result<void> watch(Wait& wait) noexcept override;
    void unwatch(Wait& wait) noexcept override;
    int poll(std::int64_t timeout_ns, OnReady on_ready, void* context, const sigset_t* signal_mask) noexcept override;
    void forget(int fd, OnReady on_ready, void* context) noexcept override;
    bool closed_since(const Wait& wait) const noexcept override;
    bool recheck(OnReady on_ready, void* context) noexcept override;
    void notify() noexcept override;
    Result<void> rebuild() noexcept override;
    void close_descriptors() noexcept override;
    std::size_t waiting() const noexcept override { return waiting_; }

private:
    Result<void> open_epoll() noexcept;
    void register_waits_again() noexcept;
    Result<Entry*> entry_for(int fd) noexcept;
    int control(int operation, int fd, std::uint32_t events) noexcept;
    int set_interest(int fd, Entry& entry, std::uint32_t events) noexcept;
    void withdraw(int fd, Entry& entry, std::uint32_t came) noexcept;
    int wait_for_events(std::int64_t timeout_ns, const sigset_t* signal_mask) noexcept;
    int serve(int fd, std::uint32_t came, bool may_withdraw, OnReady on_ready, void* context) noexcept;
    void end_wait(Entry& entry, Wait& wait) noexcept;
    void drain_notifications() noexcept;
    void recheck_entry(int fd, Entry& entry, OnReady on_ready, void* context) noexcept;

    int epoll_fd_ = -1;
    int notify_fd_ = -1;
    bool has_pwait2_ = true;  // until the kernel says ENOSYS
    bool stale_ = false;      // epoll reports a descriptor that can no longer be named: start over
    std::size_t waiting_ = 0;
    std::size_t unverified_ = 0;
    FlatArray<Entry> entries_;  // by descriptor number
    std::array<epoll_event, kEventsMax> events_;
};

Error epoll_error(const char* operation) noexcept {
    return Error{errno, operation, "raise the limit of open files (ulimit -n)"};
}

Result<void> EpollReactor::open() noexcept {
    notify_fd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (notify_fd_ < 0) return epoll_error("create an eventfd");
    return open_epoll();
}

Result<void> EpollReactor::open_epoll() noexcept {
    epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd_ < 0) return epoll_error("create an epoll descriptor");
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = kNotifyNumber;
    if (epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, notify_fd_, &event) < 0) return epoll_error("watch an eventfd");
    return {};
}

void EpollReactor::close_descriptors() noexcept {
    if (epoll_fd_ >= 0) ::close(epoll_fd_);
    if (notify_fd_ >= 0) ::close(notify_fd_);
    epoll_fd_ = notify_fd_ = -1;
}

Result<void> EpollReactor::rebuild() noexcept {
    close_descriptors();
    if (auto opened = open(); !opened) return opened;
    register_waits_again();
    return {};
}

void EpollReactor::register_waits_again() noexcept {
    stale_ = false;
    unverified_ = 0;
    for (std::size_t fd = 0; fd < entries_.size(); ++fd) {
        Entry& entry = entries_[fd];
        entry.registered = false;
        entry.interest = 0;
        if (entry.waits.empty()) continue;
        // One that cannot be registered is left to recheck().
        set_interest(static_cast<int>(fd), entry, wanted_by(entry.waits));
        entry.waits.for_each([this](Wait& wait) {
            wait.rechecked = false;
            ++unverified_;
        });
    }
}

// --- registration ---

Result<Entry*> EpollReactor::entry_for(int fd) noexcept {
    constexpr const char* kOperation = "wait for a descriptor";
    if (fd < 0) return Error{EBADF, kOperation, "the descriptor is not open"};
    const auto index = static_cast<std::size_t>(fd);
    if (index >= entries_.size()) {
        // Only a number that is open may make the table grow.
        if (fcntl(fd, F_GETFD) < 0) return Error{EBADF, kOperation, "the descriptor is not open"};
        if (!entries_.reserve(index + 1)) return Error{ENOMEM, kOperation, "memory ran out"};
        while (entries_.size() <= index) entries_.push(Entry{});
    }
    return &entries_[index];
}

int EpollReactor::control(int operation, int fd, std::uint32_t events) noexcept {
    epoll_event event{};
    event.events = events;
    event.data.fd = fd;
    return epoll_ctl(epoll_fd_, operation, fd, &event) < 0 ? errno : 0;
}

// Returns 0 or an errno. What is on record may be wrong when the number was closed and given out again unseen.
int EpollReactor::set_interest(int fd, Entry& entry, std::uint32_t events) noexcept {
    int error = control(entry.registered ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, events);
    if (error == ENOENT) error = control(EPOLL_CTL_ADD, fd, events);
    if (error == EEXIST) error = control(EPOLL_CTL_MOD, fd, events);
    entry.registered = error == 0;
    entry.interest = error == 0 ? events : 0;
    return error;
}

Result<void> EpollReactor::watch(Wait& wait) noexcept {
    auto found = entry_for(wait.target.descriptor.fd);
    if (!found) return found.error();
    Entry& entry = *found.value();
    const std::uint32_t events = entry.interest | wait.target.descriptor.wanted;
    if (!entry.registered || events != entry.interest) {
        const int error = set_interest(wait.target.descriptor.fd, entry, events);
        if (error != 0) return Error{error, "watch a descriptor", "is it open, and of a kind that epoll takes?"};
        wait.rechecked = true;
    }
    entry.waits.push_back(wait);
    wait.closes = entry.closes;
    ++waiting_;
    if (!wait.rechecked) ++unverified_;
    return {};
}

void EpollReactor::unwatch(Wait& wait) noexcept {
    if (wait.link.linked()) end_wait(entries_[static_cast<std::size_t>(wait.target.descriptor.fd)], wait);
}

void EpollReactor::end_wait(Entry& entry, Wait& wait) noexcept {
    entry.waits.remove(wait);
    --waiting_;
    if (!wait.rechecked) --unverified_;
}

void EpollReactor::forget(int fd, OnReady on_ready, void* context) noexcept {
    if (fd < 0 || static_cast<std::size_t>(fd) >= entries_.size()) return;
    Entry& entry = entries_[static_cast<std::size_t>(fd)];
    while (Wait* wait = entry.waits.front()) {
        end_wait(entry, *wait);
        wait->closed = true;
        on_ready(*wait, context);
    }
    // Where a copy of the descriptor exists, in a child for instance, the registration would outlive the number, and
    // could not be withdrawn any more.
    if (entry.registered) control(EPOLL_CTL_DEL, fd, 0);
    entry.registered = false;
    entry.interest = 0;
    ++entry.closes;
}

bool EpollReactor::closed_since(const Wait& wait) const noexcept {
    const auto index = static_cast<std::size_t>(wait.target.descriptor.fd);
    return index < entries_.size() && entries_[index].closes != wait.closes;
}

// Makes epoll stop reporting what nobody waits for. Errors and hang-ups are reported as long as a descriptor is
// registered, so against them only unregistering helps.
void EpollReactor::withdraw(int fd, Entry& entry, std::uint32_t came) noexcept {
    const std::uint32_t wanted = wanted_by(entry.waits);
    const bool unregister = entry.waits.empty() && (came & kAlwaysReported) != 0;
    const int error = control(unregister ? EPOLL_CTL_DEL : EPOLL_CTL_MOD, fd, wanted);
    entry.registered = error == 0 && !unregister;
    entry.interest = entry.registered ? wanted : 0;
    // The number was closed unseen, and the file that is reported lives on under another one, under which its
    // registration cannot be changed: the whole epoll descriptor has to be made anew.
    if (error != 0) stale_ = true;
}

bool EpollReactor::recheck(OnReady on_ready, void* context) noexcept {
    if (unverified_ == 0) return false;
    for (std::size_t fd = 0; fd < entries_.size() && unverified_ > 0; ++fd) {
        Entry& entry = entries_[fd];
        bool verified = true;
        entry.waits.for_each([&](Wait& wait) { verified = verified && wait.rechecked; });
        if (!verified) recheck_entry(static_cast<int>(fd), entry, on_ready, context);
    }
    return true;
}

void EpollReactor::recheck_entry(int fd, Entry& entry, OnReady on_ready, void* context) noexcept {
    const int error = set_interest(fd, entry, wanted_by(entry.waits));
    if (error == 0) {
        entry.waits.for_each([this](Wait& wait) {
            if (!wait.rechecked) --unverified_;
            wait.rechecked = true;
        });
        return;
    }
    while (Wait* wait = entry.waits.front()) {
        end_wait(entry, *wait);
        wait->closed = error != EPERM;
        wait->target.descriptor.ready = error == EPERM ? wait->target.descriptor.wanted : std::uint16_t{EPOLLERR};
        on_ready(*wait, context);
    }
}

// --- polling ---

int EpollReactor::poll(std::int64_t timeout_ns, OnReady on_ready, void* context, const sigset_t* signal_mask) noexcept {
    const bool blocks = timeout_ns != 0;
    int served = 0;
    for (int round = 0; round < kRoundsMax; ++round) {
        const int count = wait_for_events(round == 0 ? timeout_ns : 0, signal_mask);
        if (count < 0) return served > 0 ? served : count;
        for (int i = 0; i < count; ++i) {
            const epoll_event& event = events_[static_cast<std::size_t>(i)];
            if (event.data.fd == kNotifyNumber) {
                drain_notifications();
            } else {
                // An event that nobody waits for is withdrawn in the first round only: in a later one it may belong to
                // a wait that the round before has served.
                served += serve(event.data.fd, event.events, blocks && round == 0, on_ready, context);
            }
        }
        if (!blocks || count < kEventsMax) break;
    }
    if (stale_) {
        ::close(epoll_fd_);
        if (open_epoll()) register_waits_again();
    }
    return served;
}

// The number of events, or a negative errno.
int EpollReactor::wait_for_events(std::int64_t timeout_ns, const sigset_t* signal_mask) noexcept {
    if (has_pwait2_ && timeout_ns != 0 && timeout_ns != kNever) {
        timespec timeout{timeout_ns / 1'000'000'000, timeout_ns % 1'000'000'000};
        const long count =
            ::syscall(SYS_epoll_pwait2, epoll_fd_, events_.data(), kEventsMax, &timeout, signal_mask, kSignalSetBytes);
        if (count >= 0) return static_cast<int>(count);
        if (errno != ENOSYS) return -errno;
        has_pwait2_ = false;
    }
    // Rounded up: returning before the deadline would only mean another turn.
    const std::int64_t timeout_ms = timeout_ns / 1'000'000 + (timeout_ns % 1'000'000 != 0 ? 1 : 0);
    const int bounded_ms = timeout_ns == kNever ? -1 : timeout_ms > INT_MAX ? INT_MAX : static_cast<int>(timeout_ms);
    const int count = ::epoll_pwait(epoll_fd_, events_.data(), kEventsMax, bounded_ms, signal_mask);
    return count >= 0 ? count : -errno;
}

// First come first served per direction; errors and hang-ups are for all. Returns how many waits were ended.
int EpollReactor::serve(int fd, std::uint32_t came, bool may_withdraw, OnReady on_ready, void* context) noexcept {
    Entry& entry = entries_[static_cast<std::size_t>(fd)];
    const bool for_all = (came & kAlwaysReported) != 0;
    std::uint32_t unclaimed = came & ~kAlwaysReported;
    int served = 0;
    Wait* next = entry.waits.front();
    while (next) {
        Wait& wait = *next;
        next = entry.waits.after(wait);
        if (!for_all && (wait.target.descriptor.wanted & unclaimed) == 0) continue;
        wait.target.descriptor.ready =
            static_cast<std::uint16_t>(came & (wait.target.descriptor.wanted | kAlwaysReported));
        unclaimed &=
            ~(wait.target.descriptor.wanted & ~std::uint32_t{EPOLLRDHUP});  // a half-closed peer concerns every reader
        end_wait(entry, wait);
        on_ready(wait, context);
        ++served;
    }
    const bool nobody = for_all ? served == 0 : (unclaimed & ~std::uint32_t{EPOLLRDHUP}) != 0 || served == 0;
    if (nobody && may_withdraw) withdraw(fd, entry, came);
    return served;
}

void EpollReactor::drain_notifications() noexcept {
    std::uint64_t count;
    // Non-blocking: EAGAIN is as good as a count.
    static_cast<void>(!::read(notify_fd_, &count, sizeof count));
}

void EpollReactor::notify() noexcept {
    const int saved_errno = errno;
    const std::uint64_t one = 1;
    // The counter is full only if a wake-up is on its way already.
    static_cast<void>(!::write(notify_fd_, &one, sizeof one));
    errno = saved_errno;
}

}  // namespace

Result<std::unique_ptr<Reactor>> make_epoll_reactor() {
    std::unique_ptr<EpollReactor> reactor(new (std::nothrow) EpollReactor());
    if (!reactor) return Error{ENOMEM, "make a reactor", "memory ran out"};
    if (auto opened = reactor->open(); !opened) return opened.error();
    return std::unique_ptr<Reactor>(std::move(reactor));
}

}  // namespace culm::runtime
