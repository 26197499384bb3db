"""Steps about memory and about looking at fibers: recursion of every kind, trimming, collecting, attributes, isolation.

Invariant: none of them changes what another fiber sees.
"""

import contextvars
import functools
import gc
import sys
import traceback
import weakref
from collections import Counter
from collections.abc import Callable, Coroutine, Generator, Iterator
from types import FrameType
from typing import Any

from world import IS_DEBUG_BUILD, KB, KNOWS_ITS_STACK, Actor, Witness

import culm
from culm import lowlevel


def recurses(actor: Actor, token: int) -> int:
    """Python frames: they grow on the interpreter's own stack, chunk by chunk."""

    def descend(depth: int) -> int:
        if depth:
            return descend(depth - 1)
        culm.yield_now()
        return token

    return descend(actor.rng.randint(0, 400))


def recurses_in_c(actor: Actor, token: int) -> int:
    """C frames: the fiber's own stack grows, and may be given back while it is parked above that depth."""

    def descend(depth: int) -> int:
        if depth:
            sorted([0], key=lambda _: descend(depth - 1))
        elif actor.rng.random() < 0.5:
            culm.yield_now()
        return 0

    descend(actor.rng.randint(1, 50 if actor.limit > 1024 * KB else 15))
    culm.yield_now()
    if actor.rng.random() < 0.1:
        culm.trim()
    return token


def runs_away(actor: Actor, token: int) -> int:
    def in_python() -> int:
        return in_python() + 1

    def in_c() -> int:
        sorted([0], key=lambda _: in_c())
        return 0

    def body() -> str:
        try:
            kind()
        except RecursionError:
            culm.yield_now()
            return "ran away"
        return "came back"

    kind: Callable[[], int] = actor.rng.choice([in_python, in_c])
    small = kind is in_python or KNOWS_ITS_STACK
    limit = actor.rng.choice([256 * KB, 1024 * KB, 10240 * KB]) if small else 10240 * KB
    result = culm.spawn(body, stack_limit=limit).result()
    actor.check(result == "ran away", f"a runaway recursion {result}")
    return token


def trims(actor: Actor, token: int) -> int:
    culm.trim()
    return token


def collects(actor: Actor, token: int) -> int:
    cycle: list[object] = [culm.current()]
    cycle.append(cycle)
    gc.collect(actor.rng.choice([0, 0, 0, 1, 2]))
    return token


def looks_at_another(actor: Actor, token: int) -> int:
    other = actor.world.some_actor(actor.rng).fiber
    use = other.stack
    actor.check(use.limit >= use.used >= 0, f"{other!r} uses {use}")
    actor.check(use.limit >= use.resident >= 0, f"{other!r} uses {use}")
    actor.check(f"id={other.id}" in repr(other), f"repr is {other!r}")
    actor.check(other.state in ("new", "ready", "running", "parked", "finished"), other.state)
    actor.check(isinstance(other.waiting_for, str | None), "waiting_for is no str")
    return token


def walks_the_frames_of_another(actor: Actor, token: int) -> int:
    other = actor.world.some_actor(actor.rng).fiber
    frame: FrameType | None = other.frame
    culm.yield_now()  # meanwhile it may go on, or end
    names = []
    while frame is not None:
        names.append(frame.f_code.co_name)
        actor.check(frame.f_lineno is None or frame.f_lineno > 0, f"{frame!r} is in no line")
        if actor.rng.random() < 0.2:
            len(frame.f_locals)
        frame = frame.f_back
    for entry in other.traceback():
        actor.check(entry.name != "", "a frame without a name")
    return token


def sees_weak_references_die(actor: Actor, token: int) -> int:
    def body() -> int:
        witness = Witness()
        references.append(weakref.ref(witness))
        culm.yield_now()
        return token

    references: list[Any] = []
    fiber = culm.spawn(body)
    result = fiber.result()
    references.append(weakref.ref(fiber))
    del fiber
    gc.collect(0)
    actor.check(references[0]() is None, "a local variable outlived its fiber")
    return result


def handles_an_exception(actor: Actor, token: int) -> int:
    """What is being handled stays with the fiber, and a bare raise raises it again."""
    mine = ValueError(token)
    try:
        try:
            raise mine
        except ValueError:
            culm.yield_now()
            actor.check(sys.exc_info()[1] is mine, "another exception is being handled")
            raise
        finally:
            culm.yield_now()
    except ValueError as error:
        text = "".join(traceback.format_exception_only(type(error), error))
        actor.check(str(token) in text, text)
        return int(error.args[0])


