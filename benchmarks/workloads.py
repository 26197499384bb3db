"""The workloads, one function per library: each runs in a process of its own and returns one number.

    python benchmarks/workloads.py switch culm      prints nanoseconds

Every function uses its library the way its documentation does. CPU time is measured, so that a busy neighbour disturbs
less than it would disturb wall-clock time; loops are calibrated to take a good part of a second.
compare.py also runs these functions with an older culm. A function that needs what the installed library does not have
ends the process with the status LEFT_OUT.
Invariant: nothing here compares; run.py and compare.py do, alternating processes of the same run.
"""

import gc
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

from echo_servers import serve_culm, serve_gevent, serve_threads, serve_uvloop

__all__ = ["serve_culm", "serve_gevent", "serve_threads", "serve_uvloop"]  # called by name, as all functions here are

PARKED = 100_000
BATCH = 1000
LEFT_OUT = 3  # exit status: the library lacks something that the workload needs


def cpu_ns(function: Callable[[], object]) -> int:
    start = time.process_time_ns()
    function()
    return time.process_time_ns() - start


def nested(depth: int, function: Callable[[], object]) -> object:
    """Call function under `depth` C frames that call Python back."""
    if depth == 0:
        return function()
    return sorted([0], key=lambda _: nested(depth - 1, function) and 0)


# --- switch: nanoseconds per symmetric switch between two fibers ------------------------------------------------------


def switch_culm(depth: int = 0, count: int = 2_000_000) -> float:
    from culm import current, lowlevel

    switch = lowlevel.switch
    main = current()

    def partner() -> None:
        while True:
            switch(main)

    def loop() -> None:
        for _ in range(count):
            switch(fiber)

    fiber = lowlevel.Fiber(nested, depth, partner)
    switch(fiber)
    taken = 0

    def timed() -> int:
        nonlocal taken
        taken = cpu_ns(loop)
        return 1

    nested(depth, timed)
    return taken / (2 * count)


def switch_greenlet(depth: int = 0, count: int = 500_000) -> float:
    import greenlet

    main = greenlet.getcurrent()

    def partner() -> None:
        while True:
            main.switch()

    def loop() -> None:
        switch = fiber.switch
        for _ in range(count):
            switch()

    fiber = greenlet.greenlet(lambda: nested(depth, partner))
    fiber.switch()
    taken = 0

    def timed() -> int:
        nonlocal taken
        taken = cpu_ns(loop)
        return 1

    nested(depth, timed)
    return taken / (2 * count)


def switch_deep_culm() -> float:
    return switch_culm(100, 1_000_000)


def switch_deep_greenlet() -> float:
    return switch_greenlet(100, 50_000)


# --- yield: nanoseconds per yield, each of N fibers in turn ----------------------------------------------------------


def yield_culm(fibers: int, count: int) -> float:
    import culm

    give_way = culm.yield_now

    def loop() -> None:
        for _ in range(count):
            give_way()

    def work() -> None:
        for fiber in [culm.spawn(loop) for _ in range(fibers)]:
            fiber.result()

    return cpu_ns(work) / (fibers * count)


def yield_gevent(fibers: int, count: int) -> float:
    import gevent

    def loop() -> None:
        for _ in range(count):
            gevent.sleep(0)

    def work() -> None:
        gevent.joinall([gevent.spawn(loop) for _ in range(fibers)], raise_error=True)

    return cpu_ns(work) / (fibers * count)


def yield_asyncio(fibers: int, count: int) -> float:
    import asyncio

    async def loop() -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    async def work() -> None:
        await asyncio.gather(*(loop() for _ in range(fibers)))

    return cpu_ns(lambda: asyncio.run(work())) / (fibers * count)


def yield_2_culm() -> float:
    return yield_culm(2, 4_000_000)


def yield_2_gevent() -> float:
    return yield_gevent(2, 200_000)


def yield_2_asyncio() -> float:
    return yield_asyncio(2, 200_000)


def yield_1000_culm() -> float:
    return yield_culm(1000, 8000)


def yield_1000_gevent() -> float:
    return yield_gevent(1000, 400)


def yield_1000_asyncio() -> float:
    return yield_asyncio(1000, 400)


