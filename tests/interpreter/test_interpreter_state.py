"""What a fiber's saved interpreter state must keep apart, on every supported version.

Runs under pytest, or plainly: ``python test_interpreter_state.py <directory of _interpreter_probe>``. No sleeps; each
test builds its own fibers from the probe module, which knows only resume and park.
"""

import asyncio
import contextvars
import ctypes
import faulthandler
import functools
import gc
import json
import operator
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import traceback
import weakref

if __name__ == "__main__" and len(sys.argv) > 1:
    sys.path.insert(0, sys.argv[1])
elif "CULM_INTERPRETER_PROBE" in os.environ:
    sys.path.insert(0, os.environ["CULM_INTERPRETER_PROBE"])

try:
    import _interpreter_probe as probe
except ModuleNotFoundError:
    import pytest

    pytest.skip("the module _interpreter_probe is not built", allow_module_level=True)

from _interpreter_probe import Fiber, ProbeExit, park

V = sys.version_info[:2]
DEBUG = hasattr(sys, "gettotalrefcount")
MB = 1 << 20


def finish(fiber, value=None):
    """Resumes until it ends; returns its result."""
    while True:
        result = fiber.resume(value)
        if fiber.phase == "finished":
            return result


# ---------------------------------------------------------------------------------------------- values and exceptions


def test_values_travel_both_ways():
    def body(first):
        second = park(first + 1)
        return second * 2

    fiber = Fiber(body)
    assert fiber.resume(1) == 2
    assert fiber.phase == "suspended"
    assert fiber.resume(21) == 42
    assert fiber.phase == "finished"


def test_exception_of_body_reaches_resumer():
    def body():
        raise KeyError("gone")

    try:
        Fiber(body).resume()
    except KeyError as error:
        assert error.args == ("gone",)
        assert [f.name for f in traceback.extract_tb(error.__traceback__)][-1] == "body"
    else:
        raise AssertionError("no exception")


def test_handled_exceptions_are_isolated():
    seen = []

    def body(name):
        assert sys.exc_info() == (None, None, None)
        try:
            raise ValueError(name)
        except ValueError as error:
            park()
            assert sys.exc_info()[1] is error
            try:
                raise
            except ValueError as again:
                assert again is error
            try:
                raise TypeError(name)
            except TypeError as inner:
                park()
                assert inner.__context__ is error
                seen.append(name)
        assert sys.exc_info() == (None, None, None)

    fibers = [Fiber(functools.partial(body, str(i))) for i in range(10)]
    try:
        raise RuntimeError("main")
    except RuntimeError as outer:
        for _ in range(3):
            for fiber in fibers:
                fiber.resume()
                assert sys.exc_info()[1] is outer
    assert len(seen) == 10


def test_exception_context_does_not_cross_fibers():
    def body():
        raise KeyError

    try:
        raise RuntimeError
    except RuntimeError:
        try:
            Fiber(body).resume()
        except KeyError as error:
            assert not isinstance(error.__context__.__context__ if error.__context__ else None, RuntimeError)


def test_throw_into_suspended_runs_finally():
    log = []

    def body():
        try:
            park()
        finally:
            log.append("finally")

    fiber = Fiber(body)
    fiber.resume()
    try:
        fiber.throw(OSError("stop"))
    except OSError as error:
        assert error.args == ("stop",)
    assert log == ["finally"]


# ------------------------------------------------------------------------------------------------ generators and depth


def test_generators_suspended_across_switches():
    def numbers(n):
        try:
            for i in range(n):
                try:
                    raise ValueError(i)
                except ValueError:
                    park()
                    assert sys.exc_info()[1].args == (i,)
                    yield i
                    assert sys.exc_info()[1].args == (i,)
        finally:
            park()

    def body():
        return sum(numbers(5)) + sum(x for x in numbers(4)) + len([*map(str, numbers(3))])

    fibers = [Fiber(body) for _ in range(5)]
    while any(f.phase != "finished" for f in fibers):
        for fiber in fibers:
            if fiber.phase != "finished":
                result = fiber.resume()
    assert result == 10 + 6 + 3


def test_generator_passed_between_fibers():
    def count():
        for i in range(100):
            yield i

    shared = count()

    def body():
        total = []
        for value in shared:
            total.append(value)
            park()
        return total

    fibers = [Fiber(body) for _ in range(4)]
    results = {}
    while len(results) < 4:
        for fiber in fibers:
            if fiber not in results:
                result = fiber.resume()
                if fiber.phase == "finished":
                    results[fiber] = result
    assert sorted(sum(results.values(), [])) == list(range(100))


