"""Steps with OS threads that run fibers of their own, with processes made by fork(), and with asyncio's loops.

Invariant: every thread is in world.threads, and every child process is waited for before the step ends.
"""

import asyncio
import os
import queue
import signal
import threading
import time
import traceback

from switching import GHOST_KINDS, ghost, ghost_number
from world import Actor, Failure, Fragile, World

import culm

CHILD_SECONDS = 30


def starts_a_thread(actor: Actor, token: int) -> int:
    """The thread runs actors of its own and ends while ghosts are parked on it."""
    world = actor.world
    if actor.level > 0:
        return token
    seed = actor.rng.getrandbits(16)
    answers: queue.SimpleQueue[int] = queue.SimpleQueue()
    thread = threading.Thread(target=live_on_a_thread, args=(world, seed, token, answers), name=f"thread-{seed}")
    world.threads.append(thread)
    thread.start()
    if actor.rng.random() < 0.5:
        return token  # joined at the end of the round
    return answers.get()


def live_on_a_thread(world: World, seed: int, token: int, answers: "queue.SimpleQueue[int]") -> None:
    try:
        actors = [Actor(world, seed % 7, level=1).start() for _ in range(1 + seed % 4)]
        left = [
            culm.spawn(ghost, world, ghost_number(world), GHOST_KINDS[position % len(GHOST_KINDS)])
            for position in range(seed % 3)
        ]
        culm.yield_now()
        if seed % 2:
            left.clear()
        time.sleep(0)
        for actor in actors:
            actor.fiber.join()
        left.append(culm.spawn(ghost, world, ghost_number(world), "plain"))
        if seed % 3:
            culm.yield_now()  # otherwise it would never run
    finally:
        answers.put(token)


def forks(actor: Actor, token: int) -> int:
    """The child has this fiber only, makes a few more, and exits at once."""
    pid = os.fork()
    if pid == 0:
        live_in_a_child(actor)
    _, status = os.waitpid(pid, 0)  # waitpid() is not interposed, so the other fibers of this thread wait too
    code = os.waitstatus_to_exitcode(status)
    actor.check(code == 0, f"a child process ended with {code}")
    return token


def live_in_a_child(actor: Actor) -> None:
    status = 1
    try:
        signal.alarm(CHILD_SECONDS)  # ends a child that hangs
        others = [fiber for fiber in culm.fibers() if fiber is not culm.current()]
        if others:
            raise Failure(f"a child process has fibers of its parent: {others}")
        fibers = [culm.spawn(lambda i=i: (time.sleep(1e-5), i)[1]) for i in range(3)]
        results = [fiber.result() for fiber in fibers]
        if results != [0, 1, 2]:
            raise Failure(f"in a child process, fibers returned {results}")
        other = actor.world.some_actor(actor.rng).fiber
        if other.state not in ("finished", "running", "new"):
            raise Failure(f"in a child process, a fiber of the parent is not finished: {other!r}, {other.traceback()}")
        culm.trim()
        status = 0
    except culm.Cancelled:
        status = 0 if actor.cancels else 3
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def runs_asyncio(actor: Actor, token: int) -> int:
    async def one(position: int) -> int:
        for _ in range(2):
            await asyncio.sleep(1e-5)
            if actor.rng.random() < 0.3:
                culm.yield_now()
        return position

    async def main() -> int:
        positions = await asyncio.gather(*(one(position) for position in range(3)))
        actor.check(positions == [0, 1, 2], f"asyncio gathered {positions}")
        return token

    with Fragile(actor):
        return asyncio.run(main())


HEAVY = [runs_asyncio]
RARE = [starts_a_thread, forks]