def uses_a_generator(actor: Actor, token: int) -> int:
    def produce() -> Iterator[int]:
        try:
            for _ in range(3):
                culm.yield_now()
                yield token
        finally:
            culm.yield_now()

    first, *_ = produce()
    return first


def hands_a_generator_over(actor: Actor, token: int) -> int:
    """Begun by one fiber, continued by another, closed by whoever comes last."""

    def produce() -> Generator[int, int, None]:
        received = yield 0
        while True:
            culm.yield_now()
            received = yield received

    generator = produce()
    next(generator)
    came_back = culm.spawn(generator.send, token).result()
    actor.check(generator.send(token + 1) == token + 1, "a generator forgot")
    generator.close()
    return came_back


def drives_a_coroutine(actor: Actor, token: int) -> int:
    async def inner() -> int:
        culm.yield_now()
        return token

    async def outer() -> int:
        return await inner()

    coroutine: Coroutine[Any, Any, int] = outer()
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return int(stop.value)
    return 0


own_variable: contextvars.ContextVar[int] = contextvars.ContextVar("own")


def uses_contexts(actor: Actor, token: int) -> int:
    def inside() -> int:
        own_variable.set(token)
        culm.yield_now()
        return own_variable.get()

    before = own_variable.get(None)
    result = contextvars.copy_context().run(inside)
    actor.check(own_variable.get(None) == before, "a context leaked")
    inherited = culm.spawn(lambda: own_variable.get(None)).result()
    actor.check(inherited == before, "a new fiber did not inherit the context")
    if actor.rng.random() < 0.5:
        own_variable.set(token)
    return result


def traces(actor: Actor, token: int) -> int:
    """A trace function belongs to its OS thread: it sees all its fibers, and is gone when one of them removes it."""
    if IS_DEBUG_BUILD and sys.version_info[:2] == (3, 12):
        return token  # it asserts that suspended code is instrumented as the present events ask for

    def trace(frame: FrameType, event: str, argument: object) -> object:
        seen[event] += 1
        return trace

    def profile(frame: FrameType, event: str, argument: object) -> None:
        seen[event] += 1

    def traced() -> int:
        culm.yield_now()
        return token

    seen: Counter[str] = Counter()
    if actor.rng.random() < 0.5:
        sys.settrace(trace)
    else:
        sys.setprofile(profile)
    try:
        came_back = traced()
    finally:
        sys.settrace(None)
        sys.setprofile(None)
    actor.check(seen.total() > 0, "a trace function saw nothing")
    return came_back


def reprs_a_shared_list(actor: Actor, token: int) -> int:
    """repr() notes for each thread which objects it is printing. Another fiber is not printing them."""

    class Slow:
        def __repr__(self) -> str:
            culm.yield_now()
            return "slow"

    shared = [Slow()]
    fibers = [culm.spawn(repr, shared) for _ in range(2)]
    actor.check([fiber.result() for fiber in fibers] == ["[slow]"] * 2, "repr() saw a recursion that is none")
    return token


def caches(actor: Actor, token: int) -> int:
    @functools.lru_cache(maxsize=2)
    def compute(value: int) -> int:
        culm.yield_now()
        return value

    fibers = [culm.spawn(compute, token + position) for position in range(3)]
    results = [fiber.result() for fiber in fibers]
    return results[0]


def parks_in_a_finalizer(actor: Actor, token: int) -> int:
    class Parks:
        def __del__(self) -> None:
            try:
                culm.yield_now()
            except (culm.Cancelled, culm.FiberExit):
                pass  # an exception that leaves a finalizer would be reported as a surprise
            seen.append(token)

    seen: list[int] = []
    thing: Parks | None = Parks()
    thing = None
    actor.check(thing is None and len(seen) == 1, "a finalizer that parks was left early")
    return seen[0]


def is_named(actor: Actor, token: int) -> int:
    fiber = lowlevel.Fiber(yields_its_name, name=f"named {token}")
    fiber.start()
    return int(fiber.result().split()[1])


def yields_its_name() -> str:
    culm.yield_now()
    return culm.current().name


LIGHT = [
    recurses,
    trims,
    looks_at_another,
    sees_weak_references_die,
    handles_an_exception,
    uses_a_generator,
    hands_a_generator_over,
    drives_a_coroutine,
    uses_contexts,
    traces,
    caches,
    is_named,
    reprs_a_shared_list,
]
HEAVY = [recurses_in_c, collects, walks_the_frames_of_another, parks_in_a_finalizer]
RARE = [runs_away]
