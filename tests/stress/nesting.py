"""Ways to be deep inside something when a switch happens: Python and C calls, handlers, generators, contexts.

Each calls `inner` once and returns what it returned. Their frames stay on the fiber's stack while it is parked.
Invariant: `inner` runs with the actor's own context and owner.
"""

import contextlib
import contextvars
import functools
import sys
from collections.abc import Callable, Iterator

from world import KB, Actor

Inner = Callable[[], int]


def by_recursion(actor: Actor, inner: Inner) -> int:
    def descend(depth: int) -> int:
        return descend(depth - 1) if depth else inner()

    return descend(actor.rng.randint(0, 60))


def by_sorting(actor: Actor, inner: Inner) -> int:
    """C frames: sorted() calls back, and so on."""
    result: list[int] = []

    def descend(depth: int) -> int:
        if depth:
            sorted([0], key=lambda _: descend(depth - 1))
        else:
            result.append(inner())
        return 0

    descend(actor.rng.randint(1, 12 if actor.limit > 256 * KB else 2))
    return result[0]


def by_handler(actor: Actor, inner: Inner) -> int:
    mine = KeyError(actor.number)
    try:
        raise mine
    except KeyError:
        result = inner()
        actor.check(sys.exc_info()[1] is mine, "a handler lost its exception")
    return result


def by_generator(actor: Actor, inner: Inner) -> int:
    def produce() -> Iterator[int]:
        yield inner()

    return next(produce())


def by_delegation(actor: Actor, inner: Inner) -> int:
    def produce() -> Iterator[int]:
        yield inner()

    def delegate(depth: int) -> Iterator[int]:
        yield from delegate(depth - 1) if depth else produce()

    return sum(delegate(actor.rng.randint(0, 5)))


def by_context(actor: Actor, inner: Inner) -> int:
    return contextvars.copy_context().run(inner)


def by_map(actor: Actor, inner: Inner) -> int:
    return sum(map(lambda _: inner(), [0]))


def by_reduce(actor: Actor, inner: Inner) -> int:
    return functools.reduce(lambda total, _: total + inner(), [1], 0)


def by_comparing(actor: Actor, inner: Inner) -> int:
    result: list[int] = []

    class Compared:
        def __eq__(self, other: object) -> bool:
            result.append(inner())
            return True

        __hash__ = None  # type: ignore[assignment]

    actor.check([Compared()] == [0], "a comparison went wrong")
    return result[0]


def by_with(actor: Actor, inner: Inner) -> int:
    left: list[bool] = []

    @contextlib.contextmanager
    def surrounding() -> Iterator[None]:
        try:
            yield
        finally:
            left.append(True)

    try:
        with surrounding():
            return inner()
    finally:
        actor.check(left == [True], "a with statement was not left")


def by_finally(actor: Actor, inner: Inner) -> int:
    left: list[bool] = []

    def leave() -> None:
        left.append(True)

    try:
        try:
            return inner()
        finally:
            leave()
    finally:
        actor.check(left == [True], "a function called by a finally block did not run")


KINDS = [
    by_recursion,
    by_sorting,
    by_handler,
    by_generator,
    by_delegation,
    by_context,
    by_map,
    by_reduce,
    by_comparing,
    by_with,
    by_finally,
]


def nest(actor: Actor, inner: Inner) -> int:
    kind = actor.rng.choice(KINDS)
    if actor.limit < 256 * KB:
        kind = actor.rng.choice([by_recursion, by_handler, by_generator, by_with, by_finally])
    actor.operations[kind.__name__] += 1
    return kind(actor, inner)
