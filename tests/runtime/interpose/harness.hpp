// What the tests of interposition share: the victim, fibers that make one call, descriptors that close themselves.
#pragma once

#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <string>
#include <thread>
#include <utility>

#include <doctest/doctest.h>

#include "culm/runtime/embedder.hpp"
#include "culm/runtime/interpose.hpp"
#include "culm/runtime/spawn.hpp"
#include "victim.hpp"
#include "victim_paths.hpp"

using culm::runtime::Fiber;
using culm::runtime::FiberState;
using culm::runtime::Scheduler;
using culm::runtime::WaitKind;
using culm::runtime::Wake;

// How often the switch hook of test_main.cpp was called.
struct HookCalls {
    std::atomic<unsigned> entered{0};
    std::atomic<unsigned> left{0};
    std::atomic<unsigned> cancelled{0};
    std::atomic<unsigned> cancelled_without_lock{0};
};
inline HookCalls hook_calls;

template <class Function>
Function load(void* library, const char* name) {
    return reinterpret_cast<Function>(::dlsym(library, name));
}

inline void* open_victim(const char* path) {
    void* library = ::dlopen(path, RTLD_NOW | RTLD_LOCAL);
    REQUIRE_MESSAGE(library != nullptr, ::dlerror());
    return library;
}

// The calls of the victim that stands for the interpreter (so that every symbol is patched but the mutexes), loaded
// before interposition is installed. Installed at the first use.
inline const VictimCalls& victim() {
    static const VictimCalls& calls = *[] {
        void* library = open_victim(kVictimInterpreter);
        auto get = load<VictimCallsFunction>(library, "victim_calls");
        culm::runtime::interpose::Options options;
        options.interpreter_object = reinterpret_cast<const void*>(get);
        const auto installed = culm::runtime::interpose::install(options);
        REQUIRE(installed);
        return get();
    }();
    return calls;
}

// The calls of a library that is not the interpreter: with mutexes, without semaphores and identity.
inline const VictimCalls& other_victim() {
    static const VictimCalls& calls = *[] {
        victim();
        void* library = open_victim(kVictimLazy);
        const auto installed = culm::runtime::interpose::install({});
        REQUIRE(installed);
        return load<VictimCallsFunction>(library, "victim_calls")();
    }();
    return calls;
}

// A scheduler for the duration of a test.
class Program {
public:
    Program() {
        const auto made = Scheduler::ensure();
        REQUIRE(made);
    }
    ~Program() { CHECK(Scheduler::close_current()); }
    Program(const Program&) = delete;
    Program& operator=(const Program&) = delete;
    Scheduler* operator->() const { return Scheduler::current(); }
};

constexpr int kErrnoBefore = 4242;

struct Outcome {
    long result = 0;
    int error = 0;  // errno after the call; kErrnoBefore if it was left alone
};

template <class Call>
Outcome observe(Call call) {
    errno = kErrnoBefore;
    Outcome outcome;
    outcome.result = static_cast<long>(call());
    outcome.error = errno;
    return outcome;
}

// A fiber that makes one call.
template <class Call>
class Caller {
public:
    explicit Caller(Call call)
        : call_(std::move(call)), handle_(culm::spawn([this] {
              outcome_ = observe(call_);
              done_ = true;
          })) {}
    ~Caller() {
        if (!done_) handle_.join();
    }
    Caller(const Caller&) = delete;
    Caller& operator=(const Caller&) = delete;

    Fiber& fiber() { return handle_.fiber(); }
    bool done() const { return done_; }
    // Lets others run until the call has parked its fiber (or is done).
    void until_parked() {
        while (!done_ && fiber().state() != FiberState::kParked) culm::yield_now();
    }
    Outcome join() {
        handle_.join();
        CHECK(done_);
        return outcome_;
    }

private:
    Call call_;
    Outcome outcome_;
    bool done_ = false;
    culm::JoinHandle handle_;
};

// Makes the call on a fiber, sees it park, then does `meanwhile`, and returns what the call gave.
template <class Call, class Meanwhile>
Outcome parked_until(Call call, Meanwhile meanwhile) {
    Caller caller(std::move(call));
    caller.until_parked();
    CHECK_FALSE(caller.done());
    meanwhile();
    return caller.join();
}

