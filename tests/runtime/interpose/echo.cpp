// A thousand fibers of plain blocking code: echo over socket pairs, on one thread and on several.
#include <sys/resource.h>

#include <string>
#include <vector>

#include "harness.hpp"

namespace {

void raise_descriptor_limit() {
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
}

void echo(int fd) {
    char buffer[64];
    for (;;) {
        const ssize_t got = victim().recv(fd, buffer, sizeof buffer, 0);
        if (got <= 0) break;
        if (victim().send(fd, buffer, static_cast<std::size_t>(got), 0) != got) break;
    }
    victim().close(fd);
}

bool ask(int fd, int number, int rounds) {
    for (int round = 0; round < rounds; ++round) {
        const std::string request = std::to_string(number) + ":" + std::to_string(round);
        if (victim().write(fd, request.data(), request.size()) != static_cast<ssize_t>(request.size())) return false;
        std::string reply(request.size(), '\0');
        const auto size = static_cast<ssize_t>(reply.size());
        if (victim().recv(fd, reply.data(), reply.size(), MSG_WAITALL) != size) return false;
        if (reply != request) return false;
    }
    return true;
}

int echo_with(int pairs, int rounds) {
    Program program;
    int right = 0;
    std::vector<culm::JoinHandle> fibers;
    culm::SpawnOptions small;
    small.stack_class = culm::StackClass::k256K;
    for (int i = 0; i < pairs; ++i) {
        int fds[2];
        REQUIRE(victim().socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
        fibers.push_back(culm::spawn([fd = fds[0]] { echo(fd); }, small));
        fibers.push_back(culm::spawn(
            [&right, fd = fds[1], i, rounds] {
                if (ask(fd, i, rounds)) ++right;
                victim().close(fd);
            },
            small));
    }
    for (culm::JoinHandle& fiber : fibers) fiber.join();
    return right;
}

}  // namespace

TEST_CASE("a thousand fibers echo over socket pairs") {
    raise_descriptor_limit();
    const unsigned long parks = culm::runtime::interpose::statistics().parks;
    CHECK(echo_with(500, 20) == 500);
    CHECK(culm::runtime::interpose::statistics().parks > parks + 500);
    CHECK(culm::runtime::interpose::statistics().direct == 0);
    CHECK(hook_calls.entered == hook_calls.left);
}

TEST_CASE("the same on three threads at once") {
    raise_descriptor_limit();
    victim();
    std::atomic<int> right{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 3; ++i) threads.emplace_back([&] { right += echo_with(60, 20); });
    for (std::thread& thread : threads) thread.join();
    CHECK(right == 180);
}
