// close, close_range, dup2, dup3: waiters hear of it, on this thread and on others; children of fork and vfork are
// safe.
#include <sys/wait.h>

#include "descriptors.hpp"
#include "harness.hpp"

namespace {

// Makes the call on a fiber of another OS thread, runs `act` here once it is parked, and returns what it gave.
template <class Call, class Act>
Outcome parked_elsewhere(Call call, Act act) {
    std::atomic<bool> parked{false};
    Outcome outcome;
    std::thread thread([&] {
        Program program;
        Caller caller(call);
        caller.until_parked();
        CHECK_FALSE(caller.done());
        parked = true;
        outcome = caller.join();
    });
    while (!parked) std::this_thread::yield();
    act();
    thread.join();
    return outcome;
}

}  // namespace

TEST_CASE("every way of closing ends the waits on the calling thread") {
    Program program;
    Pair pair = socket_pair();
    Pair other = socket_pair();
    const int fd = pair.near;
    char byte = 0;
    const auto receive = [&] { return victim().recv(fd, &byte, 1, 0); };
    SUBCASE("close") {
        CHECK_OUTCOME(parked_until(receive, [&] { victim().close(pair.near.release()); }), -1, EBADF);
    }
    SUBCASE("close_range") {
        CHECK_OUTCOME(parked_until(receive,
                                   [&] {
                                       const auto number = static_cast<unsigned>(pair.near.release());
                                       CHECK(victim().close_range(number, number, 0) == 0);
                                   }),
                      -1, EBADF);
    }
    SUBCASE("dup2") {
        CHECK_OUTCOME(parked_until(receive, [&] { CHECK(victim().dup2(other.near, fd) == fd); }), -1, EBADF);
    }
    SUBCASE("dup3") {
        CHECK_OUTCOME(parked_until(receive, [&] { CHECK(victim().dup3(other.near, fd, O_CLOEXEC) == fd); }), -1, EBADF);
    }
}

TEST_CASE("calls that close nothing end no wait") {
    Program program;
    Pair pair = socket_pair();
    const int fd = pair.near;
    char byte = 0;
    Caller caller([&] { return victim().recv(fd, &byte, 1, 0); });
    caller.until_parked();
    CHECK(victim().dup2(fd, fd) == fd);
    CHECK(victim().dup2(999'999, fd) == -1);
    CHECK(victim().dup3(fd, fd, 0) == -1);
    CHECK(victim().close_range(static_cast<unsigned>(fd), static_cast<unsigned>(fd), CLOSE_RANGE_CLOEXEC) == 0);
    Descriptor copy(victim().dup(fd));
    culm::yield_now();
    CHECK_FALSE(caller.done());
    CHECK(::send(pair.far, "x", 1, 0) == 1);
    CHECK_OUTCOME(caller.join(), 1, kErrnoBefore);
}

TEST_CASE("closing on another thread ends the wait") {
    Pair pair = socket_pair();
    const int fd = pair.near;
    char byte = 0;
    SUBCASE("by a thread without a scheduler") {
        CHECK_OUTCOME(parked_elsewhere([&] { return victim().recv(fd, &byte, 1, 0); }, [&] { pair.near.reset(); }), -1,
                      EBADF);
    }
    SUBCASE("by a thread that has waited for it too") {
        Program program;
        CHECK_OUTCOME(
            parked_until([&] { return victim().recv(fd, &byte, 1, 0); }, [&] { ::send(pair.far, "x", 1, 0); }), 1,
            kErrnoBefore);
        CHECK_OUTCOME(parked_elsewhere([&] { return victim().recv(fd, &byte, 1, 0); }, [&] { pair.near.reset(); }), -1,
                      EBADF);
    }
}

TEST_CASE("a number that is used again at once waits for the new file") {
    Program program;
    char byte = 0;
    for (int round = 0; round < 50; ++round) {
        Pair pair = socket_pair();
        CHECK_OUTCOME(parked_until([&] { return victim().recv(pair.near, &byte, 1, 0); },
                                   [&] { CHECK(::send(pair.far, "x", 1, 0) == 1); }),
                      1, kErrnoBefore);
    }
}

TEST_CASE("what a vfork child closes is its own") {
    Program program;
    Pair pair = socket_pair();
    const int fd = pair.near;
    char byte = 0;
    Caller caller([&] { return victim().recv(fd, &byte, 1, 0); });
    caller.until_parked();
    const pid_t child = ::vfork();
    if (child == 0) {
        victim().close(fd);
        victim().dup2(0, 1);
        _exit(0);
    }
    REQUIRE(child > 0);
    int status = 0;
    CHECK(::waitpid(child, &status, 0) == child);
    culm::yield_now();
    CHECK_FALSE(caller.done());
    CHECK(::send(pair.far, "x", 1, 0) == 1);
    CHECK_OUTCOME(caller.join(), 1, kErrnoBefore);
}

TEST_CASE("what a fork child closes before it has a reactor of its own does not disturb the parent") {
    Program program;
    Pair pair = socket_pair();
    const int fd = pair.near;
    char byte = 0;
    Caller caller([&] { return victim().recv(fd, &byte, 1, 0); });
    caller.until_parked();
    // Registered: the reactor has looked.
    CHECK(victim().usleep(1000) == 0);
    const pid_t child = ::fork();
    if (child == 0) {
        victim().close(fd);
        victim().close_range(3, ~0U, 0);
        _exit(0);
    }
    REQUIRE(child > 0);
    int status = 0;
    CHECK(::waitpid(child, &status, 0) == child);
    culm::yield_now();
    CHECK_FALSE(caller.done());
    CHECK(::send(pair.far, "x", 1, 0) == 1);
    CHECK_OUTCOME(caller.join(), 1, kErrnoBefore);
}

TEST_CASE("after fork the child parks on its own, the parent is undisturbed") {
    Program program;
    Pair pair = socket_pair();
    Pair in_child = socket_pair();
    char byte = 0;
    Caller caller([&] { return victim().recv(pair.near, &byte, 1, 0); });
    caller.until_parked();
    const pid_t child = ::fork();
    if (child == 0) {
        victim().close(pair.near);
        bool fed = false;
        culm::spawn([&] {
            fed = true;
            ::send(in_child.far, "c", 1, 0);
        });
        const ssize_t got = victim().recv(in_child.near, &byte, 1, 0);
        sem_t semaphore;
        ::sem_init(&semaphore, 0, 0);
        culm::spawn([&] { victim().sem_post(&semaphore); });
        const int waited = victim().sem_wait(&semaphore);
        _exit(got == 1 && fed && byte == 'c' && waited == 0 ? 0 : 1);
    }
    REQUIRE(child > 0);
    int status = 0;
    CHECK(::waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
    culm::yield_now();
    CHECK_FALSE(caller.done());
    CHECK(::send(pair.far, "p", 1, 0) == 1);
    CHECK_OUTCOME(caller.join(), 1, kErrnoBefore);
    CHECK(byte == 'p');
}
