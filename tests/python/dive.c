/* Uses up C stack without the interpreter noticing, then calls back into it. Built by test_overflow_in_c.py; knows
   nothing of Python: `call` is PyObject_CallNoArgs. */

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
