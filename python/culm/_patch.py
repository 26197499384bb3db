"""culm.patch(): from now on blocking calls park the calling fiber instead of its OS thread."""

from culm import _culm, _faulthandler, _threads


def patch(*, threads: bool = False) -> None:
    """Make blocking libc calls of every loaded library cooperate, those of libraries loaded later included.

    Replaces connect, accept, recv, send, read, write, poll, select, epoll_wait, nanosleep and their kin, and the waits
    of the interpreter's locks, in the tables through which libraries call libc. Within the interpreter each fiber gets
    a thread identity of its own, so that RLock, import locks, buffered files and threading.local treat fibers like
    threads.

    After this faulthandler.enable() and disable() leave culm's handler of stack overflows in front of faulthandler's.

    threads: start fibers where the program asks for threads (threading.Thread, concurrent.futures, _thread).

    Call it early, from the main fiber. Calling it again is harmless. Does not park.
    Raises OSError when a table cannot be written, RuntimeError from a fiber that is not its thread's main fiber.
    """
    if not _culm.current().is_main:
        raise RuntimeError("culm.patch() must be called from a thread's main fiber, before fibers run")
    _culm.interpose()
    _faulthandler.stay_above_faulthandler()
    _threads.forget_dummy_threads_of_ended_fibers()
    if threads:
        _threads.start_fibers_for_threads()
