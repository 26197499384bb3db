// A reactor without a kernel: a test says what is ready. It keeps the rules of the one on epoll.
//
// A poll that may wait and finds nothing ready waits for notify() only, since nobody else is left to change anything.
// Invariant: readiness is level-triggered and set only by the test.
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <ctime>
#include <vector>

#include "culm/runtime/clock.hpp"
#include "culm/runtime/reactor.hpp"
#include "culm/runtime/wait_ring.hpp"

namespace culm::runtime {
namespace {

constexpr std::uint32_t kForAll = EPOLLERR | EPOLLHUP;

struct Descriptor {
    std::uint32_t ready = 0;
    std::uint16_t closes = 0;  // calls of forget()
    WaitRing waits;
};

class SimulatedReactorOnVectors final : public SimulatedReactor {
public:
    SimulatedReactorOnVectors() { open(); }
    ~SimulatedReactorOnVectors() override { close_descriptors(); }

    Result<void> watch(Wait& wait) noexcept override {
        if (wait.target.descriptor.fd < 0) return Error{EBADF, "wait for a descriptor", "the descriptor is not open"};
        Descriptor& known = descriptor(wait.target.descriptor.fd);
        known.waits.push_back(wait);
        wait.closes = known.closes;
        ++waiting_;
        return {};
    }
    void unwatch(Wait& wait) noexcept override {
        if (wait.link.linked()) end_wait(wait);
    }

    int poll(std::int64_t timeout_ns, OnReady on_ready, void* context, const sigset_t* signal_mask) noexcept override {
        const int served = serve_all(on_ready, context);
        if (served > 0 || timeout_ns == 0) return served;
        pollfd notification{notify_fd_, POLLIN, 0};
        timespec timeout{timeout_ns / 1'000'000'000, timeout_ns % 1'000'000'000};
        const int count = ::ppoll(&notification, 1, timeout_ns == kNever ? nullptr : &timeout, signal_mask);
        if (count < 0) return -errno;
        std::uint64_t notifications;
        static_cast<void>(!::read(notify_fd_, &notifications, sizeof notifications));
        return serve_all(on_ready, context);
    }

    void forget(int fd, OnReady on_ready, void* context) noexcept override {
        if (fd < 0) return;
        Descriptor& known = descriptor(fd);
        known.ready = 0;
        ++known.closes;
        while (Wait* wait = known.waits.front()) {
            end_wait(*wait);
            wait->closed = true;
            on_ready(*wait, context);
        }
    }
    bool closed_since(const Wait& wait) const noexcept override {
        const auto index = static_cast<std::size_t>(wait.target.descriptor.fd);
        return index < descriptors_.size() && descriptors_[index].closes != wait.closes;
    }
    bool recheck(OnReady, void*) noexcept override {
        bool any = false;
        for (Descriptor& known : descriptors_) {
            known.waits.for_each([&any](Wait& wait) {
                any = any || !wait.rechecked;
                wait.rechecked = true;
            });
        }
        return any;
    }

    void notify() noexcept override {
        const std::uint64_t one = 1;
        static_cast<void>(!::write(notify_fd_, &one, sizeof one));
    }
    Result<void> rebuild() noexcept override {
        close_descriptors();
        open();
        return {};
    }
    void close_descriptors() noexcept override { ::close(notify_fd_); }
    std::size_t waiting() const noexcept override { return waiting_; }

    void set_ready(int fd, std::uint32_t events) noexcept override { descriptor(fd).ready |= events; }
    void clear_ready(int fd, std::uint32_t events) noexcept override { descriptor(fd).ready &= ~events; }

private:
    void open() noexcept {
        notify_fd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        assert(notify_fd_ >= 0);
    }
    Descriptor& descriptor(int fd) noexcept {
        const auto index = static_cast<std::size_t>(fd);
        if (index >= descriptors_.size()) descriptors_.resize(index + 1);
        return descriptors_[index];
    }
    void end_wait(Wait& wait) noexcept {
        descriptor(wait.target.descriptor.fd).waits.remove(wait);
        --waiting_;
    }
    int serve_all(OnReady on_ready, void* context) noexcept {
        int served = 0;
        for (Descriptor& known : descriptors_) served += serve(known, on_ready, context);
        return served;
    }
    int serve(Descriptor& known, OnReady on_ready, void* context) noexcept {
        const std::uint32_t came = known.ready;
        std::uint32_t unclaimed = came;
        int served = 0;
        Wait* next = known.waits.front();
        while (next) {
            Wait& wait = *next;
            next = known.waits.after(wait);
            if ((came & kForAll) == 0 && (wait.target.descriptor.wanted & unclaimed) == 0) continue;
            wait.target.descriptor.ready = static_cast<std::uint16_t>(came & (wait.target.descriptor.wanted | kForAll));
            unclaimed &= ~(wait.target.descriptor.wanted & ~std::uint32_t{EPOLLRDHUP});
            end_wait(wait);
            on_ready(wait, context);
            ++served;
        }
        return served;
    }

    int notify_fd_ = -1;
    std::size_t waiting_ = 0;
    std::vector<Descriptor> descriptors_;
};

}  // namespace

std::unique_ptr<SimulatedReactor> make_simulated_reactor() { return std::make_unique<SimulatedReactorOnVectors>(); }

}  // namespace culm::runtime
