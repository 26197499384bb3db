"""Steps that make ordinary blocking calls after culm.patch(): sockets, pipes, sleeps, select, locks, queues.

Invariant: a call that is cancelled has taken nothing and given nothing.
"""

import io
import os
import queue
import select
import socket
import threading
import time

from world import Actor, Failure, Fragile

import culm
from culm import lowlevel


def sleeps_in_libc(actor: Actor, token: int) -> int:
    time.sleep(actor.rng.choice([0, 1e-6, 1e-4, 1e-3]))
    return token


def asks_through_a_socket(actor: Actor, token: int) -> int:
    near, far = socket.socketpair()
    with near, far:
        fiber = culm.spawn(echo_once, far)
        try:
            for _ in range(actor.rng.randint(1, 3)):
                near.sendall(b"%d\n" % token)
                answer = read_line(near)
                actor.check(answer == token, f"a socket gave {answer}")
            near.shutdown(socket.SHUT_WR)
            fiber.result()
        except BaseException:
            end(actor, fiber)
            raise
    return answer


def echo_once(far: socket.socket) -> None:
    while received := far.recv(100):
        far.sendall(received)


def read_line(near: socket.socket) -> int:
    received = b""
    while not received.endswith(b"\n"):
        received += near.recv(5)
    return int(received)


def end(actor: Actor, fiber: "culm.Fiber[object]") -> None:
    """Cancel a fiber that nobody waits for now; the end of the round takes its outcome."""
    actor.world.owned.append(fiber)
    fiber.cancel()


def fills_a_pipe(actor: Actor, token: int) -> int:
    """Send more than a pipe holds, so that writer and reader both have to wait."""
    size = actor.rng.choice([10, 70_000, 200_000])
    # Files, because a writer that goes on after a write of some bytes must not meet another pipe of the same number.
    read_end, write_end = (io.FileIO(fd, mode) for fd, mode in zip(os.pipe(), "rw", strict=True))
    fiber = culm.spawn(write_all, write_end, bytes([token % 256]) * size)
    try:
        count = 0
        while count < size:
            received = read_end.read(actor.rng.choice([1000, 100_000]))
            actor.check(received.count(token % 256) == len(received) > 0, "a pipe gave what nobody wrote")
            count += len(received)
        fiber.result()
    except BaseException:
        end(actor, fiber)
        raise
    finally:
        read_end.close()
        write_end.close()
    actor.check(count == size, f"a pipe gave {count} bytes of {size}")
    return token


def write_all(write_end: io.FileIO, payload: bytes) -> None:
    while payload:
        payload = payload[write_end.write(payload) :]


def selects(actor: Actor, token: int) -> int:
    near, far = socket.socketpair()
    with near, far:
        fiber = culm.spawn(lambda: (culm.sleep(1e-4), far.send(b"x"))[1])
        try:
            if actor.rng.random() < 0.5:
                ready = select.select([near], [], [], actor.rng.choice([0, 1e-5, 10]))[0]
                actor.check(ready in ([], [near]), f"select gave {ready}")
            else:
                poller = select.poll()
                poller.register(near, select.POLLIN)
                poller.poll(actor.rng.choice([0, 1, 10_000]))
            near.settimeout(10)
            actor.check(near.recv(1) == b"x", "a byte was lost")
            fiber.result()
        except BaseException:
            end(actor, fiber)
            raise
    return token


def waits_for_a_descriptor(actor: Actor, token: int) -> int:
    near, far = socket.socketpair()
    with near, far:
        lowlevel.wait_writable(near)
        try:
            lowlevel.wait_readable(near, timeout=1e-5)
        except TimeoutError:
            pass
        else:
            raise Failure(f"actor {actor.number}: nothing was sent, yet it can be read")
        far.send(b"x")
        lowlevel.wait_readable(near)
    return token


def loses_its_descriptor(actor: Actor, token: int) -> int:
    """Another fiber closes the descriptor it waits for."""
    read_end, write_end = os.pipe()
    try:
        fiber = culm.spawn(lowlevel.wait_readable, read_end)
        actor.world.owned.append(fiber)  # keeps it, in case this actor is cancelled before it asks for the outcome
        while fiber.state == "ready":
            culm.yield_now()
    finally:
        os.close(read_end)
        os.close(write_end)
    actor.check(isinstance(fiber.exception(), OSError), f"a closed descriptor gave {fiber.exception()!r}")
    return token


