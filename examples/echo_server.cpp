// A TCP echo server, one fiber per connection, in plain blocking style.
//
//   culm_example_echo_server            serves 100 clients of its own over loopback, says what it did, and exits
//   culm_example_echo_server 9000       serves on that port until it is stopped
#include <arpa/inet.h>
#include <netinet/in.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "culm/runtime/io.hpp"
#include "culm/runtime/spawn.hpp"

namespace {

constexpr int kClients = 100;
constexpr int kRequests = 50;

[[noreturn]] void fail(const char* what) {
    std::perror(what);
    std::exit(1);
}

void echo(int connection) {
    std::array<char, 4096> buffer;
    for (;;) {
        const ssize_t got = culm::io::receive(connection, buffer.data(), buffer.size());
        if (got <= 0) break;
        if (culm::io::send_all(connection, buffer.data(), static_cast<std::size_t>(got)) < 0) break;
    }
    culm::io::close(connection);
}

// Ends when the listener is closed.
void serve(int listener) {
    for (;;) {
        const int connection = culm::io::accept(listener, nullptr, nullptr);
        if (connection < 0) return;
        culm::spawn([connection] { echo(connection); }, {.name = "echo", .stack_class = culm::StackClass::k256K});
    }
}

int listen_on(in_port_t port, sockaddr_in& address) {
    const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0) fail("socket");
    const int on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) < 0) fail("bind");
    if (listen(listener, kClients) < 0) fail("listen");
    socklen_t length = sizeof address;
    if (getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length) < 0) fail("getsockname");
    return listener;
}

// Returns how many answers were what was asked.
int ask(const sockaddr_in& address, int client) {
    const int connection = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection < 0) fail("socket");
    if (culm::io::connect(connection, reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0) fail("connect");
    int right = 0;
    for (int request = 0; request < kRequests; ++request) {
        char asked[64] = {};
        std::snprintf(asked, sizeof asked, "client %d, request %d", client, request);
        if (culm::io::send_all(connection, asked, sizeof asked) < 0) fail("send");
        char answer[sizeof asked];
        std::size_t got = 0;
        while (got < sizeof answer) {
            const ssize_t part = culm::io::receive(connection, answer + got, sizeof answer - got);
            if (part <= 0) fail("receive");
            got += static_cast<std::size_t>(part);
        }
        right += std::memcmp(asked, answer, sizeof asked) == 0 ? 1 : 0;
    }
    culm::io::close(connection);
    return right;
}

}  // namespace

int main(int count, char** arguments) {
    sockaddr_in address;
    const int port = count > 1 ? std::atoi(arguments[1]) : 0;
    const int listener = listen_on(static_cast<in_port_t>(port), address);
    if (port != 0) {
        std::printf("serving on 127.0.0.1:%d\n", port);
        std::fflush(stdout);
        serve(listener);
        return 0;
    }

    auto server = culm::spawn([listener] { serve(listener); }, {.name = "server"});
    int right = 0;
    std::vector<culm::JoinHandle> clients;
    for (int client = 0; client < kClients; ++client) {
        clients.push_back(culm::spawn([&, client] { right += ask(address, client); }, {.name = "client"}));
    }
    for (auto& client : clients) client.join();
    culm::io::close(listener);
    server.join();

    const auto statistics = culm::runtime::Scheduler::current()->statistics();
    std::printf("%d clients, %d of %d answers right, %llu switches, %llu polls, one OS thread\n", kClients, right,
                kClients * kRequests, static_cast<unsigned long long>(statistics.switches),
                static_cast<unsigned long long>(statistics.polls));
    while (culm::runtime::Scheduler::current()->statistics().fibers > 0) culm::yield_now();
    return right == kClients * kRequests ? 0 : 1;
}
