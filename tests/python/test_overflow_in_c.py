"""C code that the interpreter knows nothing of uses up a fiber's stack.

Where it calls back, that call raises; where it never does, the process dies with a report that shows where.
"""

import ctypes
import json
import pickle
import re
import signal
import sys
from collections.abc import Callable
from functools import reduce
from typing import Any

import pytest

import culm

KB = 1024


def caller_back(function: Any) -> Callable[[int, Callable[[], Any]], Any]:
    function.restype = ctypes.py_object
    function.argtypes = [ctypes.c_long, ctypes.c_void_p, ctypes.py_object]
    call = ctypes.cast(ctypes.pythonapi.PyObject_CallNoArgs, ctypes.c_void_p)
    return lambda size, callback: function(size, call, callback)


@pytest.fixture
def dive(dive_library: str) -> Callable[[int, Callable[[], Any]], Any]:
    return caller_back(ctypes.PyDLL(dive_library).dive)


@pytest.fixture
def shift(dive_library: str) -> Callable[[int, Callable[[], Any]], Any]:
    return caller_back(ctypes.PyDLL(dive_library).shift)


def past_limit(dive: Callable[..., Any], limit: int, past: int, callback: Callable[[], Any]) -> Any:
    """Calls back from `past` bytes below the limit of the running fiber's stack, give or take a few hundred."""
    return dive(limit - culm.current().stack.used + past, callback)


@pytest.mark.parametrize("limit", [64 * 2**10, 256 * 2**10, 2**20])
def test_a_call_back_from_deep_in_c_raises_at_every_depth(dive: Callable[..., Any], limit: int) -> None:
    outcomes: set[type] = set()

    def worker() -> None:
        for past in range(-5 * min(limit, 128 * KB) // 8, 9 * KB, 192):
            try:
                outcomes.add(type(past_limit(dive, limit, past, lambda: "surfaced")))
            except RecursionError as error:
                outcomes.add(type(error))
                if past > KB:
                    assert "'diver' ran out of stack" in str(error)
            else:
                assert past < KB

    neighbour = culm.spawn(lambda: (culm.sleep(0), "unharmed")[1], stack_limit=limit)
    culm.spawn(worker, stack_limit=limit, name="diver").result()
    assert neighbour.result() == "unharmed"
    assert str in outcomes
    assert outcomes & {RecursionError, culm.StackOverflowError}


@pytest.mark.parametrize("limit", [64 * 2**10, 2**20])
def test_a_switch_at_every_depth_near_the_limit(dive: Callable[..., Any], limit: int) -> None:
    def worker() -> int:
        surfaced = 0
        for past in (-limit // 2, *range(-6 * KB, KB, 16)):
            try:
                past_limit(dive, limit, past, culm.yield_now)
                surfaced += 1
            except RecursionError:
                assert past >= -6 * KB
        return surfaced

    stop = False

    def neighbour() -> str:
        while not stop:
            culm.yield_now()
        return "unharmed"

    other = culm.spawn(neighbour, stack_limit=limit)
    assert culm.spawn(worker, stack_limit=limit).result() > 0
    stop = True
    assert other.result() == "unharmed"


def test_ten_thousand_in_a_row_in_a_fiber_that_never_parks(dive: Callable[..., Any]) -> None:
    limit = 256 * 2**10

    def worker() -> int:
        seen = 0
        for number in range(10_000):
            try:
                past_limit(dive, limit, KB + number % (8 * KB), lambda: None)
            except RecursionError:
                seen += 1
        return seen

    assert culm.spawn(worker, stack_limit=limit).result() == 10_000


def nested_list(depth: int) -> list[Any]:
    result: list[Any] = []
    for _ in range(depth):
        result = [result]
    return result


NESTED, ALSO_NESTED = nested_list(20_000), nested_list(20_000)
NESTED_CLASSES: Any = reduce(lambda inner, _: (inner,), range(20_000), ())


@pytest.mark.parametrize("limit", [64 * 2**10, 256 * 2**10])
@pytest.mark.parametrize(
    "recurse",
    [
        lambda: json.loads("[" * 20_000),
        lambda: json.dumps(NESTED),
        lambda: pickle.dumps(NESTED),
        lambda: repr(NESTED),
        lambda: NESTED == ALSO_NESTED,
        lambda: isinstance(1, NESTED_CLASSES),
    ],
    ids=["json.loads", "json.dumps", "pickle.dumps", "repr", "==", "isinstance"],
)
def test_the_limit_is_met_in_every_instruction_of_c_that_counts(shift: Any, recurse: Any, limit: int) -> None:
    """The interpreter's count of recursion is changed under C code that may be in the middle of counting.

    The stack is shifted by 16 bytes at a time, so that the fault comes in each instruction that touches it: it always
    ends in an exception, and the count is what it was before.
    """

    def depth() -> int:
        with pytest.raises(RecursionError) as refused:
            sys.setrecursionlimit(1)
        found = re.search(r"recursion depth (-?\d+)", str(refused.value))
        assert found is not None
        return int(found.group(1))

    def worker() -> int:
        seen = 0
        depth_before = depth()
        for number in range(512):
            with pytest.raises(RecursionError):
                shift(limit // 2 + 16 * number, recurse)
            seen += depth() == depth_before
        return seen

    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10**6)
    try:
        assert culm.spawn(worker, stack_limit=limit).result() == 512
    finally:
        sys.setrecursionlimit(before)


def test_all_exceptions_kept(dive: Callable[..., Any]) -> None:
    limit = 256 * 2**10

    def worker() -> int:
        kept = []
        for number in range(500):
            try:
                past_limit(dive, limit, KB + number % (8 * KB), lambda: None)
            except RecursionError as error:
                kept.append(error)
        return len(kept)

    assert culm.spawn(worker, stack_limit=limit).result() == 500


SCRIPT = """
import ctypes, culm
function = ctypes.{loader}({library!r}).dive
function.argtypes = [ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
def greedy():
    function(10 * 2**20, None, None)
culm.spawn(greedy, stack_limit=256 * 2**10, name="greedy").result()
"""


@pytest.mark.parametrize("loader", ["PyDLL", "CDLL"])
def test_c_that_never_returns_ends_the_process_with_a_report(dive_library: str, run_script: Any, loader: str) -> None:
    ended = run_script(SCRIPT.format(library=dive_library, loader=loader))
    assert ended.returncode == -signal.SIGSEGV
    lines = ended.stderr.splitlines()
    assert lines[0].startswith("culm: greedy ran out of stack: limit 262144 bytes")
    assert lines[1] == "Python frames, innermost first:"
    assert 'script.py", line 6, in greedy' in lines[2]
    heading = lines.index("C frames, innermost first:")
    assert "dive" in lines[heading + 1]
