"""Exceptions, generators and recursion depth of one fiber do not show in another."""

import functools
import sys
import traceback

from probe_support import MB, Fiber, park, probe


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
        try:
            raise KeyError
        except KeyError as error:
            return error.__context__

    try:
        raise RuntimeError
    except RuntimeError:
        assert Fiber(body).resume() is None


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
        yield from range(100)

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
    assert sorted(number for numbers in results.values() for number in numbers) == list(range(100))


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
        return None

    def body():
        for n in range(30):
            level(n)

    before = probe.chunk_cache_statistics()
    Fiber(body).resume()
    after = probe.chunk_cache_statistics()
    if after["installed"]:
        assert after["hits"] - before["hits"] >= 100
        assert after["misses"] - before["misses"] <= 10
