// connect, accept, accept4.
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/resource.h>

#include <vector>

#include "harness.hpp"

namespace {

struct Listener {
    explicit Listener(int family, int backlog = 16) : fd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        if (family == AF_INET) {
            auto* inet = reinterpret_cast<sockaddr_in*>(&address);
            inet->sin_family = AF_INET;
            inet->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
            length = sizeof *inet;
        } else {
            address.ss_family = AF_UNIX;
            length = sizeof(sa_family_t);
        }
        REQUIRE(::bind(fd, name(), length) == 0);
        length = sizeof address;
        REQUIRE(::getsockname(fd, name(), &length) == 0);
        REQUIRE(::listen(fd, backlog) == 0);
    }
    sockaddr* name() { return reinterpret_cast<sockaddr*>(&address); }
    Descriptor client() { return Descriptor(::socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0)); }
    Descriptor connected() {
        Descriptor made = client();
        REQUIRE(::connect(made, name(), length) == 0);
        return made;
    }

    Descriptor fd;
    sockaddr_storage address{};
    socklen_t length = 0;
};

}  // namespace

TEST_CASE("accept parks until a connection comes, and the listener seems to block") {
    Program program;
    Listener listener(AF_INET);
    Descriptor client;
    sockaddr_in peer{};
    socklen_t length = sizeof peer;
    Outcome accepted;
    SUBCASE("accept") {
        accepted =
            parked_until([&] { return victim().accept(listener.fd, reinterpret_cast<sockaddr*>(&peer), &length); },
                         [&] { client = listener.connected(); });
    }
    SUBCASE("accept4") {
        accepted = parked_until(
            [&] { return victim().accept4(listener.fd, reinterpret_cast<sockaddr*>(&peer), &length, SOCK_NONBLOCK); },
            [&] { client = listener.connected(); });
        CHECK((::fcntl(static_cast<int>(accepted.result), F_GETFL) & O_NONBLOCK) != 0);
    }
    REQUIRE(accepted.result >= 0);
    CHECK(accepted.error == kErrnoBefore);
    CHECK(length == sizeof peer);
    CHECK(peer.sin_family == AF_INET);
    Descriptor connection(static_cast<int>(accepted.result));
    CHECK((victim().fcntl_int(listener.fd, F_GETFL, 0) & O_NONBLOCK) == 0);
    CHECK((::fcntl(listener.fd, F_GETFL) & O_NONBLOCK) != 0);
}

TEST_CASE("the program's own mode of a listener wins") {
    Program program;
    Listener listener(AF_UNIX);
    Descriptor client = listener.connected();
    Descriptor first(victim().accept(listener.fd, nullptr, nullptr));
    CHECK(first >= 0);
    int on = 1;
    int off = 0;
    SUBCASE("fcntl") {
        set_nonblocking(listener.fd);
        CHECK((victim().fcntl_int(listener.fd, F_GETFL, 0) & O_NONBLOCK) != 0);
        CHECK_OUTCOME(observe([&] { return victim().accept(listener.fd, nullptr, nullptr); }), -1, EAGAIN);
        CHECK(victim().fcntl_int(listener.fd, F_SETFL, 0) == 0);
    }
    SUBCASE("FIONBIO") {
        CHECK(victim().ioctl_int(listener.fd, FIONBIO, &off) == 0);
        CHECK((victim().fcntl_int(listener.fd, F_GETFL, 0) & O_NONBLOCK) == 0);
        CHECK(victim().ioctl_int(listener.fd, FIONBIO, &on) == 0);
        CHECK_OUTCOME(observe([&] { return victim().accept(listener.fd, nullptr, nullptr); }), -1, EAGAIN);
        CHECK(victim().ioctl_int(listener.fd, FIONBIO, &off) == 0);
    }
    CHECK((victim().fcntl_int(listener.fd, F_GETFL, 0) & O_NONBLOCK) == 0);
    Descriptor again;
    const Outcome accepted = parked_until([&] { return victim().accept(listener.fd, nullptr, nullptr); },
                                          [&] { again = listener.connected(); });
    CHECK(accepted.result >= 0);
    victim().close(static_cast<int>(accepted.result));
}

