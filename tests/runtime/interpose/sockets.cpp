// recv, recvfrom, recvmsg, send, sendto, sendmsg: what would block parks, everything else is as in libc.
#include <sys/uio.h>

#include <string>
#include <vector>

#include "harness.hpp"

namespace {

ssize_t receive_message(int fd, void* buffer, std::size_t bytes, int flags = 0) {
    iovec part{buffer, bytes};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    return victim().recvmsg(fd, &message, flags);
}

}  // namespace

TEST_CASE("receiving parks until data comes and leaves errno alone") {
    Program program;
    Pair pair = socket_pair();
    char buffer[8] = {};
    const auto feed = [&] { CHECK(::send(pair.far, "hello", 5, 0) == 5); };
    const unsigned long parks = culm::runtime::interpose::statistics().parks;
    SUBCASE("recv") {
        CHECK_OUTCOME(parked_until([&] { return victim().recv(pair.near, buffer, 8, 0); }, feed), 5, kErrnoBefore);
    }
    SUBCASE("recvfrom") {
        CHECK_OUTCOME(parked_until([&] { return victim().recvfrom(pair.near, buffer, 8, 0, nullptr, nullptr); }, feed),
                      5, kErrnoBefore);
    }
    SUBCASE("recvmsg") {
        CHECK_OUTCOME(parked_until([&] { return receive_message(pair.near, buffer, 8); }, feed), 5, kErrnoBefore);
    }
    CHECK(std::string(buffer) == "hello");
    CHECK(culm::runtime::interpose::statistics().parks > parks);
    CHECK(hook_calls.entered == hook_calls.left);
}

TEST_CASE("receiving what is there does not park") {
    Program program;
    Pair pair = socket_pair();
    const unsigned long parks = culm::runtime::interpose::statistics().parks;
    char buffer[8] = {};
    CHECK(::send(pair.far, "abc", 3, 0) == 3);
    CHECK_OUTCOME(observe([&] { return victim().recv(pair.near, buffer, 8, MSG_PEEK); }), 3, kErrnoBefore);
    CHECK_OUTCOME(observe([&] { return victim().recv(pair.near, buffer, 1, 0); }), 1, kErrnoBefore);
    CHECK_OUTCOME(observe([&] { return receive_message(pair.near, buffer, 8); }), 2, kErrnoBefore);
    pair.far.reset();
    CHECK_OUTCOME(observe([&] { return victim().recv(pair.near, buffer, 8, 0); }), 0, kErrnoBefore);
    CHECK(culm::runtime::interpose::statistics().parks == parks);
}

TEST_CASE("a socket that does not block says EAGAIN") {
    Program program;
    Pair pair = socket_pair();
    char byte = 0;
    CHECK_OUTCOME(observe([&] { return victim().recv(pair.near, &byte, 1, MSG_DONTWAIT); }), -1, EAGAIN);
    set_nonblocking(pair.near);
    CHECK_OUTCOME(observe([&] { return victim().recv(pair.near, &byte, 1, 0); }), -1, EAGAIN);
    CHECK_OUTCOME(observe([&] { return victim().recv(pair.near, &byte, 1, MSG_WAITALL); }), -1, EAGAIN);
    fill(pair.near);
    CHECK_OUTCOME(observe([&] { return victim().send(pair.near, &byte, 1, 0); }), -1, EAGAIN);
}

