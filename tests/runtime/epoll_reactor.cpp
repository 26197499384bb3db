// The reactor on epoll against real pipes, sockets and files.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <vector>

#include "fixture.hpp"

using namespace culm::testing;
using culm::runtime::FdRequest;

namespace {

struct Pair {
    int ends[2] = {-1, -1};

    static Pair of_pipe() {
        Pair pair;
        REQUIRE(pipe2(pair.ends, O_CLOEXEC | O_NONBLOCK) == 0);
        return pair;
    }
    static Pair of_sockets() {
        Pair pair;
        REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair.ends) == 0);
        return pair;
    }
    void close_end(int which) {
        if (ends[which] >= 0) ::close(ends[which]);
        ends[which] = -1;
    }
    void close_both() {
        close_end(0);
        close_end(1);
    }
};

Wake wait_for(int fd, std::uint32_t wanted, std::uint32_t* ready = nullptr, std::int64_t deadline_ns = kNever) {
    FdRequest request{fd, wanted, 0};
    const Wake reason = Scheduler::current()->wait_fd(request, deadline_ns);
    if (ready) *ready = request.ready;
    return reason;
}

void put_byte(int fd) { REQUIRE(write(fd, "x", 1) == 1); }
char take_byte(int fd) {
    char byte = 0;
    REQUIRE(read(fd, &byte, 1) == 1);
    return byte;
}

}  // namespace

TEST_CASE("a pipe: readable, writable, hung up") {
    SchedulerForTest scheduler;
    Pair pipe = Pair::of_pipe();
    std::uint32_t ready = 0;
    auto reader = small_fiber([&] { CHECK(wait_for(pipe.ends[0], EPOLLIN, &ready) == Wake::kNotified); });
    let_others_run();
    put_byte(pipe.ends[1]);
    reader.join();
    CHECK(ready == EPOLLIN);
    take_byte(pipe.ends[0]);
    CHECK(wait_for(pipe.ends[1], EPOLLOUT, &ready) == Wake::kNotified);
    CHECK(ready == EPOLLOUT);

    auto hung_up = small_fiber([&] { CHECK(wait_for(pipe.ends[0], EPOLLIN, &ready) == Wake::kNotified); });
    let_others_run();
    pipe.close_end(1);
    hung_up.join();
    CHECK((ready & EPOLLHUP) != 0);
    // Nobody waits now: the hang-up must not keep the thread from sleeping.
    const std::uint64_t polls = scheduler->statistics().idle_polls;
    scheduler->sleep_until(scheduler->clock().now_ns() + 5 * kMillisecond);
    CHECK(scheduler->statistics().idle_polls - polls < 5);
    CHECK(wait_for(pipe.ends[0], EPOLLIN, &ready) == Wake::kNotified);
    pipe.close_both();
}

TEST_CASE("a socket: both directions at once, half-close, many rounds") {
    SchedulerForTest scheduler;
    Pair pair = Pair::of_sockets();
    constexpr int kRounds = 1000;
    auto echo = small_fiber([&] {
        for (int i = 0; i < kRounds; ++i) {
            wait_for(pair.ends[1], EPOLLIN);
            take_byte(pair.ends[1]);
            put_byte(pair.ends[1]);
        }
    });
    for (int i = 0; i < kRounds; ++i) {
        put_byte(pair.ends[0]);
        wait_for(pair.ends[0], EPOLLIN);
        take_byte(pair.ends[0]);
    }
    echo.join();
    std::uint32_t ready = 0;
    wait_for(pair.ends[0], EPOLLIN | EPOLLOUT, &ready);
    CHECK(ready == EPOLLOUT);
    REQUIRE(shutdown(pair.ends[1], SHUT_WR) == 0);
    wait_for(pair.ends[0], EPOLLIN | EPOLLRDHUP, &ready);
    CHECK(ready == (EPOLLIN | EPOLLRDHUP));
    pair.close_both();
}

TEST_CASE("several waiters for one descriptor are served one by one, a hang-up serves all") {
    SchedulerForTest scheduler;
    Pair pair = Pair::of_sockets();
    std::string log;
    std::vector<culm::JoinHandle> fibers;
    for (char name : {'a', 'b', 'c', 'd'}) {
        fibers.push_back(small_fiber([&, name] {
            wait_for(pair.ends[0], EPOLLIN);
            char byte;
            log += name;
            log += read(pair.ends[0], &byte, 1) == 1 ? '+' : '-';
        }));
    }
    let_others_run();
    put_byte(pair.ends[1]);
    fibers[0].join();
    put_byte(pair.ends[1]);
    fibers[1].join();
    CHECK(log == "a+b+");
    CHECK(fibers[2].fiber().state() == FiberState::kParked);
    CHECK(fibers[3].fiber().state() == FiberState::kParked);
    pair.close_end(1);
    fibers[2].join();
    fibers[3].join();
    CHECK(log == "a+b+c-d-");
    pair.close_both();
}

TEST_CASE("an event that nobody waits for does not keep the thread awake, and is seen by the next wait") {
    SchedulerForTest scheduler;
    Pair pipe = Pair::of_pipe();
    put_byte(pipe.ends[1]);
    CHECK(wait_for(pipe.ends[0], EPOLLIN) == Wake::kNotified);  // the byte stays there
    const std::uint64_t polls = scheduler->statistics().idle_polls;
    scheduler->sleep_until(scheduler->clock().now_ns() + 5 * kMillisecond);
    CHECK(scheduler->statistics().idle_polls - polls < 5);
    CHECK(wait_for(pipe.ends[0], EPOLLIN) == Wake::kNotified);
    pipe.close_both();
}

