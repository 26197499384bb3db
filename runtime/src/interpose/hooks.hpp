// The replacements, one per symbol of the table. Each has the signature of the function it stands in for and lives in
// the file of its family.
#pragma once

#include "real.hpp"

namespace culm::runtime::interpose::hooks {

// sockets.cpp
int socket(int domain, int type, int protocol) noexcept;
int socketpair(int domain, int type, int protocol, int* fds) noexcept;
int setsockopt(int fd, int level, int name, const void* value, socklen_t length) noexcept;
ssize_t recv(int fd, void* buffer, std::size_t bytes, int flags) noexcept;
ssize_t recvfrom(int fd, void* buffer, std::size_t bytes, int flags, sockaddr* from, socklen_t* length) noexcept;
ssize_t recvmsg(int fd, msghdr* message, int flags) noexcept;
ssize_t send(int fd, const void* buffer, std::size_t bytes, int flags) noexcept;
ssize_t sendto(int fd, const void* buffer, std::size_t bytes, int flags, const sockaddr* to, socklen_t length) noexcept;
ssize_t sendmsg(int fd, const msghdr* message, int flags) noexcept;
ssize_t recv_chk(int fd, void* buffer, std::size_t bytes, std::size_t room, int flags) noexcept;
ssize_t recvfrom_chk(int fd, void* buffer, std::size_t bytes, std::size_t room, int flags, sockaddr* from,
                     socklen_t* length) noexcept;
// connections.cpp
int connect(int fd, const sockaddr* address, socklen_t length) noexcept;
int accept(int fd, sockaddr* address, socklen_t* length) noexcept;
int accept4(int fd, sockaddr* address, socklen_t* length, int flags) noexcept;
// files.cpp
ssize_t read(int fd, void* buffer, std::size_t bytes) noexcept;
ssize_t read_chk(int fd, void* buffer, std::size_t bytes, std::size_t room) noexcept;
ssize_t readv(int fd, const iovec* vectors, int count) noexcept;
ssize_t write(int fd, const void* buffer, std::size_t bytes) noexcept;
ssize_t writev(int fd, const iovec* vectors, int count) noexcept;
int eventfd_read(int fd, eventfd_t* value) noexcept;
int eventfd_write(int fd, eventfd_t value) noexcept;
// closing.cpp
int close(int fd) noexcept;
int close_range(unsigned first, unsigned last, int flags) noexcept;
void closefrom(int first) noexcept;
int dup(int fd) noexcept;
int dup2(int fd, int target) noexcept;
int dup3(int fd, int target, int flags) noexcept;
int fcntl(int fd, int command, void* argument) noexcept;
int ioctl(int fd, unsigned long request, void* argument) noexcept;
// poll.cpp and select.cpp
int poll(pollfd* fds, nfds_t count, int timeout_ms) noexcept;
int poll_chk(pollfd* fds, nfds_t count, int timeout_ms, std::size_t room) noexcept;
int ppoll(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask) noexcept;
int ppoll_chk(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask, std::size_t room) noexcept;
int epoll_wait(int fd, epoll_event* events, int count, int timeout_ms) noexcept;
int epoll_pwait(int fd, epoll_event* events, int count, int timeout_ms, const sigset_t* mask) noexcept;
int epoll_pwait2(int fd, epoll_event* events, int count, const timespec* timeout, const sigset_t* mask) noexcept;
int select(int count, fd_set* readable, fd_set* writable, fd_set* exceptional, timeval* timeout) noexcept;
int pselect(int count, fd_set* readable, fd_set* writable, fd_set* exceptional, const timespec* timeout,
            const sigset_t* mask) noexcept;
// sleep.cpp
int nanosleep(const timespec* duration, timespec* remaining) noexcept;
int clock_nanosleep(clockid_t clock, int flags, const timespec* time, timespec* remaining) noexcept;
int usleep(useconds_t microseconds) noexcept;
unsigned sleep(unsigned seconds) noexcept;
// semaphore.cpp
int sem_wait(sem_t* semaphore) noexcept;
int sem_timedwait(sem_t* semaphore, const timespec* deadline) noexcept;
int sem_clockwait(sem_t* semaphore, clockid_t clock, const timespec* deadline) noexcept;
int sem_post(sem_t* semaphore) noexcept;
int sem_destroy(sem_t* semaphore) noexcept;
// mutex.cpp
int pthread_mutex_lock(pthread_mutex_t* mutex) noexcept;
int pthread_mutex_trylock(pthread_mutex_t* mutex) noexcept;
int pthread_mutex_timedlock(pthread_mutex_t* mutex, const timespec* deadline) noexcept;
int pthread_mutex_clocklock(pthread_mutex_t* mutex, clockid_t clock, const timespec* deadline) noexcept;
int pthread_mutex_unlock(pthread_mutex_t* mutex) noexcept;
// loading.cpp
void* dlopen(const char* path, int flags) noexcept;
void* dlmopen(Lmid_t space, const char* path, int flags) noexcept;
void* dlsym(void* handle, const char* name) noexcept;
int dlclose(void* handle) noexcept;
// identity.cpp
pthread_t pthread_self() noexcept;
int pthread_kill(pthread_t thread, int signal) noexcept;
int pthread_sigqueue(pthread_t thread, int signal, const union sigval value) noexcept;
int pthread_getcpuclockid(pthread_t thread, clockid_t* clock) noexcept;
int pthread_getattr_np(pthread_t thread, pthread_attr_t* attributes) noexcept;
int pthread_detach(pthread_t thread) noexcept;
int pthread_join(pthread_t thread, void** result) noexcept;
int pthread_setname_np(pthread_t thread, const char* name) noexcept;
int pthread_getname_np(pthread_t thread, char* name, std::size_t room) noexcept;
int pthread_getschedparam(pthread_t thread, int* policy, sched_param* parameters) noexcept;
int pthread_setschedparam(pthread_t thread, int policy, const sched_param* parameters) noexcept;
int pthread_getaffinity_np(pthread_t thread, std::size_t bytes, cpu_set_t* cpus) noexcept;
int pthread_setaffinity_np(pthread_t thread, std::size_t bytes, const cpu_set_t* cpus) noexcept;

}  // namespace culm::runtime::interpose::hooks
