// read, readv, write, writev on pipes, terminals, eventfds, timerfds, sockets and regular files.
#include <limits.h>
#include <pty.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <termios.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "descriptors.hpp"
#include "harness.hpp"

TEST_CASE("reading parks until something comes") {
    Program program;
    char buffer[16] = {};
    SUBCASE("pipe") {
        Pair ends = pipe_pair();
        CHECK_OUTCOME(parked_until([&] { return victim().read(ends.near, buffer, 16); },
                                   [&] { CHECK(::write(ends.far, "data", 4) == 4); }),
                      4, kErrnoBefore);
        CHECK_OUTCOME(parked_until([&] { return victim().read(ends.near, buffer, 16); }, [&] { ends.far.reset(); }), 0,
                      kErrnoBefore);
    }
    SUBCASE("pipe, readv") {
        Pair ends = pipe_pair();
        iovec parts[2] = {{buffer, 2}, {buffer + 2, 8}};
        CHECK_OUTCOME(parked_until([&] { return victim().readv(ends.near, parts, 2); },
                                   [&] { CHECK(::write(ends.far, "data", 4) == 4); }),
                      4, kErrnoBefore);
    }
    SUBCASE("socket") {
        Pair pair = socket_pair();
        CHECK_OUTCOME(parked_until([&] { return victim().read(pair.near, buffer, 16); },
                                   [&] { CHECK(::write(pair.far, "data", 4) == 4); }),
                      4, kErrnoBefore);
        iovec parts[2] = {{buffer, 2}, {buffer + 2, 8}};
        CHECK_OUTCOME(parked_until([&] { return victim().readv(pair.near, parts, 2); },
                                   [&] { CHECK(::write(pair.far, "data", 4) == 4); }),
                      4, kErrnoBefore);
    }
    SUBCASE("eventfd") {
        Descriptor event(::eventfd(0, EFD_CLOEXEC));
        std::uint64_t count = 0;
        const std::uint64_t three = 3;
        CHECK_OUTCOME(parked_until([&] { return victim().read(event, &count, sizeof count); },
                                   [&] { CHECK(::write(event, &three, sizeof three) == sizeof three); }),
                      8, kErrnoBefore);
        CHECK(count == 3);
        CHECK_OUTCOME(observe([&] { return victim().read(event, &count, 4); }), -1, EINVAL);
    }
    SUBCASE("timerfd") {
        Descriptor timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
        const itimerspec soon{{0, 0}, {0, 2'000'000}};
        std::uint64_t expirations = 0;
        CHECK_OUTCOME(parked_until([&] { return victim().read(timer, &expirations, sizeof expirations); },
                                   [&] { ::timerfd_settime(timer, 0, &soon, nullptr); }),
                      8, kErrnoBefore);
        CHECK(expirations == 1);
    }
    SUBCASE("terminal") {
        int controller = -1;
        int terminal = -1;
        REQUIRE(::openpty(&controller, &terminal, nullptr, nullptr, nullptr) == 0);
        Descriptor one(controller);
        Descriptor two(terminal);
        CHECK_OUTCOME(parked_until([&] { return victim().read(terminal, buffer, 16); },
                                   [&] { CHECK(::write(controller, "line\n", 5) == 5); }),
                      5, kErrnoBefore);
        CHECK(std::string(buffer) == "line\n");
    }
}

TEST_CASE("eventfd_read and eventfd_write") {
    Program program;
    Descriptor event(::eventfd(0, EFD_CLOEXEC));
    eventfd_t count = 0;
    CHECK_OUTCOME(parked_until([&] { return victim().eventfd_read(event, &count); },
                               [&] { CHECK(victim().eventfd_write(event, 5) == 0); }),
                  0, kErrnoBefore);
    CHECK(count == 5);
}