TEST_CASE("a change of mode is seen by the next wait") {
    Program program;
    Pair pair = socket_pair();
    char byte = 0;
    parked_until([&] { return victim().recv(pair.near, &byte, 1, 0); }, [&] { ::send(pair.far, "1", 1, 0); });
    SUBCASE("F_SETFL") {
        set_nonblocking(pair.near);
        CHECK_OUTCOME(observe([&] { return victim().recv(pair.near, &byte, 1, 0); }), -1, EAGAIN);
        CHECK(victim().fcntl_int(pair.near, F_SETFL, 0) == 0);
    }
    SUBCASE("SO_RCVTIMEO") {
        set_timeout(pair.near, SO_RCVTIMEO, 1);
        CHECK_OUTCOME(observe([&] { return victim().recv(pair.near, &byte, 1, 0); }), -1, EAGAIN);
        set_timeout(pair.near, SO_RCVTIMEO, 0);
    }
    SUBCASE("a new socket under the old number") {
        const int number = pair.near;
        pair.near.reset();
        pair.far.reset();
        int fds[2];
        REQUIRE(victim().socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
        REQUIRE((fds[0] == number || fds[1] == number));
        CHECK_OUTCOME(observe([&] { return victim().recv(number, &byte, 1, 0); }), -1, EAGAIN);
        victim().close(fds[0]);
        victim().close(fds[1]);
        return;
    }
    parked_until([&] { return victim().recv(pair.near, &byte, 1, 0); }, [&] { ::send(pair.far, "2", 1, 0); });
    CHECK(byte == '2');
}

TEST_CASE("SO_RCVTIMEO and SO_SNDTIMEO end a wait with EAGAIN") {
    Program program;
    Pair pair = socket_pair();
    char byte = 0;
    set_timeout(pair.near, SO_RCVTIMEO, 2000);
    set_timeout(pair.near, SO_SNDTIMEO, 2000);
    bool other_ran = false;
    culm::spawn([&] { other_ran = true; });
    CHECK_OUTCOME(observe([&] { return victim().recv(pair.near, &byte, 1, 0); }), -1, EAGAIN);
    CHECK(other_ran);
    fill(pair.near);
    CHECK_OUTCOME(observe([&] { return victim().send(pair.near, &byte, 1, 0); }), -1, EAGAIN);
}

TEST_CASE("a signal interrupts the main fiber, a cancellation any") {
    Program program;
    Pair pair = socket_pair();
    char byte = 0;
    CHECK_OUTCOME(interrupted([&] { return victim().recv(pair.near, &byte, 1, 0); }), -1, EINTR);
    CHECK_OUTCOME(cancelled([&] { return victim().recv(pair.near, &byte, 1, 0); }), -1, ECANCELED);
    fill(pair.near);
    CHECK_OUTCOME(cancelled([&] { return victim().send(pair.near, &byte, 1, 0); }), -1, ECANCELED);
    CHECK(hook_calls.entered == hook_calls.left);
}

TEST_CASE("closing by another fiber ends the wait with EBADF") {
    Program program;
    Pair pair = socket_pair();
    char byte = 0;
    const int fd = pair.near;
    CHECK_OUTCOME(parked_until([&] { return victim().recv(fd, &byte, 1, 0); }, [&] { pair.near.reset(); }), -1, EBADF);
}

TEST_CASE("MSG_WAITALL waits for all, and gives what there is at the end") {
    Program program;
    Pair pair = socket_pair();
    char buffer[8] = {};
    SUBCASE("all") {
        CHECK_OUTCOME(parked_until([&] { return victim().recv(pair.near, buffer, 6, MSG_WAITALL); },
                                   [&] {
                                       for (const char* part : {"ab", "cd", "ef"}) {
                                           CHECK(::send(pair.far, part, 2, 0) == 2);
                                           culm::yield_now();
                                       }
                                   }),
                      6, kErrnoBefore);
        CHECK(std::string(buffer) == "abcdef");
    }
    SUBCASE("the peer closes first") {
        CHECK_OUTCOME(parked_until([&] { return receive_message(pair.near, buffer, 6, MSG_WAITALL); },
                                   [&] {
                                       CHECK(::send(pair.far, "abc", 3, 0) == 3);
                                       pair.far.reset();
                                   }),
                      3, kErrnoBefore);
    }
    SUBCASE("a peek leaves the bytes") {
        CHECK_OUTCOME(parked_until([&] { return victim().recv(pair.near, buffer, 4, MSG_WAITALL | MSG_PEEK); },
                                   [&] { CHECK(::send(pair.far, "abcd", 4, 0) == 4); }),
                      4, kErrnoBefore);
        CHECK(::recv(pair.near, buffer, 8, MSG_DONTWAIT) == 4);
    }
    SUBCASE("a datagram is one message") {
        Pair datagrams = socket_pair(SOCK_DGRAM);
        CHECK_OUTCOME(parked_until([&] { return victim().recv(datagrams.near, buffer, 8, MSG_WAITALL); },
                                   [&] { CHECK(::send(datagrams.far, "xyz", 3, 0) == 3); }),
                      3, kErrnoBefore);
    }
    SUBCASE("SO_RCVTIMEO after some") {
        set_timeout(pair.near, SO_RCVTIMEO, 2000);
        CHECK(::send(pair.far, "ab", 2, 0) == 2);
        CHECK_OUTCOME(observe([&] { return victim().recv(pair.near, buffer, 8, MSG_WAITALL); }), 2, kErrnoBefore);
    }
}

TEST_CASE("recvmsg with MSG_WAITALL fills many buffers") {
    Program program;
    Pair pair = socket_pair();
    std::vector<std::string> parts(40, std::string(3, '.'));
    std::vector<iovec> vectors;
    for (std::string& part : parts) vectors.push_back({part.data(), part.size()});
    msghdr message{};
    message.msg_iov = vectors.data();
    message.msg_iovlen = vectors.size();
    std::string sent;
    for (int i = 0; i < 120; ++i) sent.push_back(static_cast<char>('a' + i % 26));
    CHECK_OUTCOME(parked_until([&] { return victim().recvmsg(pair.near, &message, MSG_WAITALL); },
                               [&] {
                                   for (int i = 0; i < 120; i += 5) {
                                       CHECK(::send(pair.far, sent.data() + i, 5, 0) == 5);
                                       culm::yield_now();
                                   }
                               }),
                  120, kErrnoBefore);
    std::string got;
    for (const std::string& part : parts) got += part;
    CHECK(got == sent);
}

TEST_CASE("a blocking stream socket sends everything") {
    Program program;
    Pair pair = socket_pair();
    std::string big(3 << 20, 'q');
    for (std::size_t i = 0; i < big.size(); ++i) big[i] = static_cast<char>(i * 7);
    std::string got(big.size(), '\0');
    auto reader = culm::spawn([&] {
        for (std::size_t at = 0; at < got.size();) {
            const ssize_t n = victim().recv(pair.far, got.data() + at, 70'000, 0);
            if (n <= 0) break;
            at += static_cast<std::size_t>(n);
        }
    });
    const long total = static_cast<long>(big.size());
    SUBCASE("send") {
        CHECK_OUTCOME(observe([&] { return victim().send(pair.near, big.data(), big.size(), 0); }), total,
                      kErrnoBefore);
    }
    SUBCASE("sendto") {
        CHECK_OUTCOME(observe([&] { return victim().sendto(pair.near, big.data(), big.size(), 0, nullptr, 0); }), total,
                      kErrnoBefore);
    }
    SUBCASE("write") {
        CHECK_OUTCOME(observe([&] { return victim().write(pair.near, big.data(), big.size()); }), total, kErrnoBefore);
    }
    SUBCASE("sendmsg") {
        iovec parts[3] = {
            {big.data(), 1}, {big.data() + 1, 2 << 20}, {big.data() + 1 + (2 << 20), big.size() - 1 - (2 << 20)}};
        msghdr message{};
        message.msg_iov = parts;
        message.msg_iovlen = 3;
        CHECK_OUTCOME(observe([&] { return victim().sendmsg(pair.near, &message, 0); }), total, kErrnoBefore);
    }
    reader.join();
    CHECK((got == big));
}

TEST_CASE("an error after progress gives the count, and no SIGPIPE until the next call") {
    Program program;
    Pair pair = socket_pair();
    const std::string big(4 << 20, 'q');
    static std::atomic<int> pipes{0};
    struct sigaction action {};
    struct sigaction before {};
    action.sa_handler = [](int) { ++pipes; };
    ::sigaction(SIGPIPE, &action, &before);
    pipes = 0;
    const Outcome partial =
        parked_until([&] { return victim().send(pair.near, big.data(), big.size(), 0); }, [&] { pair.far.reset(); });
    CHECK(partial.result > 0);
    CHECK(partial.result < static_cast<long>(big.size()));
    CHECK(partial.error == kErrnoBefore);
    CHECK(pipes == 0);
    CHECK_OUTCOME(observe([&] { return victim().send(pair.near, "x", 1, 0); }), -1, EPIPE);
    CHECK(pipes == 1);
    CHECK_OUTCOME(observe([&] { return victim().send(pair.near, "x", 1, MSG_NOSIGNAL); }), -1, EPIPE);
    CHECK(pipes == 1);
    ::sigaction(SIGPIPE, &before, nullptr);
}

TEST_CASE("an interrupt after progress gives the count") {
    Program program;
    Pair pair = socket_pair();
    const std::string big(4 << 20, 'q');
    const Outcome partial = interrupted([&] { return victim().send(pair.near, big.data(), big.size(), 0); });
    CHECK(partial.result > 0);
    CHECK(partial.result < static_cast<long>(big.size()));
}

TEST_CASE("datagrams wait for room, also where readiness does not tell") {
    Program program;
    char path_buffer[108];
    Descriptor receiver(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    Descriptor sender(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    REQUIRE(::bind(receiver, reinterpret_cast<sockaddr*>(&name), sizeof(sa_family_t)) ==
            0);  // an abstract name of its own
    socklen_t length = sizeof name;
    REQUIRE(::getsockname(receiver, reinterpret_cast<sockaddr*>(&name), &length) == 0);
    const auto* to = reinterpret_cast<const sockaddr*>(&name);
    // The receiver's queue holds a handful; an unconnected sender is always called writable.
    while (::sendto(sender, "m", 1, MSG_DONTWAIT, to, length) == 1) {
    }
    CHECK_OUTCOME(parked_until([&] { return victim().sendto(sender, "last", 4, 0, to, length); },
                               [&] { CHECK(::recv(receiver, path_buffer, sizeof path_buffer, 0) == 1); }),
                  4, kErrnoBefore);
}

TEST_CASE("descriptors that arrive in a message are not mistaken for old ones") {
    Program program;
    Pair pair = socket_pair();
    Pair payload = socket_pair();
    set_nonblocking(payload.near);
    char byte = 'x';
    iovec part{&byte, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    const int sent_fd = payload.near;
    std::memcpy(CMSG_DATA(header), &sent_fd, sizeof sent_fd);
    CHECK(victim().sendmsg(pair.far, &message, 0) == 1);

    alignas(cmsghdr) char arrived[CMSG_SPACE(sizeof(int))] = {};
    message.msg_control = arrived;
    message.msg_controllen = sizeof arrived;
    CHECK(victim().recvmsg(pair.near, &message, 0) == 1);
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    CHECK_OUTCOME(observe([&] { return victim().recv(fd, &byte, 1, 0); }), -1, EAGAIN);
    victim().close(fd);
}

TEST_CASE("bad arguments fail as in libc") {
    Program program;
    Pair pair = socket_pair();
    Pair ends = pipe_pair();
    char byte = 0;
    CHECK_OUTCOME(observe([&] { return victim().recv(-1, &byte, 1, 0); }), -1, EBADF);
    CHECK_OUTCOME(observe([&] { return victim().recv(ends.near, &byte, 1, 0); }), -1, ENOTSOCK);
    CHECK_OUTCOME(observe([&] { return victim().send(ends.far, &byte, 1, 0); }), -1, ENOTSOCK);
    CHECK_OUTCOME(observe([&] { return victim().recv(pair.near, &byte, 1, MSG_OOB); }),
                  ::recv(pair.near, &byte, 1, MSG_OOB), errno);
    CHECK_OUTCOME(observe([&] { return victim().send(pair.near, nullptr, 0, 0); }), 0, kErrnoBefore);
}

TEST_CASE("a thread without a scheduler blocks for real") {
    Pair pair = socket_pair();
    char buffer[8] = {};
    CHECK_OUTCOME(on_plain_thread([&] { return victim().recv(pair.near, buffer, 8, 0); },
                                  [&] { CHECK(::send(pair.far, "hi", 2, 0) == 2); }),
                  2, kErrnoBefore);
    set_timeout(pair.near, SO_RCVTIMEO, 1000);
    CHECK_OUTCOME(on_plain_thread([&] { return victim().recv(pair.near, buffer, 8, 0); }, [] {}), -1, EAGAIN);
}

TEST_CASE("fortified calls park too") {
    victim();
    void* library = open_victim(kVictimFortified);
    REQUIRE(culm::runtime::interpose::install({}));
    const VictimCalls& fortified = *load<VictimCallsFunction>(library, "victim_calls")();
    Program program;
    Pair pair = socket_pair();
    char out[64] = {};
    const auto feed = [&] { CHECK(::send(pair.far, "abc", 3, 0) == 3); };
    CHECK_OUTCOME(parked_until([&] { return fortified.checked_recv(pair.near, out, 5); }, feed), 3, kErrnoBefore);
    CHECK_OUTCOME(parked_until([&] { return fortified.checked_recvfrom(pair.near, out, 5); }, feed), 3, kErrnoBefore);
    CHECK_OUTCOME(parked_until([&] { return fortified.checked_read(pair.near, out, 5); }, feed), 3, kErrnoBefore);
    CHECK_OUTCOME(parked_until([&] { return fortified.checked_poll(pair.near, 2, 60'000); }, feed), 1, kErrnoBefore);
    drain(pair.near, 3);
    CHECK_OUTCOME(parked_until([&] { return fortified.checked_ppoll(pair.near, 2); }, feed), 1, kErrnoBefore);
}
