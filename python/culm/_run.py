"""culm.run(): the outermost call of a program that is written for culm.

Invariant: when run() returns or raises, every fiber that was started in the meantime has ended.
"""

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

from culm._culm import Fiber, current, fibers, spawn
from culm._patch import patch

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")


def run(main: Callable[Parameters, Returned], /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Returned:
    """Call patch(), run main(*args, **kwargs) on a fiber, and return what it returns.

    Fibers that are still unfinished then are cancelled and waited for, as by asyncio.run().

    Raises what main raises; RuntimeError when called inside a fiber; OSError when no stack can be had.
    Parks the calling thread's main fiber until main has ended.
    """
    if not current().is_main:
        raise RuntimeError("culm.run() is for the outermost call; inside a fiber call the function, or spawn() it")
    patch()
    before = set(fibers())
    fiber: Fiber[Returned] = spawn(partial(main, *args, **kwargs), name=getattr(main, "__qualname__", None))
    try:
        return fiber.result()
    finally:
        _cancel_all_but(before)


def _cancel_all_but(before: set[Fiber[object]]) -> None:
    """Cancel and await every fiber that is not in `before`, including those started by the clean-up of others."""
    while leftover := [fiber for fiber in fibers() if fiber not in before]:
        for fiber in leftover:
            fiber.cancel()
        for fiber in leftover:
            fiber.join()
