"""Suspended frames as the garbage collector and debuggers see them; fibers that are dropped."""

import functools
import gc
import json
import traceback
import weakref

from probe_support import MB, Fiber, finish, park, probe


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
        y = ["kept"]  # noqa: F841  seen in the frame
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
    statistics = probe.chunk_cache_statistics()
    if statistics["installed"]:
        assert statistics["cached"] >= 3


def test_frame_of_suspended_fiber():
    def inner(a):
        park()
        return a

    def middle():
        return sorted([3, 1], key=inner)

    def outer():
        local = 5  # noqa: F841  seen in the frame
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