TEST_CASE("a copy of a listener hides the flag too, a new file under the number does not") {
    Program program;
    Listener listener(AF_UNIX);
    Descriptor client = listener.connected();
    Descriptor first(victim().accept(listener.fd, nullptr, nullptr));
    Descriptor copy(victim().dup(listener.fd));
    CHECK((victim().fcntl_int(copy, F_GETFL, 0) & O_NONBLOCK) == 0);
    Descriptor second(victim().fcntl_int(listener.fd, F_DUPFD_CLOEXEC, 100));
    CHECK((victim().fcntl_int(second, F_GETFL, 0) & O_NONBLOCK) == 0);
    Pair pair = socket_pair();
    set_nonblocking(pair.near);
    CHECK(victim().dup2(pair.near, copy) == copy);
    CHECK((victim().fcntl_int(copy, F_GETFL, 0) & O_NONBLOCK) != 0);
}

TEST_CASE("accept on a thread without a scheduler waits although the flag was set for fibers") {
    Listener listener(AF_UNIX);
    {
        Program program;
        Descriptor client = listener.connected();
        Descriptor first(victim().accept(listener.fd, nullptr, nullptr));
        REQUIRE((::fcntl(listener.fd, F_GETFL) & O_NONBLOCK) != 0);
    }
    Descriptor client;
    const Outcome accepted = on_plain_thread([&] { return victim().accept(listener.fd, nullptr, nullptr); },
                                             [&] { client = listener.connected(); });
    CHECK(accepted.result >= 0);
    victim().close(static_cast<int>(accepted.result));
    set_timeout(listener.fd, SO_RCVTIMEO, 1000);
    CHECK_OUTCOME(on_plain_thread([&] { return victim().accept(listener.fd, nullptr, nullptr); }, [] {}), -1, EAGAIN);
}

TEST_CASE("accept times out, is interrupted, cancelled, closed") {
    Program program;
    Listener listener(AF_INET);
    set_timeout(listener.fd, SO_RCVTIMEO, 1000);
    CHECK_OUTCOME(observe([&] { return victim().accept(listener.fd, nullptr, nullptr); }), -1, EAGAIN);
    set_timeout(listener.fd, SO_RCVTIMEO, 0);
    CHECK_OUTCOME(interrupted([&] { return victim().accept(listener.fd, nullptr, nullptr); }), -1, EINTR);
    CHECK_OUTCOME(cancelled([&] { return victim().accept(listener.fd, nullptr, nullptr); }), -1, ECANCELED);
    const int fd = listener.fd;
    CHECK_OUTCOME(parked_until([&] { return victim().accept(fd, nullptr, nullptr); }, [&] { listener.fd.reset(); }), -1,
                  EBADF);
}

TEST_CASE("many fibers accept on one listener, each connection goes to one") {
    Program program;
    Listener listener(AF_INET, 64);
    constexpr int kFibers = 20;
    int accepted = 0;
    std::vector<culm::JoinHandle> fibers;
    for (int i = 0; i < kFibers; ++i) {
        fibers.push_back(culm::spawn([&] {
            const int fd = victim().accept(listener.fd, nullptr, nullptr);
            if (fd < 0) return;
            ++accepted;
            victim().close(fd);
        }));
    }
    std::vector<Descriptor> clients;
    for (int i = 0; i < kFibers; ++i) {
        clients.push_back(listener.connected());
        culm::yield_now();
    }
    for (culm::JoinHandle& fiber : fibers) fiber.join();
    CHECK(accepted == kFibers);
}

TEST_CASE("reaching the descriptor limit loses no connection") {
    Program program;
    Listener listener(AF_INET);
    rlimit before{};
    ::getrlimit(RLIMIT_NOFILE, &before);
    Descriptor client = listener.connected();
    rlimit none{3, before.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &none);
    const Outcome refused = observe([&] { return victim().accept(listener.fd, nullptr, nullptr); });
    ::setrlimit(RLIMIT_NOFILE, &before);
    CHECK(refused.result == -1);
    CHECK(refused.error == EMFILE);
    Descriptor connection(victim().accept(listener.fd, nullptr, nullptr));
    CHECK(connection >= 0);
}

TEST_CASE("connect succeeds, is refused, and leaves the mode alone") {
    Program program;
    Listener listener(AF_INET);
    Descriptor client = listener.client();
    CHECK_OUTCOME(observe([&] { return victim().connect(client, listener.name(), listener.length); }), 0, kErrnoBefore);
    CHECK((::fcntl(client, F_GETFL) & O_NONBLOCK) == 0);
    CHECK_OUTCOME(observe([&] { return victim().connect(client, listener.name(), listener.length); }), -1, EISCONN);
    listener.fd.reset();
    Descriptor late = listener.client();
    CHECK_OUTCOME(observe([&] { return victim().connect(late, listener.name(), listener.length); }), -1, ECONNREFUSED);
    Descriptor nonblocking = listener.client();
    set_nonblocking(nonblocking);
    const Outcome started = observe([&] { return victim().connect(nonblocking, listener.name(), listener.length); });
    CHECK(started.result == -1);
    CHECK((started.error == EINPROGRESS || started.error == ECONNREFUSED));
}