# --- spawn: nanoseconds per spawn + run + finish + join, one at a time and in batches --------------------------------


def nothing() -> None:
    pass


async def nothing_async() -> None:
    pass


def spawn_culm(batch: int = BATCH, rounds: int = 2000) -> float:
    import culm

    def work() -> None:
        for _ in range(rounds):
            fibers = [culm.spawn(nothing) for _ in range(batch)]
            for fiber in fibers:
                fiber.join()

    return cpu_ns(work) / (rounds * batch)


def spawn_gevent(batch: int = BATCH, rounds: int = 50) -> float:
    import gevent

    def work() -> None:
        for _ in range(rounds):
            gevent.joinall([gevent.spawn(nothing) for _ in range(batch)])

    return cpu_ns(work) / (rounds * batch)


def spawn_asyncio(batch: int = BATCH, rounds: int = 200) -> float:
    import asyncio

    async def work() -> None:
        for _ in range(rounds):
            tasks = [asyncio.create_task(nothing_async()) for _ in range(batch)]
            for task in tasks:
                await task

    return cpu_ns(lambda: asyncio.run(work())) / (rounds * batch)


def spawn_1_culm(count: int = 2_000_000) -> float:
    import culm

    def work() -> None:
        for _ in range(count):
            culm.spawn(nothing).join()

    return cpu_ns(work) / count


def spawn_1_gevent(count: int = 50_000) -> float:
    import gevent

    def work() -> None:
        for _ in range(count):
            gevent.spawn(nothing).join()

    return cpu_ns(work) / count


def spawn_1_asyncio(count: int = 50_000) -> float:
    import asyncio

    async def work() -> None:
        for _ in range(count):
            await asyncio.create_task(nothing_async())

    return cpu_ns(lambda: asyncio.run(work())) / count


def spawn_100000_culm() -> float:
    return spawn_culm(100_000, 5)


def spawn_100000_gevent() -> float:
    return spawn_gevent(100_000, 1)


def spawn_100000_asyncio() -> float:
    return spawn_asyncio(100_000, 3)


# --- timers: nanoseconds per sleep, 100,000 fibers that sleep again and again -----------------------------------------
#
# Each fiber first waits until all are there, so that only their sleeping is measured, and does not end before the clock
# is stopped. They sleep for so short that the thread is never idle.

PAUSE_MAX_SECONDS = 0.05
PAUSES = 1000


def pauses() -> list[float]:
    """Return the same pauses in every process; twice in a row, so that one can begin anywhere in the first half."""
    source = random.Random(1)
    return [source.uniform(0.001, PAUSE_MAX_SECONDS) for _ in range(PAUSES)] * 2


def timers_culm(fibers: int = PARKED, sleeps: int = 10) -> float:
    import culm
    from culm import lowlevel

    main, seconds, left = culm.current(), pauses(), fibers

    def work(first: int) -> None:
        nonlocal left
        lowlevel.park()
        for pause in seconds[first : first + sleeps]:
            culm.sleep(pause)
        left -= 1
        if left == 0:
            lowlevel.unpark(main)
        lowlevel.park()

    sleepers = [culm.spawn(work, i % PAUSES) for i in range(fibers)]
    culm.yield_now()

    def all_sleep() -> None:
        for sleeper in sleepers:
            lowlevel.unpark(sleeper)
        while left > 0:
            lowlevel.park()

    return cpu_ns(all_sleep) / (fibers * sleeps)


def timers_gevent(fibers: int = PARKED, sleeps: int = 1) -> float:
    import gevent
    from gevent.event import Event

    begin, done, end = Event(), Event(), Event()
    seconds, left = pauses(), fibers

    def work(first: int) -> None:
        nonlocal left
        begin.wait()
        for pause in seconds[first : first + sleeps]:
            gevent.sleep(pause)
        left -= 1
        if left == 0:
            done.set()
        end.wait()

    sleepers = [gevent.spawn(work, i % PAUSES) for i in range(fibers)]
    while begin.linkcount() < len(sleepers):
        gevent.sleep(0)
    return cpu_ns(lambda: (begin.set(), done.wait())) / (fibers * sleeps)


