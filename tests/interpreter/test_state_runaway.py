"""Runaway recursion inside a fiber ends in RecursionError, in each of 14 ways."""

import functools
import json
import operator
import pickle
import re
import sys

from probe_support import DEBUG, MB, VERSION, Fiber, park, probe


class Callable:
    def __call__(self):
        return self() + 1


class Attribute:
    def __getattr__(self, name):
        return getattr(self, name + "x")


def nested(depth, make=lambda x: [x]):
    value = []
    for _ in range(depth):
        value = make(value)
    return value


def run_away_python():
    def down():
        down()

    down()


def run_away_sorted():
    def key(x):
        return sorted([1, 2, 3], key=key)

    key(1)


def run_away_re():
    def replace(match):
        return re.sub("a", replace, "aaa")

    re.sub("a", replace, "a")


def run_away_json_default():
    json.dumps(object(), default=lambda o: json.loads(json.dumps(o, default=lambda p: run_away_json_default())))


def run_away_eq():
    a, b = nested(200_000), nested(200_000)
    operator.eq(a, b)


def run_away_dealloc():
    value = nested(200_000)
    del value
    value = nested(200_000, lambda x: (x,))
    del value
    raise RecursionError  # deallocation must simply work


class Node:
    pass


def run_away_json_load():
    json.loads("[" * 100_000)


RUNAWAYS = {
    "python": run_away_python,
    "sorted": run_away_sorted,
    "__call__": lambda: Callable()(),
    "__getattr__": lambda: Attribute().a,
    "repr": lambda: repr(nested(200_000)),
    "json_dump": lambda: json.dumps(nested(200_000)),
    "json_load": run_away_json_load,
    "pickle": lambda: pickle.dumps(nested(200_000)),
    "compile_nested": lambda: compile("(" * 150 + "1" + ")" * 150, "s", "eval"),
    "compile_unary": lambda: compile("-" * 50_000 + "1", "s", "eval"),
    "ast": lambda: __import__("ast").literal_eval("-" * 50_000 + "1"),
    "re": run_away_re,
    "dealloc": run_away_dealloc,
    "eq": run_away_eq,
}

SETTLED = (RecursionError, MemoryError)


def settle(case):
    """Runs one case in a fiber; what it raised, or None."""
    try:
        RUNAWAYS[case]()
    except SETTLED as error:
        return type(error).__name__
    except SyntaxError as error:
        assert "too many nested parentheses" in str(error) or "too complex" in str(error)
        return "SyntaxError"
    return None


def run_runaways(stack_bytes):
    for name in RUNAWAYS:
        fiber = Fiber(functools.partial(settle, name), stack_bytes)
        outcome = fiber.resume()
        allowed = {"RecursionError"}
        if name.startswith("compile") or name == "ast":
            allowed |= {"MemoryError", "SyntaxError", None}  # the parser has limits of its own
        assert outcome in allowed, (name, stack_bytes, outcome)


def test_exception_tuples_match_on_a_small_stack():
    def body():
        try:
            json.loads("{")
        except (KeyError, json.JSONDecodeError):
            return "matched"

    if not DEBUG:
        assert Fiber(body, 64 << 10).resume() == "matched"


def test_runaway_recursion_ends_at_10_mb():
    run_runaways(10 * MB)


def test_runaway_recursion_ends_on_small_stacks():
    if VERSION < (3, 14):
        return
    # Under Py_DEBUG frames of C are several times larger; the JIT of 3.14 keeps its buffers on the stack.
    jit = hasattr(sys, "_jit") and sys._jit.is_enabled()
    for stack_bytes in (64 << 10, 256 << 10, MB) if not (DEBUG or jit) else (256 << 10, MB):
        run_runaways(stack_bytes)


def test_containers_are_deallocated_on_a_small_stack():
    class Counted(list):
        gone = 0

        def __del__(self):
            Counted.gone += 1

    def body():
        for _ in range(2000):
            Counted([1])
        park()
        return Counted.gone

    Counted.gone = 0
    fiber = Fiber(body, 64 << 10)
    fiber.resume()
    assert fiber.resume() == 2000


def test_budget_follows_the_stack():
    budget = probe.c_recursion_budget
    if VERSION in ((3, 12), (3, 13)):
        assert 100 <= budget(64 << 10) <= budget(MB) <= budget(10 * MB) <= budget(1 << 30)
    else:
        assert budget(MB) == 0
