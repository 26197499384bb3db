// Load for an echo server: N connections, each sends a message, waits for its echo, and sends the next.
//
//   culm_echo_load PORT CONNECTIONS BYTES SECONDS   ->  prints "ready", later the number of echoes
//
// It is ready when every connection has had its first echo: then SECONDS begin, and what was before does not count. One
// epoll loop in C++, so that the server is what limits, whatever language it is written in.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {

struct Connection {
    int fd = -1;
    std::size_t received = 0;
    bool has_had_echo = false;
};

int connect_to(int port) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) < 0) {
        std::perror("culm_echo_load: connect");
        std::exit(1);
    }
    const int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 5) {
        std::fprintf(stderr, "usage: culm_echo_load PORT CONNECTIONS BYTES SECONDS\n");
        return 2;
    }
    const int port = std::atoi(argv[1]);
    std::vector<Connection> connections(static_cast<std::size_t>(std::atoi(argv[2])));
    const std::vector<char> message(static_cast<std::size_t>(std::atoi(argv[3])), 'x');
    std::vector<char> buffer(65536);
    const int epoll = epoll_create1(0);
    for (std::size_t i = 0; i < connections.size(); ++i) {
        connections[i].fd = connect_to(port);
        epoll_event event{.events = EPOLLIN, .data = {.u64 = i}};
        epoll_ctl(epoll, EPOLL_CTL_ADD, connections[i].fd, &event);
    }
    for (const Connection& connection : connections) {
        if (write(connection.fd, message.data(), message.size()) < 0) return 1;
    }
    long echoes = 0;
    std::size_t without_echo = connections.size();
    const std::chrono::duration<double> seconds(std::atof(argv[4]));
    auto begin = std::chrono::steady_clock::now();
    std::vector<epoll_event> events(256);
    while (without_echo > 0 || std::chrono::steady_clock::now() - begin < seconds) {
        const int ready = epoll_wait(epoll, events.data(), static_cast<int>(events.size()), 100);
        for (int i = 0; i < ready; ++i) {
            Connection& connection = connections[events[static_cast<std::size_t>(i)].data.u64];
            const ssize_t got = read(connection.fd, buffer.data(), buffer.size());
            if (got <= 0) {
                std::fprintf(stderr, "culm_echo_load: the server closed a connection\n");
                return 1;
            }
            connection.received += static_cast<std::size_t>(got);
            if (connection.received < message.size()) continue;
            connection.received = 0;
            ++echoes;
            if (!connection.has_had_echo) {
                connection.has_had_echo = true;
                if (--without_echo == 0) {
                    std::puts("ready");
                    std::fflush(stdout);
                    echoes = 0;
                    begin = std::chrono::steady_clock::now();
                }
            }
            if (write(connection.fd, message.data(), message.size()) < 0) return 1;
        }
    }
    std::printf("%ld\n", echoes);
    return 0;
}