def depth_reached():
    def down(n):
        try:
            return down(n + 1)
        except RecursionError:
            return n

    return down(0)


def test_recursion_depth_is_per_fiber():
    def down(n):
        return park() if n == 0 else down(n - 1)

    limit = sys.getrecursionlimit()
    here = depth_reached()
    fibers = [Fiber(functools.partial(down, limit - 100), 10 * MB) for _ in range(5)]
    for fiber in fibers:
        fiber.resume()
    assert abs(depth_reached() - here) <= 2
    fresh = Fiber(depth_reached, 10 * MB).resume()
    assert limit - 20 <= fresh <= limit + 10, fresh
    for fiber in fibers:
        fiber.resume()
        assert fiber.phase == "finished"
    assert abs(depth_reached() - here) <= 2


def test_setrecursionlimit_reaches_suspended_fibers():
    def down(n):
        return park() if n == 0 else down(n - 1)

    def body():
        down(500)
        return depth_reached()

    limit = sys.getrecursionlimit()
    fiber = Fiber(body, 10 * MB)
    fiber.resume()
    try:
        sys.setrecursionlimit(limit + 1000)
        reached = fiber.resume()
        assert limit + 900 < reached < limit + 1010, reached
        fiber = Fiber(body, 10 * MB)
        fiber.resume()
    finally:
        sys.setrecursionlimit(limit)
    reached = fiber.resume()
    assert limit - 100 < reached < limit + 10, reached


def test_frames_overflow_the_first_chunk():
    def down(n, a=1, b=2, c=3, d=4):
        if n % 50 == 0:
            park()
        return 0 if n == 0 else 1 + down(n - 1, b, c, d, a)

    fibers = [Fiber(functools.partial(down, 900), 10 * MB) for _ in range(20)]
    alive = list(fibers)
    while alive:
        for fiber in list(alive):
            result = fiber.resume()
            if fiber.phase == "finished":
                assert result == 900
                alive.remove(fiber)


def test_call_across_the_end_of_a_chunk_reuses_chunks():
    def leaf(a, b, c, d, e, f, g, h, i, j):
        return a

    def level(n):
        if n:
            return level(n - 1)
        for _ in range(200):
            leaf(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)

    def body():
        for n in range(30):
            level(n)

    before = probe.arena_statistics()
    Fiber(body).resume()
    after = probe.arena_statistics()
    if after["installed"]:
        assert after["hits"] - before["hits"] >= 100
        assert after["misses"] - before["misses"] <= 10


# ------------------------------------------------------------------------------------------------- runaway recursion


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
    if V < (3, 14):
        return
    # Under Py_DEBUG frames of C are several times larger and the margins twice as large.
    for stack_bytes in (64 << 10, 256 << 10, MB) if not DEBUG else (256 << 10, MB):
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
    if V in ((3, 12), (3, 13)):
        assert 100 <= budget(64 << 10) <= budget(MB) <= budget(10 * MB) <= budget(1 << 30)
    else:
        assert budget(MB) == 0


# --------------------------------------------------------------------------------- threading.local, contexts, errno


def test_threading_local_is_per_fiber():
    made = []

    class Local(threading.local):
        def __init__(self):
            self.list = []
            made.append(self)

    local = Local()
    plain = threading.local()
    plain.x = "main"
    deaths = []

    class Value:
        def __init__(self, n):
            self.n = n

        def __del__(self):
            deaths.append(self.n)

    def body(n):
        assert not hasattr(plain, "x")
        plain.x = Value(n)
        local.list.append(n)
        park()
        assert plain.x.n == n
        assert local.list == [n]

    fibers = [Fiber(functools.partial(body, n)) for n in range(50)]
    for fiber in fibers:
        fiber.resume()
    assert plain.x == "main" and local.list == [] and deaths == []
    for fiber in fibers:
        fiber.resume()
    assert sorted(deaths) == list(range(50))
    assert len(made) == 51
    assert plain.x == "main"


def test_local_destructor_may_use_locals_and_switch():
    local = threading.local()
    log = []
    helper = Fiber(lambda: [park() for _ in range(10)])

    class Value:
        def __del__(self):
            local.other = 1
            helper.resume()
            log.append(local.other)

    def body():
        local.value = Value()

    finish(Fiber(body))
    assert log == [1]
    assert not hasattr(local, "other")


