// Plain blocking code, compiled as somebody else's library. Nothing here knows of fibers.
#include "victim.hpp"

#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>

#include <cstring>

namespace {

constexpr std::size_t kRoom = 64;

ssize_t checked_recv(int fd, char* out, std::size_t bytes) {
    char buffer[kRoom];
    const ssize_t got = recv(fd, buffer, bytes, 0);
    if (got > 0) std::memcpy(out, buffer, static_cast<std::size_t>(got));
    return got;
}

ssize_t checked_recvfrom(int fd, char* out, std::size_t bytes) {
    char buffer[kRoom];
    const ssize_t got = recvfrom(fd, buffer, bytes, 0, nullptr, nullptr);
    if (got > 0) std::memcpy(out, buffer, static_cast<std::size_t>(got));
    return got;
}

ssize_t checked_read(int fd, char* out, std::size_t bytes) {
    char buffer[kRoom];
    const ssize_t got = read(fd, buffer, bytes);
    if (got > 0) std::memcpy(out, buffer, static_cast<std::size_t>(got));
    return got;
}

int checked_poll(int fd, nfds_t count, int timeout_ms) {
    pollfd fds[2] = {{fd, POLLIN, 0}, {-1, 0, 0}};
    return poll(fds, count, timeout_ms);
}

int checked_ppoll(int fd, nfds_t count) {
    pollfd fds[2] = {{fd, POLLIN, 0}, {-1, 0, 0}};
    return ppoll(fds, count, nullptr, nullptr);
}

// What the calls go through: one lambda per call, so that each has a slot of its own kind (PLT or GOT).
const VictimCalls calls = {
    [](int a, int b, int c) { return socket(a, b, c); },
    [](int a, int b, int c, int* d) { return socketpair(a, b, c, d); },
    [](int a, int b, int c, const void* d, socklen_t e) { return setsockopt(a, b, c, d, e); },
    [](int a, const sockaddr* b, socklen_t c) { return connect(a, b, c); },
    [](int a, sockaddr* b, socklen_t* c) { return accept(a, b, c); },
    [](int a, sockaddr* b, socklen_t* c, int d) { return accept4(a, b, c, d); },
    [](int a, void* b, std::size_t c, int d) { return recv(a, b, c, d); },
    [](int a, void* b, std::size_t c, int d, sockaddr* e, socklen_t* f) { return recvfrom(a, b, c, d, e, f); },
    [](int a, msghdr* b, int c) { return recvmsg(a, b, c); },
    [](int a, const void* b, std::size_t c, int d) { return send(a, b, c, d); },
    [](int a, const void* b, std::size_t c, int d, const sockaddr* e, socklen_t f) { return sendto(a, b, c, d, e, f); },
    [](int a, const msghdr* b, int c) { return sendmsg(a, b, c); },
    [](int a, void* b, std::size_t c) { return read(a, b, c); },
    [](int a, const iovec* b, int c) { return readv(a, b, c); },
    [](int a, const void* b, std::size_t c) { return write(a, b, c); },
    [](int a, const iovec* b, int c) { return writev(a, b, c); },
    [](int a, eventfd_t* b) { return eventfd_read(a, b); },
    [](int a, eventfd_t b) { return eventfd_write(a, b); },
    [](int a) { return close(a); },
    [](unsigned a, unsigned b, int c) { return close_range(a, b, c); },
    [](int a) { return dup(a); },
    [](int a, int b) { return dup2(a, b); },
    [](int a, int b, int c) { return dup3(a, b, c); },
    [](int a, int b, int c) { return fcntl(a, b, c); },
    [](int a, unsigned long b, int* c) { return ioctl(a, b, c); },
    [](pollfd* a, nfds_t b, int c) { return poll(a, b, c); },
    [](pollfd* a, nfds_t b, const timespec* c, const sigset_t* d) { return ppoll(a, b, c, d); },
    [](int a, fd_set* b, fd_set* c, fd_set* d, timeval* e) { return select(a, b, c, d, e); },
    [](int a, fd_set* b, fd_set* c, fd_set* d, const timespec* e, const sigset_t* f) {
        return pselect(a, b, c, d, e, f);
    },
    [](int a, epoll_event* b, int c, int d) { return epoll_wait(a, b, c, d); },
    [](int a, epoll_event* b, int c, int d, const sigset_t* e) { return epoll_pwait(a, b, c, d, e); },
    [](const timespec* a, timespec* b) { return nanosleep(a, b); },
    [](clockid_t a, int b, const timespec* c, timespec* d) { return clock_nanosleep(a, b, c, d); },
    [](useconds_t a) { return usleep(a); },
    [](unsigned a) { return sleep(a); },
    [](sem_t* a) { return sem_wait(a); },
    [](sem_t* a, const timespec* b) { return sem_timedwait(a, b); },
    [](sem_t* a, clockid_t b, const timespec* c) { return sem_clockwait(a, b, c); },
    [](sem_t* a) { return sem_post(a); },
    [](sem_t* a) { return sem_destroy(a); },
    [](pthread_mutex_t* a) { return pthread_mutex_lock(a); },
    [](pthread_mutex_t* a) { return pthread_mutex_trylock(a); },
    [](pthread_mutex_t* a) { return pthread_mutex_unlock(a); },
    [](const char* a, int b) {
        void* library = dlopen(a, b);
        __asm__ volatile("");  // no tail call: the loader looks at who called it
        return library;
    },
    [](void* a, const char* b) { return dlsym(a, b); },
    [](void* a) { return dlclose(a); },
    []() { return pthread_self(); },
    [](pthread_t a, int b) { return pthread_kill(a, b); },
    [](pthread_t a, clockid_t* b) { return pthread_getcpuclockid(a, b); },
    [](pthread_t a, const char* b) { return pthread_setname_np(a, b); },
    [](pthread_t a, char* b, std::size_t c) { return pthread_getname_np(a, b, c); },
    [](pthread_t a, void** b) { return pthread_join(a, b); },
    checked_recv,
    checked_recvfrom,
    checked_read,
    checked_poll,
    checked_ppoll,
};

}  // namespace

