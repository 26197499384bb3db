"""Threads as fibers: what culm.patch(threads=True) and `culm run` put in the place of OS threads.

threading.Thread, concurrent.futures and everything built on them go through a few names of the module threading; these
are replaced. Locks, events and queues need nothing: the interpreter's own park fibers once it is patched.

A thread that is a fiber ends when its fiber does, and whoever waits for the thread joins the fiber. So it makes no
difference how the fiber ends, and on which OS thread it runs.
Invariant: a thread that is a fiber is joinable, is counted and is waited for at exit exactly as an OS thread is, and
lives until its function returns, whatever becomes of the OS thread that started it.
"""

import _thread
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from culm import _culm

_original_shutdown: Callable[[], None] | None = None
_original_start: Callable[..., int] = _thread.start_new_thread
_unfinished: dict["FiberHandle", bool] = {}


def forget_dummy_threads_of_ended_fibers() -> None:
    """Remove what threading.current_thread() has put into its table for a fiber when the fiber ends."""
    module: Any = threading
    _culm.know_dummy_threads(module._active, module._DummyThread)


def start_fibers_for_threads() -> None:
    """Replace what starts OS threads. Idempotent; threads that already run stay what they are."""
    global _original_shutdown
    if _original_shutdown is not None:
        return
    module: Any = threading
    _original_shutdown = module._shutdown
    module._shutdown = _shutdown
    os.register_at_fork(after_in_child=_home.forget)
    for name in ("start_new_thread", "start_new"):
        setattr(_thread, name, start_new_thread)
    if hasattr(module, "_start_joinable_thread"):
        original = module._start_joinable_thread

        def start_joinable_thread(function: Callable[[], object], handle: Any = None, daemon: bool = True) -> Any:
            if handle is not None and not isinstance(handle, FiberHandle):
                return original(function, handle=handle, daemon=daemon)  # made before patch(): stays an OS thread
            return _start_joinable_thread(function, handle, daemon)

        module._start_joinable_thread = start_joinable_thread
        module._ThreadHandle = FiberHandle
        setattr(_thread, "start_joinable_thread", start_joinable_thread)  # noqa: B010
    else:
        module._start_new_thread = start_new_thread
        module._set_sentinel = _set_sentinel