def test_contextvars_are_isolated_and_inherited():
    var = contextvars.ContextVar("var", default="unset")
    var.set("main")

    def body(n):
        assert var.get() == ("main" if n % 2 else "unset")
        for i in range(3):
            var.set((n, i))
            park()
            assert var.get() == (n, i)
            contextvars.copy_context().run(var.set, "elsewhere")
            assert var.get() == (n, i)

    fibers = [Fiber(functools.partial(body, n), context=contextvars.copy_context()) if n % 2 else
              Fiber(functools.partial(body, n)) for n in range(10)]
    for _ in range(4):
        for fiber in fibers:
            fiber.resume()
            assert var.get() == "main"


def test_repr_of_one_list_in_two_fibers():
    class Parks:
        def __repr__(self):
            park()
            return "item"

    shared = [Parks()]
    fibers = [Fiber(lambda: repr(shared)) for _ in range(2)]
    for fiber in fibers:
        fiber.resume()
    assert [fiber.resume() for fiber in fibers] == ["[item]", "[item]"]


def test_ctypes_errno_is_per_fiber():
    def body(n):
        ctypes.set_errno(n)
        park()
        assert ctypes.get_errno() == n

    ctypes.set_errno(99)
    fibers = [Fiber(functools.partial(body, n)) for n in range(1, 5)]
    for _ in range(2):
        for fiber in fibers:
            fiber.resume()
    assert ctypes.get_errno() == 99


# ------------------------------------------------------------------------------------------------------------ tracing


def test_settrace_survives_switches():
    events = []

    def tracer(frame, event, arg):
        if frame.f_code.co_name == "traced":
            events.append(event)
        return tracer

    def traced():
        x = 1
        park()
        y = 2
        return x + y

    sys.settrace(tracer)
    try:
        fibers = [Fiber(traced) for _ in range(3)]
        for _ in range(2):
            for fiber in fibers:
                fiber.resume()
    finally:
        sys.settrace(None)
    assert events.count("call") == 3 and events.count("return") == 3, events
    assert events.count("line") == 12


def test_settrace_set_and_removed_while_suspended():
    events = []

    def tracer(frame, event, arg):
        events.append(frame.f_code.co_name)
        return tracer

    def inner():
        return 1

    def body():
        park()
        inner()
        park()
        inner()

    fiber = Fiber(body)
    fiber.resume()
    sys.settrace(tracer)
    try:
        fiber.resume()
    finally:
        sys.settrace(None)
    assert "inner" in events
    count = len(events)
    fiber.resume()
    assert len(events) == count


def test_switch_inside_trace_and_profile_callbacks():
    for install in (sys.settrace, sys.setprofile):
        other_ran = []

        def other():
            while True:
                other_ran.append(len(traced))
                park()

        other_fiber = Fiber(other)
        traced = []

        def callback(frame, event, arg):
            if frame.f_code.co_name == "work":
                traced.append(event)
                other_fiber.resume()
            return callback

        def work():
            return sum([1, 2, 3])

        def body():
            work()
            park()
            work()

        fiber = Fiber(body)
        install(callback)
        try:
            fiber.resume()
            fiber.resume()
            other_fiber.throw(Stop())
        except Stop:
            pass
        finally:
            install(None)
        assert len(traced) >= 4
        assert len(other_ran) == len(traced)


def test_fiber_parked_inside_a_trace_callback_is_collected():
    if DEBUG and V >= (3, 12):
        return  # asserts that code on any stack it can see was instrumented anew when tracing ended
    def tracer(frame, event, arg):
        if frame.f_code.co_name == "work" and event == "call":
            cycle = [frame]
            cycle.append(cycle)
            park()
        return None

    def work():
        pass

    def body():
        sys.settrace(tracer)
        try:
            work()
        finally:
            sys.settrace(None)

    fiber = Fiber(body)
    fiber.resume()
    sys.settrace(None)
    gc.collect()
    assert fiber.phase == "suspended"
    fiber.resume()
    assert fiber.phase == "finished"


# ----------------------------------------------------------------------------------------------------------------- gc


def test_cycle_through_a_suspended_frame_is_collected():
    log = []

    class Thing:
        pass

    def body(holder):
        thing = Thing()
        thing.fiber = holder[0]
        log.append(weakref.ref(thing))
        try:
            park()
        finally:
            log.append("finally")

    holder = []
    fiber = Fiber(body)
    holder.append(fiber)
    fiber.resume(holder)
    del holder[:], fiber, holder
    gc.collect()
    assert log[1:] == ["finally"]
    assert log[0]() is None


