"""One round of the stress program: its actors, what each is expected to bring back, and what must hold at the end.

An actor is a fiber that performs random steps. Each step sends a random token through some mechanism (a switch, a pipe,
a queue, another fiber) and gets it back; the sum of the tokens is the actor's result, which its model knows beforehand.
Invariant: an actor that nobody cancelled returns its model's sum; a cancelled one returns that or raises Cancelled.
"""

import contextvars
import itertools
import os
import queue
import random
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any

import culm
from culm import lowlevel

KB = 1024
# Before 3.14 the interpreter limits the number of calls, not bytes, and allows more than the smallest class can hold.
KNOWS_ITS_STACK = sys.version_info >= (3, 14)
IS_DEBUG_BUILD = hasattr(sys, "gettotalrefcount")
# Frames of a debug build are larger: at 64 KB it believes the stack used up and lets `except (A, B)` match nothing.
STACK_LIMITS = ([64 * KB] if KNOWS_ITS_STACK and not IS_DEBUG_BUILD else []) + [256 * KB, 1024 * KB, 10240 * KB]

Action = Callable[["Actor", int], int]
owner_variable: contextvars.ContextVar[object] = contextvars.ContextVar("owner", default=None)


class Untaken(Exception):
    """Ends a fiber whose exception nobody asks for: it has to be reported."""


class Failure(AssertionError):
    """An invariant does not hold."""


class Witness:
    """A local variable of a fiber, to be seen through a weak reference."""


class Actor:
    """A fiber with a model of what it does. Made on the OS thread that runs it."""

    def __init__(self, world: "World", steps: int, limit: int | None = None, level: int = 0) -> None:
        self.world = world
        self.number = next(world.numbers)
        self.rng = random.Random(world.rng.getrandbits(64))
        self.steps = steps
        self.level = level
        self.limit = limit or self.rng.choice(STACK_LIMITS)
        self.resilient = self.rng.random() < 0.3
        self.expected = 0
        self.cancels = 0
        self.fragile = 0
        self.sequence = itertools.count()
        self.awaited: set[int] = set()
        self.received: list[int] = []
        self.sent: list[int] = []
        self.operations: Counter[str] = Counter()
        self.home = threading.get_native_id()
        self.actions = world.actions_for(self)
        self.fiber = lowlevel.Fiber(self.run, name=f"actor-{self.number}", stack_limit=self.limit)
        world.actors.append(self)  # only now: a thread that ends refuses to make the fiber

    def start(self) -> "Actor":
        self.fiber.start()
        return self

    def run(self) -> int:
        self.world.begun.append(self.number)
        try:
            self.world.local.owner = self.number
            owner_variable.set(self.number)
            return self.perform(self.steps)
        finally:
            self.world.ended.append(self.number)

    def perform(self, steps: int) -> int:
        """Perform the steps, some of them inside nested calls of random kinds. Return the sum of their tokens."""
        from nesting import nest  # here, because nesting imports this module

        total = 0
        while steps > 0:
            if self.world.over:
                return total
            if self.rng.random() < 0.1:
                inner = self.rng.randint(1, steps)
                total += nest(self, lambda: self.perform(inner))
                steps -= inner
                continue
            total += self.step()
            steps -= 1
        return total

    def step(self) -> int:
        token = self.rng.getrandbits(32)
        action = self.rng.choice(self.actions)
        handled = sys.exc_info()[1]
        try:
            came_back = action(self, token)
        except culm.Cancelled:
            if not self.resilient or self.world.over or not self.cancels:
                raise
            return 0
        self.operations[action.__name__] += 1
        self.check(came_back == token, f"{action.__name__} brought back {came_back}, not {token}")
        self.check_isolation(action.__name__, handled)
        self.expected += token
        return token

    def check_isolation(self, after: str, handled: BaseException | None) -> None:
        self.check(culm.current() is self.fiber, f"after {after} another fiber runs")
        self.check(self.world.local.owner == self.number, f"after {after} threading.local is another fiber's")
        self.check(owner_variable.get() == self.number, f"after {after} the context is another fiber's")
        self.check(sys.exc_info()[1] is handled, f"after {after} the handled exception is {sys.exc_info()[1]!r}")
        self.check(threading.get_ident() == self.fiber.ident, f"after {after} the identity is another fiber's")

    def check(self, truth: bool, message: str) -> None:
        if not truth:
            raise Failure(f"actor {self.number}: {message}")

    def cancel(self) -> None:
        """Cancel the fiber, unless it was cancelled before and is in code that must not be cancelled twice."""
        if self.fragile and self.cancels:
            return
        if self.fiber.state == "finished":
            return
        self.cancels += 1
        try:
            self.fiber.cancel()
        except RuntimeError as error:
            # The fiber's thread may have ended since the state was read above; nothing else is allowed.
            self.check("has ended" in str(error), f"cancel() said {error}")

    def child(self, steps: int) -> "Actor":
        return Actor(self.world, steps, level=self.level + 1)

    def await_value(self) -> int:
        """The number of a value that somebody will send()."""
        sequence = next(self.sequence)
        self.awaited.add(sequence)
        return sequence

    def receive(self, wanted: int) -> int:
        """Park until the value with that number arrives. One that an earlier, cancelled wait missed may come first."""
        while True:
            sequence, token = lowlevel.park()
            self.note_received(sequence)
            if sequence == wanted:
                return int(token)

    def note_received(self, sequence: int) -> None:
        self.check(sequence not in self.received, f"value {sequence} arrived twice")
        self.received.append(sequence)
        self.awaited.discard(sequence)

    def send(self, sequence: int, token: int) -> bool:
        """Called by other fibers: unpark this one with a value. False if it has finished and cannot receive it."""
        while True:
            try:
                lowlevel.unpark(self.fiber, (sequence, token))
            except RuntimeError as error:
                if "on its way" not in str(error):
                    return False
                culm.sleep(0)
                continue
            self.sent.append(sequence)
            return True