TEST_CASE("connect parks while a full backlog leaves it unanswered") {
    // One connection fits beyond a backlog of 0; further SYNs are dropped until accept makes room.
    Program program;
    Listener listener(AF_INET, 0);
    std::vector<Descriptor> waiting;
    for (;;) {
        Descriptor next = listener.client();
        ::fcntl(next, F_SETFL, O_NONBLOCK);
        const int result = ::connect(next, listener.name(), listener.length);
        pollfd writable{next, POLLOUT, 0};
        const bool answered = result == 0 || ::poll(&writable, 1, 50) == 1;
        waiting.push_back(std::move(next));
        if (!answered || waiting.size() > 8) break;
    }
    REQUIRE(waiting.size() <= 8);
    Descriptor client = listener.client();
    SUBCASE("timeout") {
        set_timeout(client, SO_SNDTIMEO, 3000);
        CHECK_OUTCOME(observe([&] { return victim().connect(client, listener.name(), listener.length); }), -1,
                      EINPROGRESS);
    }
    SUBCASE("signal") {
        CHECK_OUTCOME(interrupted([&] { return victim().connect(client, listener.name(), listener.length); }), -1,
                      EINTR);
    }
    SUBCASE("cancel") {
        CHECK_OUTCOME(cancelled([&] { return victim().connect(client, listener.name(), listener.length); }), -1,
                      ECANCELED);
    }
    SUBCASE("close") {
        const int fd = client;
        CHECK_OUTCOME(parked_until([&] { return victim().connect(fd, listener.name(), listener.length); },
                                   [&] { client.reset(); }),
                      -1, EBADF);
    }
    SUBCASE("room") {
        CHECK_OUTCOME(parked_until([&] { return victim().connect(client, listener.name(), listener.length); },
                                   [&] {
                                       for (std::size_t i = 0; i < waiting.size(); ++i) {
                                           pollfd look{listener.fd, POLLIN, 0};
                                           if (::poll(&look, 1, 0) == 1)
                                               ::close(::accept(listener.fd, nullptr, nullptr));
                                       }
                                       waiting.clear();
                                   }),
                      0, kErrnoBefore);
        CHECK_OUTCOME(observe([&] { return victim().connect(client, listener.name(), listener.length); }), -1, EISCONN);
    }
}

TEST_CASE("AF_UNIX: a full backlog is waited out, or times out with EAGAIN") {
    Program program;
    Listener listener(AF_UNIX, 0);
    std::vector<Descriptor> waiting;
    for (;;) {
        Descriptor next = listener.client();
        ::fcntl(next, F_SETFL, O_NONBLOCK);
        if (::connect(next, listener.name(), listener.length) != 0) break;
        waiting.push_back(std::move(next));
    }
    Descriptor client = listener.client();
    SUBCASE("timeout") {
        set_timeout(client, SO_SNDTIMEO, 3000);
        CHECK_OUTCOME(observe([&] { return victim().connect(client, listener.name(), listener.length); }), -1, EAGAIN);
    }
    SUBCASE("room") {
        CHECK_OUTCOME(parked_until([&] { return victim().connect(client, listener.name(), listener.length); },
                                   [&] { ::close(::accept(listener.fd, nullptr, nullptr)); }),
                      0, kErrnoBefore);
    }
    SUBCASE("cancel") {
        CHECK_OUTCOME(cancelled([&] { return victim().connect(client, listener.name(), listener.length); }), -1,
                      ECANCELED);
    }
}

TEST_CASE("bad arguments fail as in libc") {
    Program program;
    Pair ends = pipe_pair();
    Descriptor unbound(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    CHECK_OUTCOME(observe([&] { return victim().accept(-1, nullptr, nullptr); }), -1, EBADF);
    CHECK_OUTCOME(observe([&] { return victim().accept(ends.near, nullptr, nullptr); }), -1, ENOTSOCK);
    CHECK_OUTCOME(observe([&] { return victim().accept(unbound, nullptr, nullptr); }), -1, EINVAL);
    CHECK_OUTCOME(observe([&] { return victim().connect(ends.near, nullptr, 0); }), -1, ENOTSOCK);
    CHECK((::fcntl(unbound, F_GETFL) & O_NONBLOCK) == 0);
}