def test_reachable_fiber_survives_collection():
    def body():
        local = [object() for _ in range(10)]
        names = {"a": local, "b": [local]}
        park()
        return len(names["a"]) + len(names["b"][0])

    fibers = [Fiber(body) for _ in range(20)]
    for fiber in fibers:
        fiber.resume()
    for _ in range(3):
        gc.collect()
    assert [fiber.resume() for fiber in fibers] == [20] * 20


def test_gc_stress_with_low_threshold():
    class Item:
        def __init__(self, n):
            self.n = n
            self.me = self

    def worker(n):
        acc = []
        for i in range(30):
            item = Item(i)
            acc.append([x.n for x in [item, Item(i)]])
            (park(i) for _ in [1]).__next__()
            acc.extend(sorted([[3, item], [1, item], [2, item]], key=lambda p: p[0])[:1])
            if i % 7 == 0:
                json.dumps({"k": [n]}, default=str)
        return len(acc)

    threshold = gc.get_threshold()
    gc.set_threshold(10, 5, 5)
    try:
        fibers = [Fiber(functools.partial(worker, n)) for n in range(20)]
        alive = list(fibers)
        while alive:
            for fiber in list(alive):
                result = fiber.resume()
                if fiber.phase == "finished":
                    assert result == 60
                    alive.remove(fiber)
    finally:
        gc.set_threshold(*threshold)


def test_get_referents_sees_locals_of_suspended_fiber():
    marker = ["marker"]

    def body(value):
        park()

    fiber = Fiber(body)
    fiber.resume(marker)
    assert any(x is marker for x in gc.get_referents(fiber))
    fiber.resume()


def test_abandoned_fiber_leaves_frame_objects_usable():
    caught = []

    def inner(x):
        try:
            raise ValueError(x)
        except ValueError as error:
            caught.append(error)
        generator = (park() for _ in [1])
        next(generator)

    def body():
        y = ["kept"]
        inner(7)

    fiber = Fiber(body)
    fiber.resume()
    frame = fiber.frame()
    while frame.f_code.co_name != "inner":
        frame = frame.f_back
    fiber.abandon()
    assert fiber.phase == "abandoned"
    del fiber
    for _ in range(20):
        finish(Fiber(lambda: sum(x for x in range(10))))
    assert frame.f_locals["x"] == 7
    assert frame.f_back.f_locals["y"] == ["kept"]
    assert caught[0].__traceback__.tb_frame.f_lineno > 0
    assert "inner" in "".join(traceback.format_exception(caught[0]))
    gc.collect()


def test_abandon_deep_fiber_gives_chunks_back():
    def down(n):
        return park() if n == 0 else down(n - 1)

    for _ in range(30):
        fiber = Fiber(functools.partial(down, 800), 10 * MB)
        fiber.resume()
        fiber.abandon()
    statistics = probe.arena_statistics()
    if statistics["installed"]:
        assert statistics["cached"] >= 3


# -------------------------------------------------------------------------------------------------------------- asyncio


def test_asyncio_runs_in_two_fibers_at_once():
    log = []

    async def agen(n):
        for i in range(3):
            yield i
            await asyncio.sleep(0)

    async def main(n):
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        for i in range(3):
            park()
            assert asyncio.get_running_loop() is loop
            assert asyncio.current_task() is task
            await asyncio.sleep(0)
        async for i in agen(n):
            park()
        await asyncio.gather(*[asyncio.sleep(0, n) for _ in range(3)])
        log.append(n)
        return n

    def body(n):
        assert asyncio._get_running_loop() is None
        result = asyncio.run(main(n))
        assert asyncio._get_running_loop() is None
        return result

    hooks = sys.get_asyncgen_hooks()
    fibers = [Fiber(functools.partial(body, n), 10 * MB) for n in range(3)]
    alive = list(fibers)
    while alive:
        for fiber in list(alive):
            result = fiber.resume()
            assert asyncio._get_running_loop() is None
            assert sys.get_asyncgen_hooks() == hooks
            if fiber.phase == "finished":
                assert result == fibers.index(fiber)
                alive.remove(fiber)
    assert sorted(log) == [0, 1, 2]


def test_fiber_ending_with_running_loop_leaves_none_behind():
    loop = asyncio.new_event_loop()

    def body():
        asyncio._set_running_loop(loop)

    Fiber(body).resume()
    assert asyncio._get_running_loop() is None
    Fiber(lambda: None).resume()
    assert asyncio._get_running_loop() is None
    reference = weakref.ref(loop)
    loop.close()
    del loop
    gc.collect()
    if V >= (3, 13):
        assert reference() is None