def takes_the_lock(actor: Actor, token: int) -> int:
    """One lock for all fibers of all threads."""
    world = actor.world
    with world.lock:
        actor.check(not world.holders, "two hold one lock")
        world.holders.append(actor.number)
        try:
            if actor.rng.random() < 0.5:
                culm.yield_now()
            elif actor.rng.random() < 0.3:
                time.sleep(1e-5)
            actor.check(world.holders == [actor.number], "two hold one lock")
        finally:
            world.holders.clear()
    return token


def takes_the_lock_in_time(actor: Actor, token: int) -> int:
    if actor.world.lock.acquire(timeout=actor.rng.choice([0, 1e-5, 1e-3])):
        actor.world.lock.release()
    return token


def takes_the_rlock_twice(actor: Actor, token: int) -> int:
    lock = actor.world.rlock
    with lock, lock:
        culm.yield_now()
    return token


def uses_the_condition(actor: Actor, token: int) -> int:
    world = actor.world
    with Fragile(actor), world.condition:
        if world.tickets:
            world.tickets -= 1
        else:
            world.condition.wait(timeout=actor.rng.choice([1e-5, 1e-3]))
            world.tickets += 1
        world.condition.notify()
    return token


def waits_for_an_event(actor: Actor, token: int) -> int:
    event = threading.Event()
    seen: list[int] = []

    def wake() -> None:
        seen.append(token)
        event.set()

    with Fragile(actor):
        culm.spawn(wake)
        actor.check(event.wait(10), "an event was not seen")
    return seen[0]


def passes_a_barrier(actor: Actor, token: int) -> int:
    barrier = threading.Barrier(3)
    fibers = [culm.spawn(barrier.wait) for _ in range(3)]
    positions = {fiber.result() for fiber in fibers}
    actor.check(positions == {0, 1, 2}, f"a barrier gave {positions}")
    return token


def puts_and_gets(actor: Actor, token: int) -> int:
    """A bounded queue that all fibers of all threads share."""
    world = actor.world
    item = next(world.numbers)
    with Fragile(actor):
        try:
            if actor.rng.random() < 0.5:
                world.channel.put(item, timeout=actor.rng.choice([1e-5, 1e-3]))
                world.put.append(item)
            else:
                world.got.append(world.channel.get(timeout=actor.rng.choice([1e-5, 1e-3])))
        except (queue.Full, queue.Empty):
            pass
    return token


def puts_and_gets_in_c(actor: Actor, token: int) -> int:
    """No timeout: a SimpleQueue whose item another thread took in the same moment forgets it and waits for ever."""
    world = actor.world
    item = next(world.numbers)
    world.simple.put(item)
    world.put.append(item)
    world.got.append(world.simple.get())
    return token


def writes_into_one_buffer(actor: Actor, token: int) -> int:
    """Two fibers, one buffered writer: its own lock keeps their lines whole."""
    read_end, write_end = os.pipe()
    line = b"%d\n" % token
    with open(read_end, "rb") as reader, open(write_end, "wb", buffering=64) as writer:
        fibers = [culm.spawn(write_lines, writer, line, 20) for _ in range(2)]
        try:
            for fiber in fibers:
                fiber.result()
        except BaseException:
            for fiber in fibers:
                end(actor, fiber)
            raise
        writer.close()
        received = reader.read()
    actor.check(received == line * 40, "two writers of one buffer tore their lines")
    return token


def write_lines(writer: io.BufferedWriter, line: bytes, count: int) -> None:
    for _ in range(count):
        writer.write(line)
        culm.yield_now()
    writer.flush()


LIGHT = [
    sleeps_in_libc,
    waits_for_a_descriptor,
    takes_the_lock,
    takes_the_lock_in_time,
    takes_the_rlock_twice,
    puts_and_gets,
    puts_and_gets_in_c,
    loses_its_descriptor,
    uses_the_condition,
]
HEAVY = [asks_through_a_socket, fills_a_pipe, selects, waits_for_an_event, passes_a_barrier, writes_into_one_buffer]
