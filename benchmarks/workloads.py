"""The workloads, one function per library: each runs in a process of its own and returns one number.

    python benchmarks/workloads.py switch culm      prints nanoseconds

Every function uses its library the way its documentation does. CPU time is measured, so that a busy neighbour disturbs
less than it would disturb wall-clock time; loops are calibrated to take a good part of a second.
Invariant: nothing here compares; run.py does, alternating processes of the same run.
"""

import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path

PARKED = 100_000
BATCH = 1000


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


# --- spawn: nanoseconds per spawn + run + finish + join, in batches of 1000 -------------------------------------------


def nothing() -> None:
    pass


def spawn_culm(rounds: int = 500) -> float:
    import culm

    def work() -> None:
        for _ in range(rounds):
            fibers = [culm.spawn(nothing) for _ in range(BATCH)]
            for fiber in fibers:
                fiber.join()

    return cpu_ns(work) / (rounds * BATCH)


def spawn_gevent(rounds: int = 50) -> float:
    import gevent

    def work() -> None:
        for _ in range(rounds):
            gevent.joinall([gevent.spawn(nothing) for _ in range(BATCH)])

    return cpu_ns(work) / (rounds * BATCH)


def spawn_asyncio(rounds: int = 200) -> float:
    import asyncio

    async def coroutine() -> None:
        pass

    async def work() -> None:
        for _ in range(rounds):
            tasks = [asyncio.create_task(coroutine()) for _ in range(BATCH)]
            for task in tasks:
                await task

    return cpu_ns(lambda: asyncio.run(work())) / (rounds * BATCH)


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


# --- echo: a server; run.py loads it and measures its CPU time --------------------------------------------------------


def serve_culm() -> None:
    import socket

    import culm

    def handle(conn: socket.socket) -> None:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while data := conn.recv(4096):
                conn.sendall(data)
        except ConnectionResetError:  # how the load ends
            conn.close()

    def main() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=1024) as server:
            print(server.getsockname()[1], flush=True)
            while True:
                culm.spawn(handle, server.accept()[0])

    culm.run(main)


def serve_gevent() -> None:
    from gevent import socket
    from gevent.server import StreamServer

    def handle(conn: socket.socket, address: object) -> None:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := conn.recv(4096):
            conn.sendall(data)

    server = StreamServer(("127.0.0.1", 0), handle, backlog=1024)
    server.start()
    print(server.server_port, flush=True)
    server.serve_forever()


def serve_uvloop() -> None:
    import asyncio

    import uvloop

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.write = transport.write  # type: ignore[attr-defined]

        def data_received(self, data: bytes) -> None:
            self.write(data)

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0, backlog=1024)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    uvloop.run(main())


def serve_threads() -> None:
    import socket
    import threading

    def handle(conn: socket.socket) -> None:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while data := conn.recv(4096):
                conn.sendall(data)
        except ConnectionResetError:  # how the load ends
            conn.close()

    with socket.create_server(("127.0.0.1", 0), backlog=1024) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            threading.Thread(target=handle, args=(server.accept()[0],), daemon=True).start()


if __name__ == "__main__":
    result = globals()[f"{sys.argv[1]}_{sys.argv[2]}"]()
    if result is not None:
        print(result)
