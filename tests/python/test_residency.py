"""Which pages of a fiber's stack are in memory, as lowlevel.resident_pages() shows it."""

import resource
import subprocess
import sys
from collections.abc import Callable

import pytest

import culm
from culm import lowlevel

PAGE = resource.getpagesize()


def recurse(depth: int) -> int:
    """Use the C stack: min() calls back into Python from C."""
    if depth == 0:
        return 0
    return min([depth], key=lambda _: recurse(depth - 1))


def park_after(depth: int) -> None:
    recurse(depth)
    lowlevel.park()


def test_runs_lie_in_order_within_the_stack_and_add_up_to_what_is_resident() -> None:
    fiber = culm.spawn(park_after, 200)
    culm.yield_now()
    runs = lowlevel.resident_pages(fiber)
    assert runs[0][0] == 0, "the page at the base holds the fiber's saved state"
    assert sum(count for _, count in runs) * PAGE == fiber.stack.resident
    ends = [offset + count for offset, count in runs]
    assert ends[-1] * PAGE == fiber.stack.peak
    assert all(end < offset for end, (offset, _) in zip(ends, runs[1:], strict=False)), runs
    lowlevel.unpark(fiber)
    fiber.join()


def test_trimming_leaves_the_pages_at_the_base() -> None:
    fiber = culm.spawn(park_after, 200)
    culm.yield_now()
    before = lowlevel.resident_pages(fiber)
    culm.trim()
    after = lowlevel.resident_pages(fiber)
    assert after[0][0] == 0
    assert sum(count for _, count in after) < sum(count for _, count in before) / 4
    lowlevel.unpark(fiber)
    fiber.join()


def test_without_a_stack_there_is_none() -> None:
    assert lowlevel.resident_pages(culm.current()) == []
    unstarted = lowlevel.Fiber(recurse, 1)
    assert lowlevel.resident_pages(unstarted) == []
    finished = culm.spawn(recurse, 1)
    finished.join()
    assert lowlevel.resident_pages(finished) == []


WAITING = """
import culm, socket

def receive(connection):
    with connection:
        connection.recv(100)

def main():
    pairs = [socket.socketpair() for _ in range(64)]  # more than there are places in the page where a stack begins
    fibers = [culm.spawn(receive, near) for near, _ in pairs]
    culm.yield_now()
    # The first and the last fiber are left out, which use more stack than the others: the first looks up functions of
    # libraries, which are known from then on, and the last may wait for events on behalf of all.
    print(max(fiber.stack.peak for fiber in fibers[1:-1]))
    for _, far in pairs:
        far.close()
    for fiber in fibers:
        fiber.join()

culm.run(main)
"""


def test_a_fiber_that_waits_for_a_socket_lives_in_one_page(
    run_script: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = run_script(WAITING)  # a process whose stacks nobody has used before
    pages = 2 if hasattr(sys, "gettotalrefcount") else 1  # the frames of a debug build of CPython are larger
    assert int(done.stdout) <= pages * PAGE, done.stderr


def test_something_else_than_a_fiber_is_refused() -> None:
    with pytest.raises(TypeError, match="resident_pages\\(\\) needs a Fiber, not int"):
        lowlevel.resident_pages(3)  # type: ignore[arg-type]