def timers_asyncio(fibers: int = PARKED, sleeps: int = 1) -> float:
    import asyncio

    async def main() -> float:
        begin, done, end = asyncio.Event(), asyncio.Event(), asyncio.Event()
        seconds, left = pauses(), fibers

        async def work(first: int) -> None:
            nonlocal left
            await begin.wait()
            for pause in seconds[first : first + sleeps]:
                await asyncio.sleep(pause)
            left -= 1
            if left == 0:
                done.set()
            await end.wait()

        sleepers = [asyncio.create_task(work(i % PAUSES)) for i in range(fibers)]
        await asyncio.sleep(0)
        start = time.process_time_ns()
        begin.set()
        await done.wait()
        taken = time.process_time_ns() - start
        for sleeper in sleepers:
            sleeper.cancel()
        return taken / (fibers * sleeps)

    return asyncio.run(main())


# --- fd_wait: nanoseconds from one wait for a descriptor to the next, two fibers that pass a byte to and fro ----------


def fd_wait_culm(timeout: float | None = None, count: int = 150_000) -> float:
    import socket

    import culm
    from culm import lowlevel

    def play(fd: int) -> None:
        for _ in range(count):
            lowlevel.wait_readable(fd, timeout=timeout)
            os.read(fd, 1)
            os.write(fd, b"x")

    left, right = socket.socketpair()

    def work() -> None:
        players = [culm.spawn(play, end.fileno()) for end in (left, right)]
        left.send(b"x")
        for player in players:
            player.result()

    with left, right:
        return cpu_ns(work) / (2 * count)


def fd_wait_timer_culm() -> float:
    return fd_wait_culm(timeout=3600.0)


# --- parked: bytes per parked fiber, resident memory and page tables --------------------------------------------------


def memory_bytes() -> int:
    gc.collect()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return sum(int(status[key].split()[0]) * 1024 for key in ("VmRSS", "VmPTE"))


def mappings() -> int:
    return len(Path("/proc/self/maps").read_text().splitlines())


def parked_culm(stack_limit: int) -> float:
    import culm
    from culm import lowlevel

    culm.spawn(lowlevel.park, stack_limit=stack_limit).cancel()
    culm.yield_now()
    fibers: list[object] = [None] * PARKED
    before = memory_bytes()
    for i in range(PARKED):
        fibers[i] = culm.spawn(lowlevel.park, stack_limit=stack_limit)
    culm.yield_now()
    used = memory_bytes() - before
    print(f"mappings={mappings()}", file=sys.stderr)
    return used / PARKED


def parked_small_culm() -> float:
    return parked_culm(256 * 1024)


def parked_default_culm() -> float:
    return parked_culm(10 * 2**20)


def parked_gevent() -> float:
    import gevent
    from gevent.event import Event

    event = Event()
    gevent.sleep(0)
    fibers: list[object] = [None] * PARKED
    before = memory_bytes()
    for i in range(PARKED):
        fibers[i] = gevent.spawn(event.wait)
    while event.linkcount() < PARKED:
        gevent.sleep(0)
    return (memory_bytes() - before) / PARKED


def parked_asyncio() -> float:
    import asyncio

    async def wait(future: "asyncio.Future[None]") -> None:
        await future

    async def main() -> float:
        loop = asyncio.get_running_loop()
        tasks: list[object] = [None] * PARKED
        before = memory_bytes()
        for i in range(PARKED):
            tasks[i] = loop.create_task(wait(loop.create_future()))
        await asyncio.sleep(0)
        used = memory_bytes() - before
        for task in tasks:
            task.cancel()  # type: ignore[attr-defined]
        return used / PARKED

    return asyncio.run(main())


# --- mappings: number of memory mappings with 100,000 parked fibers ---------------------------------------------------


def mappings_culm() -> float:
    import culm
    from culm import lowlevel

    fibers = [culm.spawn(lowlevel.park) for _ in range(PARKED)]
    culm.yield_now()
    assert len(fibers) == PARKED
    return mappings()


if __name__ == "__main__":
    try:
        result = globals()[f"{sys.argv[1]}_{sys.argv[2]}"]()
    except (AttributeError, ImportError) as lacking:
        print(lacking, file=sys.stderr)
        sys.exit(LEFT_OUT)
    if result is not None:
        print(result)