class FiberHandle:
    """What threading.Thread keeps of its thread (CPython 3.13 and later): identity, end, join."""

    def __init__(self) -> None:
        self._fiber: _culm.Fiber[None] | None = None
        self._is_done = False

    @property
    def ident(self) -> int:
        return 0 if self._fiber is None else self._fiber.ident or 0

    def is_done(self) -> bool:
        return self._is_done or (self._fiber is not None and self._fiber.state == "finished")

    def _set_done(self) -> None:
        self._is_done = True
        _unfinished.pop(self, None)

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end, at most `timeout` seconds (None or negative: for ever). Parks."""
        if self._fiber is None:
            raise RuntimeError("thread not started")
        if self.is_done():
            return
        if self._fiber is _culm.current():
            raise RuntimeError("Cannot join current thread")
        self._fiber.join(None if timeout is None or timeout < 0 else timeout)

    def start(self, function: Callable[[], object], *, daemon: bool) -> None:
        """Start the fiber. Raises RuntimeError if it was started before or no stack can be had."""
        if self._fiber is not None:
            raise RuntimeError("thread already started")
        if not daemon:
            _unfinished[self] = True
        try:
            self._fiber = _spawn_thread(self._run, (function,), name=_name_of(function))
        except BaseException:
            _unfinished.pop(self, None)
            raise

    def _run(self, function: Callable[[], object]) -> None:
        try:
            function()
        finally:
            _unfinished.pop(self, None)


class EndOfFiber:
    """What threading.Thread keeps of its thread (CPython 3.11 and 3.12): a lock that is held until the fiber ends."""

    def __init__(self, fiber: "_culm.Fiber[Any]") -> None:
        self._fiber = fiber
        self._lock: _thread.LockType | None = None  # after a fork in this thread, as which the child goes on

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Wait for the end of the fiber. Parks."""
        if self._lock is not None:
            return self._lock.acquire(blocking, timeout)
        if not blocking or self._fiber is _culm.current():
            return not self.locked()
        return self._fiber.join(None if timeout < 0 else timeout)

    def release(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def locked(self) -> bool:
        return self._lock.locked() if self._lock is not None else self._fiber.state != "finished"

    def _at_fork_reinit(self) -> None:
        self._lock = _thread.allocate_lock()


class HomeOfThreads:
    """An OS thread for the fibers of threads that are started where a fiber could not stay.

    A fiber stays on the OS thread that starts it. The main one lasts as long as the process; any other may return at
    any moment (a thread from before patch(), or one of a C library that has called Python), and would take its fibers
    along. So a thread that is started there begins here instead. Made when it is first needed.
    """

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._native_id = 0
        self._main: _culm.Fiber[Any] | None = None  # of the OS thread, once it runs
        self._to_start: deque[tuple[_culm.Fiber[Any], _thread.LockType, list[Exception]]] = deque()

    def forget(self) -> None:
        """In the child of fork, where the OS thread does not exist."""
        self.__init__()  # type: ignore[misc]

    def is_needed(self) -> bool:
        """Whether a fiber that starts on the calling OS thread would have to end with it."""
        return _thread.get_native_id() not in (os.getpid(), self._native_id)

    def start(self, fiber: "_culm.Fiber[Any]") -> None:
        """Start the fiber there. Raises what its start raises. Waits until it has been started."""
        started = _thread.allocate_lock()
        started.acquire()
        failures: list[Exception] = []
        self._to_start.append((fiber, started, failures))
        self._wake()
        started.acquire()
        if failures:
            raise failures[0]

    def _wake(self) -> None:
        with self._lock:
            if self._main is None:
                ready = _thread.allocate_lock()
                ready.acquire()
                _original_start(self._serve, (ready,))
                ready.acquire()
            assert self._main is not None
            with suppress(RuntimeError):  # it has been woken already, and will find this request too
                _culm.unpark(self._main)

    def _serve(self, ready: _thread.LockType) -> None:
        self._native_id = _thread.get_native_id()
        self._main = _culm.current()
        ready.release()
        while True:
            while self._to_start:
                fiber, started, failures = self._to_start.popleft()
                try:
                    fiber.start()
                except Exception as failure:
                    failures.append(failure)
                started.release()
            _culm.park()


_home = HomeOfThreads()


def start_new_thread(
    function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any] | None = None, /
) -> int:
    """As _thread.start_new_thread, on a fiber: return its identity. Does not park.

    Raises TypeError for wrong arguments and RuntimeError when no stack can be had, as the original does.
    """
    if not callable(function):
        raise TypeError("first arg must be callable")
    if not isinstance(args, tuple):
        raise TypeError("2nd arg must be a tuple")
    if kwargs is not None and not isinstance(kwargs, dict):
        raise TypeError("optional 3rd arg must be a dictionary")
    return _spawn_thread(_run_thread, (function, args, kwargs or {}), name=_name_of(function)).ident or 0


def _spawn_thread(function: Callable[..., object], args: tuple[Any, ...], name: str | None) -> "_culm.Fiber[Any]":
    fiber = _culm.Fiber(function, *args, name=name, stack_limit=threading.stack_size() or None)
    # At exit it is left as it is, as a daemon thread is. Those that are no daemons have been waited for by then.
    _culm.leave_at_exit(fiber)
    try:
        if _home.is_needed():
            _home.start(fiber)
        else:
            fiber.start()
    except OSError as error:
        raise RuntimeError(f"can't start new thread: {error}") from error
    return fiber


def _run_thread(function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    function(*args, **kwargs)


def _start_joinable_thread(
    function: Callable[[], object], handle: FiberHandle | None = None, daemon: bool = True
) -> FiberHandle:
    handle = FiberHandle() if handle is None else handle
    handle.start(function, daemon=daemon)
    return handle


def _set_sentinel() -> "_thread.LockType | EndOfFiber":
    """Return the lock that is held until the calling thread ends (CPython 3.11 and 3.12)."""
    fiber = _culm.current()
    if fiber.is_main:
        original: _thread.LockType = _thread._set_sentinel()  # type: ignore[attr-defined]
        return original
    return EndOfFiber(fiber)


def _shutdown() -> None:
    """At exit: wait for the fibers that stand for non-daemon threads, then for the OS threads."""
    while _unfinished:
        handle = next(iter(_unfinished))
        handle.join()
        _unfinished.pop(handle, None)
    assert _original_shutdown is not None
    _original_shutdown()


def _name_of(function: Callable[..., object]) -> str | None:
    owner = getattr(function, "__self__", None)
    return owner.name if isinstance(owner, threading.Thread) else None
