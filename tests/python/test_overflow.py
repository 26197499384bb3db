"""A fiber that uses up its stack gets a RecursionError that says so, can go on, and hurts nobody else.

The interpreter's own counters would stop most recursion before the stack is used up. They are raised out of the way,
and C code that they do not see is called through ctypes. Kinds that the interpreter notices itself from 3.14 on end in
its own RecursionError.
"""

import ctypes
import functools
import gc
import json
import os
import pickle
import queue
import re
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import culm

SMALL, MIDDLE, LARGE = 64 * 2**10, 256 * 2**10, 2**20
BY_ADDRESS = sys.version_info >= (3, 14)


@pytest.fixture(autouse=True)
def no_limit_but_the_stack() -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10**6)
    yield
    sys.setrecursionlimit(before)


def nested_list(depth: int) -> list[Any]:
    result: list[Any] = []
    for _ in range(depth):
        result = [result]
    return result


# --- recursion through C that the interpreter sees --------------------------------------------------------------------


def by_sorted() -> Any:
    return sorted([0], key=lambda _: by_sorted())


class Attributes:
    def __getattr__(self, name: str) -> Any:
        return getattr(self, name)


class Repr:
    def __repr__(self) -> str:
        return f"{self!r}"


class Equal:
    def __eq__(self, other: object) -> bool:
        return self == other

    __hash__ = None  # type: ignore[assignment]


class Missing(dict):  # type: ignore[type-arg]
    def __missing__(self, key: int) -> Any:
        return self[key + 1]


class Chain:
    def __iter__(self) -> Iterator[Any]:
        yield from Chain()


@functools.lru_cache(maxsize=None)
def cached(n: int) -> Any:
    return cached(n + 1)


def by_generator() -> Iterator[Any]:
    yield sum(by_generator())


# --- and that it does not see -----------------------------------------------------------------------------------------

LIBC = ctypes.CDLL(None)
NOTHING = ctypes.CFUNCTYPE(ctypes.c_int)
COMPARE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


class Callbacks:
    """C calls Python calls C. What a callback raises goes to sys.unraisablehook: C cannot pass it on.

    The hook is called where the stack is used up, so it is one that needs next to none.
    """

    def __init__(self, through: str) -> None:
        self.reports: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.again = self.call if through == "call" else self.sort
        self.on_call = NOTHING(self.body)
        self.on_compare = COMPARE(lambda a, b: self.body())

    def call(self) -> None:
        self.on_call()

    def sort(self) -> None:
        pair = (ctypes.c_int * 2)(2, 1)
        LIBC.qsort(pair, 2, 4, self.on_compare)

    def body(self) -> int:
        if self.reports.empty():
            self.again()
        return 0

    def run(self) -> None:
        before, sys.unraisablehook = sys.unraisablehook, self.reports.put
        try:
            self.again()
        finally:
            sys.unraisablehook = before
        if not self.reports.empty():
            raise self.reports.get().exc_value


EXEC = compile("KINDS['exec']()", "<exec>", "exec")

KINDS: dict[str, Callable[[], Any]] = {
    "sorted": by_sorted,
    "getattr": lambda: Attributes().x,
    "repr": lambda: repr(Repr()),
    "eq": lambda: Equal() == Equal(),
    "missing": lambda: Missing()[0],
    "generator": lambda: list(by_generator()),
    "lru_cache": lambda: cached(0),
    "map": lambda: list(map(lambda _: KINDS["map"](), [0])),
    "reduce": lambda: functools.reduce(lambda a, b: KINDS["reduce"](), [0, 1]),
    "re_sub": lambda: re.sub("a", lambda m: KINDS["re_sub"](), "a"),
    "json_default": lambda: json.dumps(object(), default=lambda o: KINDS["json_default"]()),
    "json_load": lambda: json.loads("[" * 200_000),
    "pickle": lambda: pickle.dumps(nested_list(200_000)),
    "exec": lambda: exec(EXEC, globals()),
    "callback": lambda: Callbacks("call").run(),
    "qsort": lambda: Callbacks("sort").run(),
}
# From 3.12 on, the interpreter may count the call of the hook as too deep as well: then the report is lost.
LOSES_REPORT = {"callback", "qsort"} if sys.version_info >= (3, 12) else set()


@pytest.mark.parametrize("limit", [SMALL, MIDDLE, LARGE])
@pytest.mark.parametrize("kind", KINDS)
def test_a_fiber_that_uses_up_its_stack_gets_a_recursion_error(kind: str, limit: int) -> None:
    neighbours = [culm.spawn(lambda: (culm.sleep(0.0), "unharmed")[1], stack_limit=limit) for _ in range(3)]
    fiber = culm.spawn(KINDS[kind], stack_limit=limit, name=kind)
    error = fiber.exception()
    assert isinstance(error, RecursionError) or (error is None and kind in LOSES_REPORT), repr(error)
    if isinstance(error, culm.StackOverflowError):
        assert f"'{kind}'" in str(error)
        assert str(limit) in str(error)
        assert "stack_limit=" in str(error)
    assert [neighbour.result() for neighbour in neighbours] == ["unharmed"] * 3


