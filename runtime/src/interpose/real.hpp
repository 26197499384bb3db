// The functions that the hooks stand in for, as libc (or a sanitizer in front of it) defines them.
//
// Filled once by resolve_real_functions() before the first slot is patched, never changed afterwards. A member is null
// when this libc lacks the symbol; its hook is then never reached.
#pragma once

#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <cstddef>

namespace culm::runtime::interpose {

struct RealFunctions {
    // sockets
    int (*socket)(int, int, int);
    int (*socketpair)(int, int, int, int*);
    int (*setsockopt)(int, int, int, const void*, socklen_t);
    int (*connect)(int, const sockaddr*, socklen_t);
    int (*accept)(int, sockaddr*, socklen_t*);
    int (*accept4)(int, sockaddr*, socklen_t*, int);
    ssize_t (*recv)(int, void*, std::size_t, int);
    ssize_t (*recvfrom)(int, void*, std::size_t, int, sockaddr*, socklen_t*);
    ssize_t (*recvmsg)(int, msghdr*, int);
    ssize_t (*send)(int, const void*, std::size_t, int);
    ssize_t (*sendto)(int, const void*, std::size_t, int, const sockaddr*, socklen_t);
    ssize_t (*sendmsg)(int, const msghdr*, int);
    ssize_t (*recv_chk)(int, void*, std::size_t, std::size_t, int);
    ssize_t (*recvfrom_chk)(int, void*, std::size_t, std::size_t, int, sockaddr*, socklen_t*);
    // files
    ssize_t (*read)(int, void*, std::size_t);
    ssize_t (*read_chk)(int, void*, std::size_t, std::size_t);
    ssize_t (*readv)(int, const iovec*, int);
    ssize_t (*write)(int, const void*, std::size_t);
    ssize_t (*writev)(int, const iovec*, int);
    int (*eventfd_read)(int, eventfd_t*);
    int (*eventfd_write)(int, eventfd_t);
    int (*close)(int);
    int (*close_range)(unsigned, unsigned, int);
    void (*closefrom)(int);
    int (*dup)(int);
    int (*dup2)(int, int);
    int (*dup3)(int, int, int);
    int (*fcntl)(int, int, ...);
    int (*ioctl)(int, unsigned long, ...);
    // waiting for descriptors
    int (*poll)(pollfd*, nfds_t, int);
    int (*poll_chk)(pollfd*, nfds_t, int, std::size_t);
    int (*ppoll)(pollfd*, nfds_t, const timespec*, const sigset_t*);
    int (*ppoll_chk)(pollfd*, nfds_t, const timespec*, const sigset_t*, std::size_t);
    int (*select)(int, fd_set*, fd_set*, fd_set*, timeval*);
    int (*pselect)(int, fd_set*, fd_set*, fd_set*, const timespec*, const sigset_t*);
    int (*epoll_wait)(int, epoll_event*, int, int);
    int (*epoll_pwait)(int, epoll_event*, int, int, const sigset_t*);
    int (*epoll_pwait2)(int, epoll_event*, int, const timespec*, const sigset_t*);
    // sleeping
    int (*nanosleep)(const timespec*, timespec*);
    int (*clock_nanosleep)(clockid_t, int, const timespec*, timespec*);
    int (*usleep)(useconds_t);
    unsigned (*sleep)(unsigned);
    // semaphores
    int (*sem_wait)(sem_t*);
    int (*sem_timedwait)(sem_t*, const timespec*);
    int (*sem_clockwait)(sem_t*, clockid_t, const timespec*);
    int (*sem_post)(sem_t*);
    int (*sem_destroy)(sem_t*);
    int (*sem_trywait)(sem_t*);
    // mutexes
    int (*pthread_mutex_lock)(pthread_mutex_t*);
    int (*pthread_mutex_trylock)(pthread_mutex_t*);
    int (*pthread_mutex_timedlock)(pthread_mutex_t*, const timespec*);
    int (*pthread_mutex_clocklock)(pthread_mutex_t*, clockid_t, const timespec*);
    int (*pthread_mutex_unlock)(pthread_mutex_t*);
    // loading; noexcept, else a noexcept function cannot tail-call them
    void* (*dlopen)(const char*, int) noexcept;
    void* (*dlmopen)(Lmid_t, const char*, int) noexcept;
    void* (*dlsym)(void*, const char*) noexcept;
    int (*dlclose)(void*);
    // identity
    pthread_t (*pthread_self)();
    int (*pthread_kill)(pthread_t, int);
    int (*pthread_sigqueue)(pthread_t, int, const union sigval);
    int (*pthread_getcpuclockid)(pthread_t, clockid_t*);
    int (*pthread_getattr_np)(pthread_t, pthread_attr_t*);
    int (*pthread_detach)(pthread_t);
    int (*pthread_join)(pthread_t, void**);
    int (*pthread_setname_np)(pthread_t, const char*);
    int (*pthread_getname_np)(pthread_t, char*, std::size_t);
    int (*pthread_getschedparam)(pthread_t, int*, sched_param*);
    int (*pthread_setschedparam)(pthread_t, int, const sched_param*);
    int (*pthread_getaffinity_np)(pthread_t, std::size_t, cpu_set_t*);
    int (*pthread_setaffinity_np)(pthread_t, std::size_t, const cpu_set_t*);
};

extern RealFunctions real;

}  // namespace culm::runtime::interpose