class Fragile:
    """While inside, the actor is cancelled at most once: Condition.wait() has to take its lock back after that."""

    def __init__(self, actor: Actor) -> None:
        self.actor = actor

    def __enter__(self) -> None:
        self.actor.fragile += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.actor.fragile -= 1


class World:
    """What the actors of one round share. Appending to a list is atomic: that is how OS threads report."""

    def __init__(self, seed: int, kinds: dict[str, list[Action]]) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.numbers = itertools.count()
        self.over = False  # if so, no actor begins anything new, and Cancelled ends every actor
        self.kinds = kinds
        self.light = self._some(kinds["light"], 0.6)
        self.heavy = self._some(kinds["heavy"], 0.4)
        self.rare = self._some(kinds["rare"], 0.4)
        self.actors: list[Actor] = []
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.ghosts_begun: list[int] = []
        self.ghosts_ended: list[int] = []
        self.untaken: list[int] = []
        self.witnesses: list[Any] = []
        self.threads: list[threading.Thread] = []
        self.owned: list[Any] = []  # fibers, such as members of rings, that are to be kept alive until they end
        self.local = threading.local()
        self.lock = threading.Lock()
        self.rlock = threading.RLock()
        self.holders: list[int] = []
        self.condition = threading.Condition()
        self.tickets = 0
        self.channel: queue.Queue[int] = queue.Queue(maxsize=3)
        self.simple: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.put: list[int] = []
        self.got: list[int] = []
        self.courier: queue.SimpleQueue[tuple[Actor, int, int] | None] = queue.SimpleQueue()
        self.operations: Counter[str] = Counter()

    def _some(self, actions: list[Action], share: float) -> list[Action]:
        chosen = [action for action in actions if self.rng.random() < share]
        return chosen or [self.rng.choice(actions)]

    def actions_for(self, actor: Actor) -> list[Action]:
        if actor.limit < 256 * KB:
            return self.light
        if actor.limit < 1024 * KB and (IS_DEBUG_BUILD or not KNOWS_ITS_STACK):
            return self.light
        return self.light * 6 + self.heavy * 6 + (self.rare if actor.level < 2 else [])

    def some_actor(self, rng: random.Random) -> Actor:
        return rng.choice(self.actors)

    def deliver_from_thread(self) -> None:
        """The courier: an OS thread that runs no fibers and unparks those of others."""
        while (order := self.courier.get()) is not None:
            actor, sequence, token = order
            actor.send(sequence, token)

    def judge(self, actor: Actor) -> None:
        """Compare how the actor ended with its model."""
        cut_short = bool(actor.cancels)
        try:
            result = actor.fiber.result()
        except culm.Cancelled:
            if not actor.cancels:
                raise Failure(f"actor {actor.number} raised Cancelled, but nobody cancelled it") from None
        except culm.FiberExit:
            if actor.home == os.getpid() or actor.level < 2:
                raise  # all others are children that still ran when their thread ended
            cut_short = True
        except RuntimeError as error:
            if isinstance(error, RecursionError):
                if actor.limit > 64 * KB or not KNOWS_ITS_STACK:
                    raise
            elif actor.level < 2 or "is ending" not in str(error):
                raise  # all others are such children, which spawned a fiber before they came to a wait
            else:
                cut_short = True
        else:
            if result != actor.expected:
                raise Failure(f"actor {actor.number} returned {result} instead of {actor.expected}")
        if not set(actor.received) <= set(actor.sent):
            raise Failure(f"actor {actor.number} received what nobody sent")
        if not cut_short and sorted(actor.received) != sorted(actor.sent):
            raise Failure(f"actor {actor.number}: sent {actor.sent}, received {actor.received}")

    def judge_actors(self) -> None:
        """Compare all actors with their models, once they have ended. Clear their tracebacks, which keep frames."""
        for actor in self.actors:
            self.judge(actor)
            self.operations += actor.operations
            error = actor.fiber.exception()
            while error is not None:
                traceback.clear_frames(error.__traceback__)
                error = error.__context__

    def judge_books(self) -> None:
        """Check what was begun, ended and sent, once abandoned fibers have been collected too."""
        if sorted(self.begun) != sorted(self.ended):
            raise Failure(f"finally did not run in actors {set(self.begun) - set(self.ended)}")
        if sorted(self.ghosts_begun) != sorted(self.ghosts_ended):
            raise Failure(f"finally did not run in ghosts {set(self.ghosts_begun) - set(self.ghosts_ended)}")
        if self.holders:
            raise Failure(f"somebody still holds the lock: {self.holders}")
        left = []
        for channel in (self.channel, self.simple):
            while not channel.empty():
                left.append(channel.get_nowait())
        if sorted(self.got + left) != sorted(self.put):
            raise Failure(f"items lost or doubled: put {self.put}, got {self.got}, left {left}")
