// What a C++ program writes: spawn, join, sleep, socket calls.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <memory>
#include <vector>

#include "../core/child.hpp"
#include "culm/runtime/io.hpp"
#include "fixture.hpp"

using namespace culm::testing;

namespace {

struct Listener {
    int fd = -1;
    sockaddr_in address{};

    Listener() {
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        REQUIRE(fd >= 0);
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        REQUIRE(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
        REQUIRE(listen(fd, 16) == 0);
        socklen_t length = sizeof address;
        REQUIRE(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) == 0);
    }
    int connected() const {
        const int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        REQUIRE(culm::io::connect(client, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
        return client;
    }
};

}  // namespace

TEST_CASE("spawn takes a move-only function and runs its destructor on the fiber") {
    SchedulerForTest scheduler;
    auto owned = std::make_unique<int>(5);
    int seen = 0;
    auto fiber = culm::spawn([&seen, owned = std::move(owned)] { seen = *owned; }, {.name = "owner"});
    CHECK(std::string(fiber.fiber().name()) == "owner");
    fiber.join();
    CHECK(seen == 5);
}

TEST_CASE("a dropped handle detaches its fiber") {
    SchedulerForTest scheduler;
    bool ran = false;
    {
        auto dropped = culm::spawn([&] { ran = true; });
    }
    let_others_run();
    CHECK(ran);
}

TEST_CASE("an exception that leaves the function ends the process") {
    const auto end = run_in_child([] {
        std::signal(SIGABRT, SIG_DFL);
        auto fiber = culm::spawn([] { throw 1; });
        fiber.join();
        return 0;
    });
    CHECK(end.died_of(SIGABRT));
}

TEST_CASE("blocking sockets: accept, connect, a megabyte there and back") {
    SchedulerForTest scheduler;
    Listener listener;
    auto server = small_fiber([&] {
        const int peer = culm::io::accept(listener.fd, nullptr, nullptr);
        REQUIRE(peer >= 0);
        std::vector<char> buffer(65536);
        for (ssize_t got; (got = culm::io::receive(peer, buffer.data(), buffer.size())) > 0;) {
            REQUIRE(culm::io::send_all(peer, buffer.data(), static_cast<std::size_t>(got)) == got);
        }
        culm::io::close(peer);
    });
    const int client = listener.connected();
    constexpr std::size_t kBytes = 1 << 20;
    std::vector<char> sent(kBytes);
    for (std::size_t i = 0; i < kBytes; ++i) sent[i] = static_cast<char>(i * 31);
    auto sender = small_fiber([&] {
        CHECK(culm::io::send_all(client, sent.data(), kBytes) == kBytes);
        shutdown(client, SHUT_WR);
    });
    std::vector<char> received;
    std::vector<char> buffer(10000);
    for (ssize_t got; (got = culm::io::receive(client, buffer.data(), buffer.size())) > 0;) {
        received.insert(received.end(), buffer.begin(), buffer.begin() + got);
    }
    CHECK(received == sent);
    sender.join();
    server.join();
    culm::io::close(client);
    culm::io::close(listener.fd);
}

TEST_CASE("a deadline, a cancel and a close by another fiber end a socket call with their own errno") {
    SchedulerForTest scheduler;
    Listener listener;
    const int client = listener.connected();
    char byte;
    CHECK(culm::io::receive(client, &byte, 1, scheduler->clock().now_ns() + kMillisecond) == -1);
    CHECK(errno == ETIMEDOUT);
    int error = 0;
    auto reader = small_fiber([&] { error = culm::io::receive(client, &byte, 1) == -1 ? errno : 0; });
    let_others_run();
    reader.cancel();
    reader.join();
    CHECK(error == ECANCELED);
    auto other = small_fiber([&] { error = culm::io::receive(client, &byte, 1) == -1 ? errno : 0; });
    let_others_run();
    CHECK(culm::io::close(client) == 0);
    other.join();
    CHECK(error == EBADF);
    CHECK(culm::io::receive(client, &byte, 1) == -1);
    CHECK(errno == EBADF);
    culm::io::close(listener.fd);
}

TEST_CASE("a refused connection and a reset peer are errors, not signals") {
    SchedulerForTest scheduler;
    Listener listener;
    const sockaddr_in address = listener.address;
    const int client = listener.connected();
    const int peer = culm::io::accept(listener.fd, nullptr, nullptr);
    const linger reset{1, 0};
    setsockopt(peer, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    culm::io::close(peer);
    char byte = 0;
    CHECK(culm::io::receive(client, &byte, 1) == -1);
    CHECK(errno == ECONNRESET);
    CHECK(culm::io::send_all(client, &byte, 1) == -1);
    CHECK(errno == EPIPE);
    culm::io::close(client);
    culm::io::close(listener.fd);
    const int refused = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(culm::io::connect(refused, reinterpret_cast<const sockaddr*>(&address), sizeof address) == -1);
    CHECK(errno == ECONNREFUSED);
    culm::io::close(refused);
}