TEST_CASE("a pipe that does not block says EAGAIN, a signal EINTR, a cancellation ECANCELED, a close EBADF") {
    Program program;
    Pair ends = pipe_pair();
    char byte = 0;
    CHECK_OUTCOME(interrupted([&] { return victim().read(ends.near, &byte, 1); }), -1, EINTR);
    CHECK_OUTCOME(cancelled([&] { return victim().read(ends.near, &byte, 1); }), -1, ECANCELED);
    set_nonblocking(ends.near);
    CHECK_OUTCOME(observe([&] { return victim().read(ends.near, &byte, 1); }), -1, EAGAIN);
    CHECK(victim().fcntl_int(ends.near, F_SETFL, 0) == 0);
    const int fd = ends.near;
    CHECK_OUTCOME(parked_until([&] { return victim().read(fd, &byte, 1); }, [&] { ends.near.reset(); }), -1, EBADF);
}

TEST_CASE("a write to a pipe waits for room and writes everything") {
    Program program;
    Pair ends = pipe_pair();
    std::string big(1 << 20, ' ');
    for (std::size_t i = 0; i < big.size(); ++i) big[i] = static_cast<char>(i * 13);
    std::string got;
    auto reader = culm::spawn([&] {
        std::vector<char> chunk(10'000);
        while (got.size() < big.size()) {
            const ssize_t n = victim().read(ends.near, chunk.data(), chunk.size());
            if (n <= 0) break;
            got.append(chunk.data(), static_cast<std::size_t>(n));
        }
    });
    const long total = static_cast<long>(big.size());
    SUBCASE("write") {
        CHECK_OUTCOME(observe([&] { return victim().write(ends.far, big.data(), big.size()); }), total, kErrnoBefore);
    }
    SUBCASE("writev") {
        std::vector<iovec> parts;
        for (std::size_t at = 0; at < big.size(); at += 4096) parts.push_back({big.data() + at, 4096});
        CHECK_OUTCOME(observe([&] { return victim().writev(ends.far, parts.data(), static_cast<int>(parts.size())); }),
                      total, kErrnoBefore);
    }
    reader.join();
    CHECK((got == big));
}

TEST_CASE("a write of at most PIPE_BUF bytes stays in one piece") {
    Program program;
    Pair ends = pipe_pair();
    const std::size_t filled = fill(ends.far);
    std::string message(PIPE_BUF, 'm');
    int written = 0;
    auto write_one = [&](char letter) {
        return [&, letter] {
            const std::string mine(PIPE_BUF, letter);
            if (victim().write(ends.far, mine.data(), mine.size()) == PIPE_BUF) ++written;
        };
    };
    std::vector<culm::JoinHandle> writers;
    for (char letter = 'a'; letter < 'k'; ++letter) writers.push_back(culm::spawn(write_one(letter)));
    culm::yield_now();
    drain(ends.near, filled);
    for (int i = 0; i < 10; ++i) {
        std::string piece(PIPE_BUF, ' ');
        for (std::size_t at = 0; at < piece.size();) {
            const ssize_t n = victim().read(ends.near, piece.data() + at, piece.size() - at);
            REQUIRE(n > 0);
            at += static_cast<std::size_t>(n);
        }
        CHECK((piece == std::string(PIPE_BUF, piece[0])));
    }
    for (culm::JoinHandle& writer : writers) writer.join();
    CHECK(written == 10);
}

TEST_CASE("a write fails with EPIPE and SIGPIPE, and does not block where the caller does not want it to") {
    Program program;
    Pair ends = pipe_pair();
    static std::atomic<int> pipes{0};
    struct sigaction action {};
    struct sigaction before {};
    action.sa_handler = [](int) { ++pipes; };
    ::sigaction(SIGPIPE, &action, &before);
    pipes = 0;
    fill(ends.far);
    CHECK_OUTCOME(cancelled([&] { return victim().write(ends.far, "x", 1); }), -1, ECANCELED);
    set_nonblocking(ends.far);
    CHECK_OUTCOME(observe([&] { return victim().write(ends.far, "x", 1); }), -1, EAGAIN);
    ends.near.reset();
    CHECK_OUTCOME(observe([&] { return victim().write(ends.far, "x", 1); }), -1, EPIPE);
    CHECK(pipes == 1);
    ::sigaction(SIGPIPE, &before, nullptr);
}

TEST_CASE("a terminal that is full parks its writer") {
    Program program;
    int controller = -1;
    int terminal = -1;
    REQUIRE(::openpty(&controller, &terminal, nullptr, nullptr, nullptr) == 0);
    Descriptor one(controller);
    Descriptor two(terminal);
    termios mode{};
    ::tcgetattr(terminal, &mode);
    ::cfmakeraw(&mode);
    ::tcsetattr(terminal, TCSANOW, &mode);
    const std::string text(100'000, 't');
    std::size_t got = 0;
    auto reader = culm::spawn([&] {
        std::vector<char> chunk(3000);
        while (got < text.size()) {
            const ssize_t n = victim().read(controller, chunk.data(), chunk.size());
            if (n <= 0) break;
            got += static_cast<std::size_t>(n);
        }
    });
    CHECK_OUTCOME(observe([&] { return victim().write(terminal, text.data(), text.size()); }), 100'000, kErrnoBefore);
    reader.join();
    CHECK(got == text.size());
}

TEST_CASE("regular files and devices go straight through") {
    Program program;
    char path[] = "/tmp/culm_interpose_XXXXXX";
    Descriptor file(::mkstemp(path));
    ::unlink(path);
    const unsigned long parks = culm::runtime::interpose::statistics().parks;
    CHECK_OUTCOME(observe([&] { return victim().write(file, "content", 7); }), 7, kErrnoBefore);
    ::lseek(file, 0, SEEK_SET);
    char buffer[16] = {};
    iovec parts[2] = {{buffer, 3}, {buffer + 3, 10}};
    CHECK_OUTCOME(observe([&] { return victim().readv(file, parts, 2); }), 7, kErrnoBefore);
    CHECK_OUTCOME(observe([&] { return victim().read(file, buffer, 16); }), 0, kErrnoBefore);
    Descriptor zero(::open("/dev/zero", O_RDWR | O_CLOEXEC));
    CHECK_OUTCOME(observe([&] { return victim().read(zero, buffer, 16); }), 16, kErrnoBefore);
    CHECK_OUTCOME(observe([&] { return victim().write(zero, buffer, 16); }), 16, kErrnoBefore);
    CHECK(culm::runtime::interpose::statistics().parks == parks);
}

TEST_CASE("a number that was a socket and is a pipe now is noticed") {
    Program program;
    Pair pair = socket_pair();
    Pair ends = pipe_pair();
    char byte = 0;
    CHECK(::write(pair.far, "1", 1) == 1);
    CHECK(victim().read(pair.near, &byte, 1) == 1);
    CHECK(culm::runtime::interpose::descriptors::known_socket(pair.near));
    // Behind interposition's back, as code inside libc does it.
    REQUIRE(::dup2(ends.near, pair.near) == pair.near);
    CHECK_OUTCOME(parked_until([&] { return victim().read(pair.near, &byte, 1); },
                               [&] { CHECK(::write(ends.far, "2", 1) == 1); }),
                  1, kErrnoBefore);
    CHECK(byte == '2');
    CHECK_FALSE(culm::runtime::interpose::descriptors::known_socket(pair.near));
}

TEST_CASE("bad arguments fail as in libc") {
    Program program;
    Pair ends = pipe_pair();
    char byte = 0;
    CHECK_OUTCOME(observe([&] { return victim().read(-1, &byte, 1); }), -1, EBADF);
    CHECK_OUTCOME(observe([&] { return victim().write(-1, &byte, 1); }), -1, EBADF);
    CHECK_OUTCOME(observe([&] { return victim().read(ends.far, &byte, 1); }), -1, EBADF);
    CHECK_OUTCOME(observe([&] { return victim().write(ends.near, &byte, 1); }), -1, EBADF);
    CHECK_OUTCOME(observe([&] { return victim().read(ends.near, nullptr, 0); }), 0, kErrnoBefore);
    CHECK_OUTCOME(observe([&] { return victim().readv(ends.near, nullptr, -1); }), -1, EINVAL);
    CHECK_OUTCOME(observe([&] { return victim().writev(ends.far, nullptr, IOV_MAX + 1); }), -1, EINVAL);
}

TEST_CASE("a thread without a scheduler blocks for real") {
    Pair ends = pipe_pair();
    char byte = 0;
    CHECK_OUTCOME(on_plain_thread([&] { return victim().read(ends.near, &byte, 1); },
                                  [&] { CHECK(::write(ends.far, "x", 1) == 1); }),
                  1, kErrnoBefore);
}
