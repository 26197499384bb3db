"""threading.local, contexts, errno and asyncio are per fiber."""

import asyncio
import contextvars
import ctypes
import functools
import gc
import sys
import threading
import weakref

from probe_support import MB, VERSION, Fiber, finish, park


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
    assert plain.x == "main"
    assert local.list == []
    assert deaths == []
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

    fibers = [
        Fiber(functools.partial(body, n), context=contextvars.copy_context())
        if n % 2
        else Fiber(functools.partial(body, n))
        for n in range(10)
    ]
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


def test_asyncio_runs_in_two_fibers_at_once():
    log = []

    async def agen(n):
        for i in range(3):
            yield i
            await asyncio.sleep(0)

    async def main(n):
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        for _i in range(3):
            park()
            assert asyncio.get_running_loop() is loop
            assert asyncio.current_task() is task
            await asyncio.sleep(0)
        async for _i in agen(n):
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
        asyncio._set_running_loop(loop)  # noqa: F821  deleted below, when this has run

    Fiber(body).resume()
    assert asyncio._get_running_loop() is None
    Fiber(lambda: None).resume()
    assert asyncio._get_running_loop() is None
    reference = weakref.ref(loop)
    loop.close()
    del loop
    gc.collect()
    if VERSION >= (3, 13):
        assert reference() is None