# --------------------------------------------------------------------------------------------------------------- frames


def test_frame_of_suspended_fiber():
    def inner(a):
        park()
        return a

    def middle():
        return sorted([3, 1], key=inner)

    def outer():
        local = 5
        middle()

    fiber = Fiber(outer)
    fiber.resume()
    frame = fiber.frame()
    names = []
    while frame is not None:
        names.append(frame.f_code.co_name)
        last, frame = frame, frame.f_back
    assert names == ["inner", "middle", "outer"]
    assert last.f_locals["local"] == 5
    assert "outer" in "".join(traceback.format_stack(fiber.frame()))
    fiber.resume()
    fiber.resume()
    assert fiber.phase == "finished"


def test_frame_of_fiber_inside_generator():
    def generator():
        park()
        yield 1

    def body():
        return list(generator())

    fiber = Fiber(body)
    fiber.resume()
    frame = fiber.frame()
    assert frame.f_code.co_name == "generator"
    assert frame.f_back.f_code.co_name == "body"
    assert frame.f_back.f_back is None
    assert finish(fiber) == [1]


def test_stack_of_running_fiber_ends_at_its_first_frame():
    def body():
        return [f.name for f in traceback.extract_stack()]

    assert Fiber(body).resume() == ["body"]


# ------------------------------------------------------------------------------------------------ raise_soon, signals


class Stop(Exception):
    pass


def spin():
    for _ in range(1000):
        pass


def test_raise_soon_travels_with_its_fiber():
    for exception in (Stop, Stop("instance")):
        def body():
            probe.raise_soon(exception)
            park()  # in one call: no check of the evaluation loop in between is guaranteed
            spin()

        def bystander():
            for _ in range(5):
                spin()
                park()
            return "unharmed"

        fiber, other = Fiber(body), Fiber(bystander)
        raised = None
        try:
            fiber.resume()
            other.resume()
            spin()
            fiber.resume()
        except Stop as error:
            raised = error
        assert raised is not None
        assert raised is exception or exception is Stop
        assert finish(other) == "unharmed"
        assert type(raised) is Stop


def test_raise_soon_is_taken_along_by_a_switch():
    """The exception is set and the fiber parks within one C call, so that it is certainly still pending."""
    log = []

    def body():
        try:
            list(map(operator.call if V >= (3, 11) else None, [functools.partial(probe.raise_soon, Stop("later")), park]))
            spin()
        except Stop as error:
            log.append(str(error))

    fiber = Fiber(body)
    fiber.resume()
    assert log == []
    spin()
    finish(Fiber(spin))
    gc.collect()
    assert log == []
    fiber.resume()
    assert log == ["later"]


def test_raise_soon_withdrawn():
    def body():
        list(map(operator.call, [functools.partial(probe.raise_soon, Stop), functools.partial(probe.raise_soon, None)]))
        spin()
        return "ended"

    assert Fiber(body).resume() == "ended"


def test_raise_soon_dropped_with_an_abandoned_fiber():
    def body():
        list(map(operator.call, [functools.partial(probe.raise_soon, Stop("x")), park]))

    fiber = Fiber(body)
    fiber.resume()
    fiber.abandon()
    spin()


def test_foreign_asynchronous_exception_stays_with_the_thread():
    set_exception = ctypes.pythonapi.PyThreadState_SetAsyncExc
    set_exception.argtypes = [ctypes.c_ulong, ctypes.py_object]

    def body():
        park()
        return "ended"

    fiber = Fiber(body)
    fiber.resume()
    try:
        set_exception(threading.get_ident(), Stop)
        spin()
    except Stop:
        pass
    else:
        raise AssertionError("not raised in the flow that was running")
    assert fiber.resume() == "ended"


def test_main_thread_slot_follows_the_running_fiber():
    identity = threading.main_thread().ident
    assert probe.main_thread_identity() == identity
    seen = []

    def body():
        seen.append(probe.main_thread_identity())
        park()
        seen.append(probe.main_thread_identity())

    fiber = Fiber(body, identity=4711)
    fiber.resume()
    assert probe.main_thread_identity() == identity
    fiber.resume()
    assert seen == [4711, 4711]
    assert probe.main_thread_identity() == identity


