"""What belongs to a fiber stays with it: exceptions, generators, contexts, threading.local, recursion depth."""

import asyncio
import contextvars
import gc
import sys
import threading

import pytest

import culm


def both(*functions):
    """Run the functions on fibers side by side and return their results."""
    return [fiber.result() for fiber in [culm.spawn(function) for function in functions]]


def test_handled_exceptions_stay_with_their_fiber():
    def handler(error):
        def work():
            try:
                raise error
            except type(error):
                culm.yield_now()
                return sys.exc_info()[1]

        return work

    first, second = ValueError("a"), KeyError("b")
    assert both(handler(first), handler(second)) == [first, second]
    assert sys.exc_info() == (None, None, None)


def test_a_new_fiber_has_no_exception():
    try:
        raise ValueError
    except ValueError:
        assert culm.spawn(sys.exc_info).result() == (None, None, None)


def test_bare_raise_reraises_the_fibers_own():
    def work(error):
        def run():
            try:
                raise error
            except Exception:
                culm.yield_now()
                raise

        return run

    fibers = [culm.spawn(work(error)) for error in (ValueError("a"), KeyError("b"))]
    assert [type(fiber.exception()) for fiber in fibers] == [ValueError, KeyError]


def test_generators_suspended_across_switches():
    def numbers(start):
        for i in range(5):
            culm.yield_now()
            yield start + i

    assert both(lambda: list(numbers(0)), lambda: list(numbers(10))) == [list(range(5)), list(range(10, 15))]


def test_generator_handed_from_fiber_to_fiber():
    def numbers():
        for i in range(4):
            try:
                culm.yield_now()
                yield i
            finally:
                pass

    shared = numbers()
    assert both(lambda: next(shared)) == [0]
    assert both(lambda: next(shared)) == [1]
    assert list(shared) == [2, 3]


def test_new_fiber_inherits_a_copy_of_the_context():
    variable = contextvars.ContextVar("variable", default="default")
    token = variable.set("outer")
    try:

        def work(value):
            def run():
                before = variable.get()
                variable.set(value)
                culm.yield_now()
                return before, variable.get()

            return run

        assert both(work("a"), work("b")) == [("outer", "a"), ("outer", "b")]
        assert variable.get() == "outer"
    finally:
        variable.reset(token)


def test_context_run_spans_a_switch():
    variable = contextvars.ContextVar("spanning")

    def inside():
        variable.set(1)
        culm.yield_now()
        return variable.get()

    def work():
        result = contextvars.Context().run(inside)
        return result, variable.get(None)

    assert both(work, work) == [(1, None), (1, None)]


def test_threading_local_is_per_fiber_and_dies_with_it():
    local = threading.local()
    local.value = "main"

    class Thing:
        pass

    def work(value):
        def run():
            assert not hasattr(local, "value")
            local.value = value
            local.thing = Thing()
            culm.yield_now()
            return local.value

        return run

    assert both(work(1), work(2)) == [1, 2]
    assert local.value == "main"
    gc.collect()
    assert [o for o in gc.get_objects() if type(o) is Thing] == []


def test_threading_local_subclass_runs_init_per_fiber():
    class Local(threading.local):
        def __init__(self):
            self.made = culm.current().id

    local = Local()

    def made():
        culm.yield_now()
        return local.made == culm.current().id

    assert both(made, made) == [True, True]


def test_get_ident_differs_and_is_stable():
    def idents():
        first = threading.get_ident()
        culm.yield_now()
        return first, threading.get_ident(), culm.current().ident

    (a1, a2, a3), (b1, b2, b3) = both(idents, idents)
    assert a1 == a2 == a3 != b1 == b2 == b3
    assert threading.get_ident() == threading.main_thread().ident


def test_current_thread_of_a_fiber_leaves_no_trace():
    before = set(threading._active)
    names = both(lambda: threading.current_thread().name, lambda: threading.current_thread().name)
    assert len({*names, threading.current_thread().name}) == 3
    gc.collect()
    assert set(threading._active) == before


def test_recursion_depth_is_per_fiber():
    def depth():
        try:
            return 1 + depth()
        except RecursionError:
            return 0

    def half_deep(n):
        if n:
            return half_deep(n - 1)
        culm.yield_now()
        return depth()

    alone = culm.spawn(depth).result()
    results = both(*[lambda: half_deep(400)] * 3)
    assert all(abs(result - (alone - 400)) < 20 for result in results), (alone, results)


def test_setrecursionlimit_reaches_parked_fibers():
    def depth(n=0):
        try:
            return depth(n + 1)
        except RecursionError:
            return n

    def later():
        culm.yield_now()
        return depth()

    limit = sys.getrecursionlimit()
    fiber = culm.spawn(later)
    culm.yield_now()
    sys.setrecursionlimit(limit * 3)
    try:
        assert fiber.result() > limit * 2
    finally:
        sys.setrecursionlimit(limit)


def test_repr_of_one_list_in_two_fibers():
    class Slow:
        def __repr__(self):
            culm.yield_now()
            return "slow"

    shared = [Slow()]
    assert both(lambda: repr(shared), lambda: repr(shared)) == ["[slow]", "[slow]"]


def test_two_asyncio_loops_in_two_fibers():
    async def count(n):
        for _ in range(n):
            await asyncio.sleep(0.001)
        return n

    assert both(lambda: asyncio.run(count(3)), lambda: asyncio.run(count(5))) == [3, 5]


def test_async_code_parks_the_fiber_inside_a_coroutine():
    async def outer():
        culm.sleep(0.001)
        return asyncio.get_running_loop() is not None

    assert both(lambda: asyncio.run(outer()), lambda: (culm.sleep(0.0005), 1)[1]) == [True, 1]
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


def test_garbage_collection_at_every_switch():
    class Node:
        def __init__(self):
            self.me = self

    def work(n):
        nodes = []
        for i in range(n):
            nodes.append(Node())
            gc.collect(0)
            culm.yield_now()
            if i % 3 == 0:
                nodes.clear()
        return n

    threshold = gc.get_threshold()
    gc.set_threshold(10)
    try:
        assert both(*[lambda: work(30)] * 5) == [30] * 5
    finally:
        gc.set_threshold(*threshold)


def test_the_running_fiber_is_found_by_its_ident():
    def work():
        return sys._current_frames()[threading.get_ident()].f_code.co_name

    assert both(work, work) == ["work", "work"]
    assert threading.get_ident() in sys._current_frames()