@pytest.mark.skipif(BY_ADDRESS, reason="the interpreter notices it before the stack is used up")
@pytest.mark.parametrize("limit", [SMALL, MIDDLE, LARGE, 10 * LARGE])
def test_the_error_names_fiber_limit_and_way_out(limit: int) -> None:
    error = culm.spawn(by_sorted, stack_limit=limit, name="greedy").exception()
    if not isinstance(error, culm.StackOverflowError):
        # 3.12 and later count C recursion, within what the stack can bear.
        assert sys.version_info >= (3, 12)
        return
    start = f"fiber 'greedy' ran out of stack: limit {limit} bytes; "
    assert str(error) == start + "spawn it with a larger stack_limit=, or recurse less"


def test_the_stack_is_whole_again_ten_thousand_times_in_one_fiber() -> None:
    def many() -> int:
        seen = 0
        for _ in range(10_000):
            try:
                by_sorted()
            except RecursionError:
                seen += 1
        return seen

    assert culm.spawn(many, stack_limit=SMALL).result() == 10_000


def test_also_when_the_exceptions_are_kept() -> None:
    def many() -> int:
        kept = []
        for _ in range(1000):
            try:
                by_sorted()
            except RecursionError as error:
                kept.append(error.with_traceback(None))
        return len(kept)

    assert culm.spawn(many, stack_limit=SMALL).result() == 1000


def test_ten_thousand_fibers_overflow_one_after_the_other() -> None:
    for _ in range(100):
        fibers = [culm.spawn(by_sorted, stack_limit=SMALL) for _ in range(100)]
        assert all(isinstance(fiber.exception(), RecursionError) for fiber in fibers)


def test_a_generator_and_a_finally_block_go_on_after_it() -> None:
    steps = []

    def worker() -> str:
        try:
            by_sorted()
        except RecursionError:
            steps.append("caught")
        finally:
            steps.append("finally")
        culm.sleep(0)
        steps.append("after a switch")
        try:
            by_sorted()
        except RecursionError:
            steps.append("again")
        return "done"

    assert culm.spawn(worker, stack_limit=SMALL).result() == "done"
    assert steps == ["caught", "finally", "after a switch", "again"]


def test_fibers_that_are_parked_deep_in_their_stacks_keep_their_values() -> None:
    depth_reached = []

    def deep(n: int, gate: threading.Event) -> int:
        if n == 0:
            depth_reached.append(True)
            gate.wait()
            return 0
        return max([n], key=lambda _: deep(n - 1, gate)) + 1

    gate = threading.Event()
    parked = [culm.spawn(deep, 40, gate, stack_limit=MIDDLE) for _ in range(20)]
    while len(depth_reached) < 20:
        culm.sleep(0)
    errors = [culm.spawn(by_sorted, stack_limit=MIDDLE).exception() for _ in range(50)]
    gate.set()
    assert [fiber.result() for fiber in parked] == [41] * 20
    assert all(isinstance(error, RecursionError) for error in errors)


def test_a_cancellation_that_is_pending_at_the_same_time_is_not_lost() -> None:
    def worker() -> None:
        while True:
            try:
                by_sorted()
            except RecursionError:
                culm.sleep(0)

    fiber = culm.spawn(worker, stack_limit=SMALL)
    for _ in range(5):
        culm.sleep(0)
    fiber.cancel()
    with pytest.raises(culm.Cancelled):
        fiber.result()


def test_an_overflow_in_a_fiber_of_another_thread() -> None:
    outcome: list[Any] = []

    def thread() -> None:
        for _ in range(20):
            outcome.append(culm.spawn(by_sorted, stack_limit=SMALL).exception())

    native = threading.Thread(target=thread)
    native.start()
    native.join()
    assert len(outcome) == 20
    assert all(isinstance(error, RecursionError) for error in outcome)


def test_a_collection_during_the_unwinding() -> None:
    class Node:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            gc.collect(0)

    def recurse() -> Any:
        node = Node()
        return sorted([node], key=lambda _: recurse())

    for _ in range(5):
        assert isinstance(culm.spawn(recurse, stack_limit=MIDDLE).exception(), RecursionError)
    gc.collect()


# Whatever runs the tests may have a thread of its own in this process.
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_while_a_zone_is_open() -> None:
    def worker() -> int:
        try:
            by_sorted()
        except RecursionError as kept:
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    by_sorted()
                except RecursionError:
                    status = 0
                os._exit(status)
            assert kept is not None
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return -1

    assert culm.spawn(worker, stack_limit=MIDDLE).result() == 0


def test_the_exception_can_be_made_and_pickled_by_hand() -> None:
    error = culm.StackOverflowError("too deep")
    assert pickle.loads(pickle.dumps(error)).args == ("too deep",)
    assert culm.StackOverflowError().args == ()
    assert issubclass(culm.StackOverflowError, RecursionError)