TEST_CASE("a regular file is always ready, a closed descriptor never") {
    SchedulerForTest scheduler;
    char path[] = "/tmp/culm-runtime-XXXXXX";
    const int file = mkstemp(path);
    REQUIRE(file >= 0);
    unlink(path);
    std::uint32_t ready = 0;
    CHECK(wait_for(file, EPOLLIN | EPOLLOUT, &ready) == Wake::kNotified);
    CHECK(ready == (EPOLLIN | EPOLLOUT));
    close(file);
    CHECK(wait_for(file, EPOLLIN, &ready) == Wake::kNotified);
    CHECK(ready == culm::runtime::kFdInvalid);
    CHECK(wait_for(1 << 30, EPOLLIN, &ready) == Wake::kNotified);
    CHECK(ready == culm::runtime::kFdInvalid);
    CHECK(wait_for(-1, EPOLLIN, &ready) == Wake::kNotified);
    CHECK(ready == culm::runtime::kFdInvalid);
}

TEST_CASE("forget_fd before close: waiters learn of it, and the number starts afresh") {
    SchedulerForTest scheduler;
    Pair pipe = Pair::of_pipe();
    Wake reason = Wake::kNotified;
    auto reader = small_fiber([&] { reason = wait_for(pipe.ends[0], EPOLLIN); });
    let_others_run();
    const int number = pipe.ends[0];
    const int copy = dup(number);  // keeps the old pipe's read end open under another number
    scheduler->forget_fd(number);
    pipe.close_end(0);
    reader.join();
    CHECK(reason == Wake::kClosed);

    Pair other = Pair::of_pipe();
    REQUIRE(dup2(other.ends[0], number) == number);
    put_byte(pipe.ends[1]);  // the old pipe must not wake who waits for the new one
    auto fresh = small_fiber([&] { reason = wait_for(number, EPOLLIN); });
    let_others_run();
    scheduler->sleep_until(scheduler->clock().now_ns() + kMillisecond);
    CHECK(fresh.fiber().state() == FiberState::kParked);
    put_byte(other.ends[1]);
    fresh.join();
    CHECK(reason == Wake::kNotified);
    close(copy);
    close(number);
    pipe.close_both();
    other.close_both();
}

TEST_CASE("a number closed unseen and given out again is repaired") {
    SchedulerForTest scheduler;
    Pair old = Pair::of_pipe();
    put_byte(old.ends[1]);
    CHECK(wait_for(old.ends[0], EPOLLIN) == Wake::kNotified);  // registered from now on
    Pair fresh = Pair::of_pipe();
    REQUIRE(dup2(fresh.ends[0], old.ends[0]) == old.ends[0]);  // closes the old pipe's end without a word
    put_byte(fresh.ends[1]);
    CHECK(wait_for(old.ends[0], EPOLLIN) == Wake::kNotified);
    CHECK(take_byte(old.ends[0]) == 'x');
    old.close_both();
    fresh.close_both();
}

TEST_CASE("a number closed unseen while somebody waits for it is reported as closed") {
    SchedulerForTest scheduler;
    Pair pipe = Pair::of_pipe();
    put_byte(pipe.ends[1]);
    CHECK(wait_for(pipe.ends[0], EPOLLIN) == Wake::kNotified);
    take_byte(pipe.ends[0]);
    Wake reason = Wake::kNotified;
    auto reader = small_fiber([&] { reason = wait_for(pipe.ends[0], EPOLLIN); });
    let_others_run();
    pipe.close_end(0);
    reader.join();
    CHECK(reason == Wake::kClosed);
    pipe.close_both();
}

TEST_CASE("an open copy of an unseen close does not keep the thread awake") {
    SchedulerForTest scheduler;
    Pair pipe = Pair::of_pipe();
    put_byte(pipe.ends[1]);
    CHECK(wait_for(pipe.ends[0], EPOLLIN) == Wake::kNotified);
    const int copy = dup(pipe.ends[0]);
    pipe.close_end(0);  // epoll goes on reporting the number, which now names nothing
    const std::uint64_t polls = scheduler->statistics().idle_polls;
    scheduler->sleep_until(scheduler->clock().now_ns() + 5 * kMillisecond);
    CHECK(scheduler->statistics().idle_polls - polls < 5);
    close(copy);
    pipe.close_both();
}

TEST_CASE("more ready descriptors than one buffer holds") {
    SchedulerForTest scheduler;
    constexpr std::size_t kPairs = 400;
    std::vector<Pair> pairs;
    std::vector<culm::JoinHandle> readers;
    std::size_t served = 0;
    for (std::size_t i = 0; i < kPairs; ++i) pairs.push_back(Pair::of_pipe());
    for (Pair& pair : pairs) {
        readers.push_back(small_fiber([&served, &pair] {
            wait_for(pair.ends[0], EPOLLIN);
            take_byte(pair.ends[0]);
            ++served;
        }));
    }
    let_others_run();
    for (Pair& pair : pairs) put_byte(pair.ends[1]);
    for (auto& reader : readers) reader.join();
    CHECK(served == kPairs);
    for (Pair& pair : pairs) pair.close_both();
}