def test_slot_is_left_alone_by_other_threads():
    identity = threading.main_thread().ident
    seen = []

    def body():
        park()
        seen.append("fiber")

    def thread():
        fiber = Fiber(body, identity=815)
        fiber.resume()
        fiber.resume()

    t = threading.Thread(target=thread)
    t.start()
    t.join()
    assert seen == ["fiber"]
    assert probe.main_thread_identity() == identity


def test_signal_handler_runs_in_the_running_fiber():
    log = []
    previous = signal.signal(signal.SIGUSR1, lambda *args: log.append("handled"))
    try:
        def body():
            park()
            os.kill(os.getpid(), signal.SIGUSR1)
            spin()
            return list(log)

        fiber = Fiber(body)
        fiber.resume()
        assert fiber.resume() == ["handled"]
        spin()
        assert probe.signal_tripped() is False
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_signal_tripped_sees_a_pending_signal():
    previous = signal.signal(signal.SIGUSR1, lambda *args: None)
    try:
        # Within one C call, so that the evaluation loop does not handle the signal first.
        seen = list(map(operator.call, [functools.partial(os.kill, os.getpid(), signal.SIGUSR1) if False else
                                        functools.partial(signal.raise_signal, signal.SIGUSR1), probe.signal_tripped]))
        assert seen[1] in (True, False)
    finally:
        signal.signal(signal.SIGUSR1, previous)


# ------------------------------------------------------------------------------------------------- threads, processes


def test_fibers_in_several_threads():
    errors = []

    def body(n):
        local = threading.local()
        local.n = n
        for i in range(50):
            park()
            assert local.n == n

    def thread():
        try:
            fibers = [Fiber(functools.partial(body, n)) for n in range(5)]
            for _ in range(51):
                for fiber in fibers:
                    fiber.resume()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=thread) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert errors == []


def test_fork_inside_a_fiber():
    def body():
        park()
        pid = os.fork()
        park(pid)
        return pid

    fiber, other = Fiber(body), Fiber(lambda: park() or "other")
    fiber.resume()
    other.resume()
    pid = fiber.resume()
    if pid == 0:
        status = 1
        try:
            if fiber.resume() == 0 and other.resume() == "other" and probe.main_thread_identity() == threading.get_ident():
                status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert fiber.resume() == pid
    assert other.resume() == "other"


def run_child(code):
    prelude = f"import sys; sys.path[:0] = {sys.path[:1]!r}; import _interpreter_probe as probe\n"
    prelude += "from _interpreter_probe import Fiber, park, ProbeExit\n"
    return subprocess.run([sys.executable, "-c", prelude + code], capture_output=True, text=True, env={**os.environ,
                          "PYTHONPATH": os.path.dirname(probe.__file__)})


def test_exit_with_suspended_fibers_is_clean():
    done = run_child("def body():\n    try:\n        park()\n    finally:\n        print('unwound')\n"
                     "f = Fiber(body)\nf.resume()\nprint('end')")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.split()[0] == "end"


def test_exit_inside_a_fiber():
    done = run_child("Fiber(lambda: sys.exit(3)).resume()")
    assert done.returncode == 3, done.stderr


def test_sub_interpreter_is_refused():
    if V < (3, 12):
        return
    code = ("try:\n    import _interpreters as i\nexcept ImportError:\n    import _xxsubinterpreters as i\n"
            "s = i.create()\nimport os\n"
            "i.run_string(s, 'import sys; sys.path.insert(0, %r)\\ntry:\\n import _interpreter_probe as p\\n p.Fiber(print)"
            "\\nexcept ImportError as e: print(\"refused\")' % os.path.dirname(probe.__file__))\n")
    done = run_child(code)
    assert "refused" in done.stdout or done.returncode != 0 or "refused" in done.stderr, (done.stdout, done.stderr)


def test_many_fibers():
    def body(n):
        x = park(n)
        return x + n

    fibers = [Fiber(functools.partial(body, n)) for n in range(2000)]
    assert [f.resume() for f in fibers] == list(range(2000))
    assert [f.resume(1) for f in fibers] == [n + 1 for n in range(2000)]


if __name__ == "__main__":
    faulthandler.enable()
    only = sys.argv[2:]
    for name, test in list(globals().items()):
        if not name.startswith("test_") or (only and name not in only):
            continue
        print(name, flush=True)
        test()
    parked = Fiber(park)
    parked.resume()
    print("ok", sys.version.split()[0], f"{probe.time_switch_state(parked, 1_000_000):.2f} ns per switch_state")
    parked.resume()
