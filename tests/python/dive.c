/* Uses up C stack without the interpreter noticing, then calls back into it, or never returns. Built by the fixture
   `dive_library`; knows nothing of Python: `call` is PyObject_CallNoArgs. */

#include <alloca.h>
#include <pthread.h>
#include <unistd.h>

#define BLOCK_BYTES 256

static void *dive_to(const volatile char *deepest, void *(*call)(void *), void *callable) {
    volatile char block[BLOCK_BYTES];
    void *result;
    block[0] = 1;
    if (block < deepest) return call(callable);
    result = dive_to(deepest, call, callable);
    block[BLOCK_BYTES - 1] = block[0];
    return result;
}

/* `bytes` further down than the caller. */
void *dive(long bytes, void *(*call)(void *), void *callable) {
    volatile char here;
    here = 1;
    return dive_to(&here - bytes, call, callable);
}

/* Calls back from `bytes` further down than the caller, to the nearest 16: a frame of that size, not many small ones. */
void *shift(long bytes, void *(*call)(void *), void *callable) {
    volatile char *block = alloca((unsigned long)bytes);
    void *result;
    block[0] = 1;
    result = call(callable);
    block[bytes - 1] = block[0];
    return result;
}

static pthread_mutex_t held = PTHREAD_MUTEX_INITIALIZER;

static int sleep_deeper(int depth) {
    volatile char block[BLOCK_BYTES];
    block[0] = 1;
    usleep(0);
    return sleep_deeper(depth + 1) + block[0];
}

/* Never returns: makes a call that lets other fibers run at each step down; with a mutex held, if that is wanted. */
int sleep_for_ever_deeper(int with_mutex) {
    if (with_mutex) pthread_mutex_lock(&held);
    return sleep_deeper(0);
}