// Makes the call on a fiber and cancels it there.
template <class Call>
Outcome cancelled(Call call) {
    Caller caller(std::move(call));
    caller.until_parked();
    CHECK_FALSE(caller.done());
    const unsigned before = hook_calls.cancelled;
    Scheduler::current()->cancel(caller.fiber());
    const Outcome outcome = caller.join();
    CHECK(hook_calls.cancelled == before + 1);
    CHECK(hook_calls.cancelled_without_lock == 0);
    return outcome;
}

// Makes the call on the main fiber while another OS thread sends it signals, until it returns.
template <class Call>
Outcome interrupted(Call call) {
    struct sigaction action {};
    struct sigaction before {};
    action.sa_handler = [](int) {};
    ::sigaction(SIGUSR1, &action, &before);
    std::atomic<bool> done{false};
    const pthread_t target = ::pthread_self();
    std::thread sender([&] {
        while (!done) {
            ::pthread_kill(target, SIGUSR1);
            const timespec pause{0, 200'000};
            ::nanosleep(&pause, nullptr);
        }
    });
    const Outcome outcome = observe(call);
    done = true;
    sender.join();
    ::sigaction(SIGUSR1, &before, nullptr);
    return outcome;
}

// The call behaves as libc on a thread without a scheduler: nothing is parked.
template <class Call, class Meanwhile>
Outcome on_plain_thread(Call call, Meanwhile meanwhile) {
    const unsigned long parks = culm::runtime::interpose::statistics().parks;
    Outcome outcome;
    std::thread thread([&] { outcome = observe(call); });
    meanwhile();
    thread.join();
    CHECK(culm::runtime::interpose::statistics().parks == parks);
    return outcome;
}

class Descriptor {
public:
    explicit Descriptor(int fd = -1) : fd_(fd) {}
    Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Descriptor& operator=(Descriptor&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    ~Descriptor() { reset(); }
    operator int() const { return fd_; }
    int release() { return std::exchange(fd_, -1); }
    // By the victim, so that it is known to be closed.
    void reset() {
        if (fd_ >= 0) victim().close(std::exchange(fd_, -1));
    }

private:
    int fd_;
};

struct Pair {
    Descriptor near, far;
};

inline Pair socket_pair(int type = SOCK_STREAM) {
    int fds[2];
    REQUIRE(::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds) == 0);
    return {Descriptor(fds[0]), Descriptor(fds[1])};
}

inline Pair pipe_pair() {
    int fds[2];
    REQUIRE(::pipe2(fds, O_CLOEXEC) == 0);
    return {Descriptor(fds[0]), Descriptor(fds[1])};
}

inline void set_timeout(int fd, int option, long microseconds) {
    const timeval timeout{microseconds / 1'000'000, microseconds % 1'000'000};
    REQUIRE(victim().setsockopt(fd, SOL_SOCKET, option, &timeout, sizeof timeout) == 0);
}

inline void set_nonblocking(int fd) { REQUIRE(victim().fcntl_int(fd, F_SETFL, O_NONBLOCK) == 0); }

// Fills a socket or pipe until it takes no more; returns the number of bytes.
inline std::size_t fill(int fd) {
    const int flags = ::fcntl(fd, F_GETFL);
    ::fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    static char zeros[65536];
    std::size_t total = 0;
    for (ssize_t put; (put = ::write(fd, zeros, sizeof zeros)) > 0 || (put = ::write(fd, zeros, 1)) > 0;) {
        total += static_cast<std::size_t>(put);
    }
    ::fcntl(fd, F_SETFL, flags);
    return total;
}

inline void drain(int fd, std::size_t bytes) {
    static char sink[65536];
    while (bytes > 0) {
        const ssize_t got = ::read(fd, sink, bytes < sizeof sink ? bytes : sizeof sink);
        REQUIRE(got > 0);
        bytes -= static_cast<std::size_t>(got);
    }
}

#define CHECK_OUTCOME(outcome, expected_result, expected_error) \
    do {                                                        \
        const Outcome seen = (outcome);                         \
        CHECK(seen.result == (expected_result));                \
        CHECK(seen.error == (expected_error));                  \
    } while (false)
