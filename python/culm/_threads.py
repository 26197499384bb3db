"""Threads as fibers: what culm.patch(threads=True) and `culm run` put in the place of OS threads.

threading.Thread, concurrent.futures and everything built on them go through a few names of the module threading; these
are replaced. Locks, events and queues need no replacement: after culm.patch() the interpreter's own ones park fibers.
Invariant: a thread that is a fiber is joinable, is counted and is waited for at exit exactly as an OS thread is.
"""

import _thread
import threading
from collections.abc import Callable
from typing import Any

from culm import _culm

_original_shutdown: Callable[[], None] | None = None
_unfinished: dict["FiberHandle", bool] = {}
_sentinels: dict[int, _thread.LockType] = {}


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
    _culm.on_fiber_ended(_thread_was_ended)
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
        self._done = _thread.allocate_lock()
        self._done.acquire()
        self._is_done = False

    @property
    def ident(self) -> int:
        return 0 if self._fiber is None else self._fiber.ident

    def is_done(self) -> bool:
        return self._is_done

    def _set_done(self) -> None:
        if not self._is_done:
            self._is_done = True
            _unfinished.pop(self, None)
            self._done.release()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end, at most `timeout` seconds (None or negative: for ever). Parks."""
        if self._fiber is None:
            raise RuntimeError("thread not started")
        if self._fiber is _culm.current() and not self._is_done:
            raise RuntimeError("Cannot join current thread")
        if self._done.acquire(timeout=-1 if timeout is None or timeout < 0 else timeout):
            self._done.release()

    def start(self, function: Callable[[], object], *, daemon: bool) -> None:
        """Start the fiber. Raises RuntimeError if it was started before or no stack can be had."""
        if self._fiber is not None:
            raise RuntimeError("thread already started")
        self._fiber = _spawn_thread(self._run, (function,), name=_name_of(function))
        if not daemon:
            _unfinished[self] = True

    def _run(self, function: Callable[[], object]) -> None:
        try:
            function()
        finally:
            self._set_done()


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
    return _spawn_thread(_run_thread, (function, args, kwargs or {}), name=_name_of(function)).ident


def _spawn_thread(function: Callable[..., None], args: tuple[Any, ...], name: str | None) -> "_culm.Fiber[None]":
    try:
        fiber = _culm.spawn(function, *args, name=name, stack_limit=threading.stack_size() or None)
    except OSError as error:
        raise RuntimeError(f"can't start new thread: {error}") from error
    # At exit it is left as it is, as a daemon thread is. Those that are no daemons have been waited for by then.
    _culm.leave_at_exit(fiber)
    return fiber


def _run_thread(function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    try:
        function(*args, **kwargs)
    finally:
        _release_sentinel(_thread.get_ident())


def _thread_was_ended(identity: int, function: Callable[..., object]) -> None:
    """Wake who joins a thread whose fiber was ended for want of stack: its `finally`, which does so, never ran."""
    handle = getattr(function, "__self__", None)
    if isinstance(handle, FiberHandle):
        handle._set_done()
    elif function is _run_thread:
        _release_sentinel(identity)


def _release_sentinel(identity: int) -> None:
    sentinel = _sentinels.pop(identity, None)
    if sentinel is not None and sentinel.locked():
        sentinel.release()


def _start_joinable_thread(
    function: Callable[[], object], handle: FiberHandle | None = None, daemon: bool = True
) -> FiberHandle:
    handle = FiberHandle() if handle is None else handle
    handle.start(function, daemon=daemon)
    return handle


def _set_sentinel() -> _thread.LockType:
    """Return the lock that is released when the calling thread ends (CPython 3.11 and 3.12)."""
    if _culm.current().is_main:
        original: _thread.LockType = _thread._set_sentinel()  # type: ignore[attr-defined]
        return original
    sentinel = _thread.allocate_lock()
    _sentinels[_thread.get_ident()] = sentinel
    return sentinel


def _shutdown() -> None:
    """At exit: wait for the fibers that stand for non-daemon threads, then for the OS threads."""
    while _unfinished:
        next(iter(_unfinished)).join()
    assert _original_shutdown is not None
    _original_shutdown()


def _name_of(function: Callable[..., object]) -> str | None:
    owner = getattr(function, "__self__", None)
    return owner.name if isinstance(owner, threading.Thread) else None
