// The calls that a victim makes: a shared library with plain blocking code, which has never heard of fibers.
// The test programs load it at run time and reach libc only through it; their own slots are not patched.
#pragma once

#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <cstddef>

struct VictimCalls {
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
    ssize_t (*read)(int, void*, std::size_t);
    ssize_t (*readv)(int, const iovec*, int);
    ssize_t (*write)(int, const void*, std::size_t);
    ssize_t (*writev)(int, const iovec*, int);
    int (*eventfd_read)(int, eventfd_t*);
    int (*eventfd_write)(int, eventfd_t);
    int (*close)(int);
    int (*close_range)(unsigned, unsigned, int);
    int (*dup)(int);
    int (*dup2)(int, int);
    int (*dup3)(int, int, int);
    int (*fcntl_int)(int, int, int);
    int (*ioctl_int)(int, unsigned long, int*);
    int (*poll)(pollfd*, nfds_t, int);
    int (*ppoll)(pollfd*, nfds_t, const timespec*, const sigset_t*);
    int (*select)(int, fd_set*, fd_set*, fd_set*, timeval*);
    int (*pselect)(int, fd_set*, fd_set*, fd_set*, const timespec*, const sigset_t*);
    int (*epoll_wait)(int, epoll_event*, int, int);
    int (*epoll_pwait)(int, epoll_event*, int, int, const sigset_t*);
    int (*nanosleep)(const timespec*, timespec*);
    int (*clock_nanosleep)(clockid_t, int, const timespec*, timespec*);
    int (*usleep)(useconds_t);
    unsigned (*sleep)(unsigned);
    int (*sem_wait)(sem_t*);
    int (*sem_timedwait)(sem_t*, const timespec*);
    int (*sem_clockwait)(sem_t*, clockid_t, const timespec*);
    int (*sem_post)(sem_t*);
    int (*sem_destroy)(sem_t*);
    int (*mutex_lock)(pthread_mutex_t*);
    int (*mutex_trylock)(pthread_mutex_t*);
    int (*mutex_unlock)(pthread_mutex_t*);
    void* (*dlopen)(const char*, int);
    void* (*dlsym)(void*, const char*);
    int (*dlclose)(void*);
    pthread_t (*pthread_self)();
    int (*pthread_kill)(pthread_t, int);
    int (*pthread_getcpuclockid)(pthread_t, clockid_t*);
    int (*pthread_setname_np)(pthread_t, const char*);
    int (*pthread_getname_np)(pthread_t, char*, std::size_t);
    int (*pthread_join)(pthread_t, void**);
    // The buffer's size is known to the compiler: fortified headers make these the _chk functions.
    ssize_t (*checked_recv)(int fd, char* out, std::size_t bytes);
    ssize_t (*checked_recvfrom)(int fd, char* out, std::size_t bytes);
    ssize_t (*checked_read)(int fd, char* out, std::size_t bytes);
    int (*checked_poll)(int fd, nfds_t count, int timeout_ms);
    int (*checked_ppoll)(int fd, nfds_t count);
};

// A symbol of the table and what the victim's slot for it holds.
struct VictimSlot {
    const char* name;
    void* address;
};

using VictimCallsFunction = const VictimCalls* (*)();
using VictimSlotsFunction = const VictimSlot* (*)();  // ends with a null name