// Every symbol of the table, weak: an older libc lacks some.
// clang-format off
#define SYMBOLS(X) \
    X(socket) X(socketpair) X(setsockopt) X(connect) X(__connect) X(accept) X(accept4) X(recv) X(recvfrom) \
    X(recvmsg) X(send) X(__send) X(sendto) X(sendmsg) X(__recv_chk) X(__recvfrom_chk) X(read) X(__read) \
    X(__read_chk) X(readv) X(write) X(__write) X(writev) X(eventfd_read) \
    X(eventfd_write) X(close) X(__close) X(close_range) X(closefrom) X(dup) \
    X(dup2) X(__dup2) X(dup3) X(fcntl) X(__fcntl) X(fcntl64) X(ioctl) X(poll) X(__poll) X(__poll_chk) X(ppoll) \
    X(__ppoll_chk) X(select) X(__select) X(pselect) X(epoll_wait) X(epoll_pwait) X(epoll_pwait2) X(nanosleep) \
    X(__nanosleep) X(clock_nanosleep) X(usleep) X(sleep) X(sem_wait) X(sem_timedwait) X(sem_clockwait) \
    X(sem_post) X(sem_destroy) X(pthread_mutex_lock) X(pthread_mutex_trylock) X(pthread_mutex_timedlock) \
    X(pthread_mutex_clocklock) X(pthread_mutex_unlock) X(dlopen) X(dlmopen) X(dlsym) X(dlclose) X(pthread_self) \
    X(pthread_kill) X(pthread_sigqueue) X(pthread_getcpuclockid) X(pthread_getattr_np) X(pthread_detach) \
    X(pthread_join) X(pthread_setname_np) X(pthread_getname_np) X(pthread_getschedparam) \
    X(pthread_setschedparam) X(pthread_getaffinity_np) X(pthread_setaffinity_np)
// clang-format on

namespace symbols {
#define DECLARE(name) extern "C" void symbol_##name() __asm__(#name) __attribute__((weak));
SYMBOLS(DECLARE)
#undef DECLARE
}  // namespace symbols

namespace {
#define ROW(name) {#name, reinterpret_cast<void*>(&symbols::symbol_##name)},
const VictimSlot slots[] = {SYMBOLS(ROW){nullptr, nullptr}};
#undef ROW
}  // namespace

extern "C" __attribute__((visibility("default"))) const VictimCalls* victim_calls() { return &calls; }
extern "C" __attribute__((visibility("default"))) const VictimSlot* victim_slots() { return slots; }
