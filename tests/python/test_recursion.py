"""Runaway recursion in a fiber ends in RecursionError, in each way it can run away, and hurts nobody else."""

import ast
import copy
import functools
import json
import pickle
import re
import sys

import pytest

import culm

# From 3.14 the interpreter knows how much C stack there is: every size class is safe. Before, it only counts.
LIMITS = [10 * 2**20] if sys.version_info < (3, 14) else [64 * 2**10, 256 * 2**10, 2**20, 10 * 2**20]


def nested_list(depth):
    result = []
    for _ in range(depth):
        result = [result]
    return result


def python():
    return python()


def by_sorted():
    return sorted([0], key=lambda _: by_sorted())


class Calls:
    def __call__(self):
        return self()


Calls.__call__ = Calls()


class Attributes:
    def __getattr__(self, name):
        return getattr(self, name + "x")


class Repr:
    def __repr__(self):
        return f"{self!r}"


class Equal:
    def __eq__(self, other):
        return self == other

    __hash__ = None


class Adds:
    def __add__(self, other):
        return self + other


class Missing(dict):
    def __missing__(self, key):
        return self[key + 1]


@functools.lru_cache(maxsize=None)
def cached(n):
    return cached(n + 1)


KINDS = {
    "python": python,
    "sorted": by_sorted,
    "call": lambda: Calls()(),
    "getattr": lambda: Attributes().x,
    "repr": lambda: repr(Repr()),
    "eq": lambda: Equal() == Equal(),
    "add": lambda: Adds() + 1,
    "missing": lambda: Missing()[0],
    "lru_cache": lambda: cached(0),
    "json_default": lambda: json.dumps(object(), default=lambda o: KINDS["json_default"]()),
    "json_load": lambda: json.loads("[" * 200_000),
    "json_dump": lambda: json.dumps(nested_list(200_000)),
    "pickle": lambda: pickle.dumps(nested_list(200_000)),
    "deepcopy": lambda: copy.deepcopy(nested_list(100_000)),
    "list_repr": lambda: repr(nested_list(200_000)),
    "list_eq": lambda: nested_list(200_000) == nested_list(200_000),
    "compile_parens": lambda: compile("(" * 150 + "1" + ")" * 150 + "+" * 0, "<s>", "eval"),
    "compile_unary": lambda: compile("-" * 50_000 + "1", "<s>", "eval"),
    "literal_eval": lambda: ast.literal_eval("[" * 180 + "]" * 180),
    "re_sub": lambda: re.sub("a", lambda m: KINDS["re_sub"](), "a"),
    "map": lambda: list(map(lambda _: KINDS["map"](), [0])),
    "dealloc": lambda: nested_list(1_000_000) and None,
}
# These are deep, but not without end, so they may also succeed.
MAY_SUCCEED = {
    "compile_parens",
    "compile_unary",
    "literal_eval",
    "dealloc",
    "list_repr",
    "list_eq",
    "json_dump",
    "pickle",
}


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("kind", KINDS)
def test_runaway_recursion_is_an_exception_in_its_fiber(kind, limit):
    neighbour = culm.spawn(lambda: (culm.sleep(0.0), "unharmed")[1])
    fiber = culm.spawn(KINDS[kind], stack_limit=limit)
    error = fiber.exception()
    if error is not None or kind not in MAY_SUCCEED:
        assert isinstance(error, (RecursionError, MemoryError, SyntaxError)), repr(error)
        if kind not in MAY_SUCCEED:
            assert isinstance(error, RecursionError)
    assert neighbour.result() == "unharmed"
    # The stack is whole again: the next fiber on it recurses as deep as the language allows.
    assert culm.spawn(lambda: functools.reduce(lambda a, _: a + 1, range(100), 0), stack_limit=limit).result() == 100


def test_python_recursion_reaches_the_same_depth_as_in_a_thread():
    def depth(n=0):
        try:
            return depth(n + 1)
        except RecursionError:
            return n

    assert culm.spawn(depth).result() > sys.getrecursionlimit() * 0.9


def test_thousands_of_overflows_in_one_process():
    for _ in range(100):
        fibers = [culm.spawn(python) for _ in range(20)]
        assert all(isinstance(fiber.exception(), RecursionError) for fiber in fibers)
