// poll, ppoll, select, pselect, epoll_wait, epoll_pwait.
#include <sys/resource.h>

#include <vector>

#include "harness.hpp"

namespace {

struct EpollSet {
    EpollSet() : fd(::epoll_create1(EPOLL_CLOEXEC)) {}
    void add(int watched, std::uint32_t events) {
        epoll_event event{};
        event.events = events;
        event.data.fd = watched;
        REQUIRE(::epoll_ctl(fd, EPOLL_CTL_ADD, watched, &event) == 0);
    }
    Descriptor fd;
};

int select_readable(int fd, timeval* timeout) {
    fd_set set;
    FD_ZERO(&set);
    FD_SET(fd, &set);
    const int found = victim().select(fd + 1, &set, nullptr, nullptr, timeout);
    CHECK((found <= 0 || FD_ISSET(fd, &set)));
    CHECK((found != 0 || !FD_ISSET(fd, &set)));
    return found;
}

int pselect_readable(int fd, const timespec* timeout, const sigset_t* mask = nullptr) {
    fd_set set;
    FD_ZERO(&set);
    FD_SET(fd, &set);
    return victim().pselect(fd + 1, &set, nullptr, nullptr, timeout, mask);
}

}  // namespace

TEST_CASE("each kind of waiting parks until a descriptor is ready") {
    Program program;
    Pair pair = socket_pair();
    EpollSet set;
    set.add(pair.near, EPOLLIN);
    const auto feed = [&] { CHECK(::send(pair.far, "x", 1, 0) == 1); };
    pollfd fds[3] = {{-1, POLLIN, 0}, {pair.near, POLLIN, 0}, {pair.far, POLLPRI, 0}};
    epoll_event event{};
    const timespec minute{60, 0};
    SUBCASE("poll") {
        CHECK_OUTCOME(parked_until([&] { return victim().poll(fds, 3, -1); }, feed), 1, kErrnoBefore);
        CHECK(fds[1].revents == POLLIN);
        CHECK(fds[0].revents == 0);
    }
    SUBCASE("poll with a timeout") {
        CHECK_OUTCOME(parked_until([&] { return victim().poll(fds, 3, 60'000); }, feed), 1, kErrnoBefore);
    }
    SUBCASE("ppoll") {
        CHECK_OUTCOME(parked_until([&] { return victim().ppoll(fds, 3, &minute, nullptr); }, feed), 1, kErrnoBefore);
    }
    SUBCASE("ppoll with the present mask") {
        sigset_t mask;
        ::pthread_sigmask(SIG_BLOCK, nullptr, &mask);
        CHECK_OUTCOME(parked_until([&] { return victim().ppoll(fds, 3, nullptr, &mask); }, feed), 1, kErrnoBefore);
    }
    SUBCASE("select") {
        timeval timeout{60, 0};
        CHECK_OUTCOME(parked_until([&] { return select_readable(pair.near, &timeout); }, feed), 1, kErrnoBefore);
        CHECK(timeout.tv_sec < 60);  // what was left
        CHECK(timeout.tv_sec >= 0);
    }
    SUBCASE("select without a timeout") {
        CHECK_OUTCOME(parked_until([&] { return select_readable(pair.near, nullptr); }, feed), 1, kErrnoBefore);
    }
    SUBCASE("pselect") {
        CHECK_OUTCOME(parked_until([&] { return pselect_readable(pair.near, &minute); }, feed), 1, kErrnoBefore);
    }
    SUBCASE("epoll_wait") {
        CHECK_OUTCOME(parked_until([&] { return victim().epoll_wait(set.fd, &event, 1, -1); }, feed), 1, kErrnoBefore);
        CHECK(int{event.data.fd} == pair.near);
    }
    SUBCASE("epoll_pwait") {
        CHECK_OUTCOME(parked_until([&] { return victim().epoll_pwait(set.fd, &event, 1, 60'000, nullptr); }, feed), 1,
                      kErrnoBefore);
    }
}

TEST_CASE("timeouts pass, and other fibers run meanwhile") {
    Program program;
    Pair pair = socket_pair();
    EpollSet set;
    set.add(pair.near, EPOLLIN);
    pollfd one{pair.near, POLLIN, 0};
    epoll_event event{};
    const timespec short_time{0, 2'000'000};
    bool other_ran = false;
    culm::spawn([&] { other_ran = true; });
    SUBCASE("poll") {
        CHECK_OUTCOME(observe([&] { return victim().poll(&one, 1, 2); }), 0, kErrnoBefore);
    }
    SUBCASE("poll of nothing") {
        CHECK_OUTCOME(observe([&] { return victim().poll(nullptr, 0, 2); }), 0, kErrnoBefore);
    }
    SUBCASE("poll of negative descriptors") {
        pollfd none[2] = {{-1, POLLIN, 0}, {-7, POLLOUT, 0}};
        CHECK_OUTCOME(observe([&] { return victim().poll(none, 2, 2); }), 0, kErrnoBefore);
    }
    SUBCASE("ppoll") {
        CHECK_OUTCOME(observe([&] { return victim().ppoll(&one, 1, &short_time, nullptr); }), 0, kErrnoBefore);
    }
    SUBCASE("select") {
        timeval timeout{0, 2000};
        CHECK_OUTCOME(observe([&] { return select_readable(pair.near, &timeout); }), 0, kErrnoBefore);
        CHECK(timeout.tv_sec == 0);
        CHECK(timeout.tv_usec == 0);
    }
    SUBCASE("select of nothing") {
        timeval timeout{0, 2000};
        CHECK_OUTCOME(observe([&] { return victim().select(0, nullptr, nullptr, nullptr, &timeout); }), 0,
                      kErrnoBefore);
    }
    SUBCASE("pselect") {
        CHECK_OUTCOME(observe([&] { return pselect_readable(pair.near, &short_time); }), 0, kErrnoBefore);
    }
    SUBCASE("epoll_wait") {
        CHECK_OUTCOME(observe([&] { return victim().epoll_wait(set.fd, &event, 1, 2); }), 0, kErrnoBefore);
    }
    CHECK(other_ran);
}

TEST_CASE("a timeout of zero looks and does not park") {
    Program program;
    Pair pair = socket_pair();
    EpollSet set;
    set.add(pair.near, EPOLLIN);
    pollfd one{pair.near, POLLIN, 0};
    epoll_event event{};
    timeval none{0, 0};
    const timespec nothing{0, 0};
    const unsigned long parks = culm::runtime::interpose::statistics().parks;
    CHECK_OUTCOME(observe([&] { return victim().poll(&one, 1, 0); }), 0, kErrnoBefore);
    CHECK_OUTCOME(observe([&] { return victim().ppoll(&one, 1, &nothing, nullptr); }), 0, kErrnoBefore);
    CHECK_OUTCOME(observe([&] { return select_readable(pair.near, &none); }), 0, kErrnoBefore);
    CHECK_OUTCOME(observe([&] { return pselect_readable(pair.near, &nothing); }), 0, kErrnoBefore);
    CHECK_OUTCOME(observe([&] { return victim().epoll_wait(set.fd, &event, 1, 0); }), 0, kErrnoBefore);
    CHECK(::send(pair.far, "x", 1, 0) == 1);
    CHECK_OUTCOME(observe([&] { return victim().poll(&one, 1, -1); }), 1, kErrnoBefore);
    CHECK_OUTCOME(observe([&] { return select_readable(pair.near, nullptr); }), 1, kErrnoBefore);
    CHECK_OUTCOME(observe([&] { return victim().epoll_wait(set.fd, &event, 1, -1); }), 1, kErrnoBefore);
    CHECK(culm::runtime::interpose::statistics().parks == parks);
}

TEST_CASE("signals and cancellations end each kind of waiting") {
    Program program;
    Pair pair = socket_pair();
    EpollSet set;
    set.add(pair.near, EPOLLIN);
    pollfd one{pair.near, POLLIN, 0};
    epoll_event event{};
    CHECK_OUTCOME(interrupted([&] { return victim().poll(&one, 1, -1); }), -1, EINTR);
    CHECK_OUTCOME(interrupted([&] { return victim().poll(nullptr, 0, -1); }), -1, EINTR);
    CHECK_OUTCOME(interrupted([&] { return select_readable(pair.near, nullptr); }), -1, EINTR);
    CHECK_OUTCOME(interrupted([&] { return victim().epoll_wait(set.fd, &event, 1, -1); }), -1, EINTR);
    CHECK_OUTCOME(cancelled([&] { return victim().poll(&one, 1, -1); }), -1, ECANCELED);
    CHECK_OUTCOME(cancelled([&] { return select_readable(pair.near, nullptr); }), -1, ECANCELED);
    CHECK_OUTCOME(cancelled([&] { return victim().epoll_wait(set.fd, &event, 1, -1); }), -1, ECANCELED);
}

TEST_CASE("a mask other than the thread's goes to libc, where it works") {
    Program program;
    Pair pair = socket_pair();
    const timespec short_time{0, 1'000'000};
    sigset_t mask;
    sigfillset(&mask);
    const unsigned long parks = culm::runtime::interpose::statistics().parks;
    pollfd one{pair.near, POLLIN, 0};
    CHECK_OUTCOME(observe([&] { return victim().ppoll(&one, 1, &short_time, &mask); }), 0, kErrnoBefore);
    CHECK_OUTCOME(observe([&] { return pselect_readable(pair.near, &short_time, &mask); }), 0, kErrnoBefore);
    CHECK(culm::runtime::interpose::statistics().parks == parks);
}

TEST_CASE("closing by another fiber is reported in each call's own way") {
    Program program;
    Pair pair = socket_pair();
    const int fd = pair.near;
    SUBCASE("poll") {
        pollfd one{fd, POLLIN, 0};
        CHECK_OUTCOME(parked_until([&] { return victim().poll(&one, 1, -1); }, [&] { pair.near.reset(); }), 1,
                      kErrnoBefore);
        CHECK(one.revents == POLLNVAL);
    }
    SUBCASE("select") {
        CHECK_OUTCOME(parked_until([&] { return select_readable(fd, nullptr); }, [&] { pair.near.reset(); }), -1,
                      EBADF);
    }
    SUBCASE("epoll_wait") {
        EpollSet set;
        epoll_event event{};
        const int epoll_fd = set.fd;
        CHECK_OUTCOME(
            parked_until([&] { return victim().epoll_wait(epoll_fd, &event, 1, -1); }, [&] { set.fd.reset(); }), -1,
            EBADF);
    }
}

TEST_CASE("hang-ups are seen by who asks for nothing") {
    Program program;
    Pair pair = socket_pair();
    pollfd one{pair.near, 0, 0};
    CHECK_OUTCOME(parked_until([&] { return victim().poll(&one, 1, -1); }, [&] { pair.far.reset(); }), 1, kErrnoBefore);
    CHECK((one.revents & POLLHUP) != 0);
}

TEST_CASE("many descriptors in one call, one of them twice") {
    Program program;
    std::vector<Pair> pairs;
    std::vector<pollfd> fds;
    for (int i = 0; i < 100; ++i) {
        pairs.push_back(socket_pair());
        fds.push_back({pairs.back().near, POLLIN, 0});
    }
    fds.push_back({pairs[57].near, POLLIN | POLLRDNORM, 0});
    CHECK_OUTCOME(parked_until([&] { return victim().poll(fds.data(), fds.size(), -1); },
                               [&] { CHECK(::send(pairs[57].far, "x", 1, 0) == 1); }),
                  2, kErrnoBefore);
    CHECK(fds[57].revents == POLLIN);
    CHECK(fds[100].revents == (POLLIN | POLLRDNORM));
}

TEST_CASE("select with all three sets, and with descriptors beyond FD_SETSIZE") {
    Program program;
    Pair pair = socket_pair();
    fd_set readable;
    fd_set writable;
    fd_set exceptional;
    for (fd_set* set : {&readable, &writable, &exceptional}) {
        FD_ZERO(set);
        FD_SET(pair.near, set);
    }
    CHECK_OUTCOME(observe([&] { return victim().select(pair.near + 1, &readable, &writable, &exceptional, nullptr); }),
                  1, kErrnoBefore);
    CHECK_FALSE(FD_ISSET(pair.near, &readable));
    CHECK(FD_ISSET(pair.near, &writable));
    CHECK_FALSE(FD_ISSET(pair.near, &exceptional));

    rlimit before{};
    ::getrlimit(RLIMIT_NOFILE, &before);
    if (before.rlim_max < 3000) return;
    const rlimit raised{3000, before.rlim_max};
    if (before.rlim_cur < 3000) ::setrlimit(RLIMIT_NOFILE, &raised);
    Descriptor high(::fcntl(pair.near, F_DUPFD_CLOEXEC, 2500));
    std::vector<unsigned long> words(3000 / 64 + 1);
    words[static_cast<std::size_t>(high) / 64] |= 1UL << (high % 64);
    CHECK_OUTCOME(parked_until(
                      [&] {
                          return victim().select(high + 1, reinterpret_cast<fd_set*>(words.data()), nullptr, nullptr,
                                                 nullptr);
                      },
                      [&] { CHECK(::send(pair.far, "x", 1, 0) == 1); }),
                  1, kErrnoBefore);
    ::setrlimit(RLIMIT_NOFILE, &before);
}

TEST_CASE("a regular file in the set is ready at once") {
    Program program;
    char path[] = "/tmp/culm_interpose_XXXXXX";
    Descriptor file(::mkstemp(path));
    ::unlink(path);
    Pair pair = socket_pair();
    pollfd fds[2] = {{pair.near, POLLIN, 0}, {file, POLLIN, 0}};
    CHECK_OUTCOME(observe([&] { return victim().poll(fds, 2, -1); }), 1, kErrnoBefore);
    CHECK(fds[1].revents == POLLIN);
}

TEST_CASE("bad arguments fail as in libc") {
    Program program;
    pollfd closed{999'999, POLLIN, 0};
    CHECK_OUTCOME(observe([&] { return victim().poll(&closed, 1, -1); }), 1, kErrnoBefore);
    CHECK(closed.revents == POLLNVAL);
    CHECK_OUTCOME(observe([&] { return victim().poll(nullptr, 3, 5); }), -1, EFAULT);
    CHECK_OUTCOME(observe([&] { return victim().epoll_wait(-1, nullptr, 1, 5); }), -1, EBADF);
    timeval negative{-1, 0};
    CHECK_OUTCOME(observe([&] { return victim().select(0, nullptr, nullptr, nullptr, &negative); }), -1, EINVAL);
    const timespec wrong{0, 2'000'000'000};
    CHECK_OUTCOME(observe([&] { return victim().ppoll(&closed, 1, &wrong, nullptr); }), -1, EINVAL);
    Pair pair = socket_pair();
    epoll_event event{};
    CHECK_OUTCOME(observe([&] { return victim().epoll_wait(pair.near, &event, 1, 5); }), -1, EINVAL);
}

TEST_CASE("a thread without a scheduler blocks for real") {
    Pair pair = socket_pair();
    pollfd one{pair.near, POLLIN, 0};
    CHECK_OUTCOME(
        on_plain_thread([&] { return victim().poll(&one, 1, -1); }, [&] { CHECK(::send(pair.far, "x", 1, 0) == 1); }),
        1, kErrnoBefore);
    CHECK_OUTCOME(on_plain_thread([&] { return select_readable(pair.near, nullptr); }, [] {}), 1, kErrnoBefore);
}
