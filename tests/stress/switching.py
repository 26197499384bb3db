"""Steps that switch: yields, sleeps, park and unpark, rings and pairs, children, cancelling, abandoned fibers.

Invariant: each brings its token back through another fiber, or leaves only fibers that end by themselves.
"""

import gc
import weakref
from typing import Any

from world import STACK_LIMITS, Actor, Failure, Untaken, Witness, World

import culm
from culm import lowlevel


def yields(actor: Actor, token: int) -> int:
    for _ in range(actor.rng.randint(1, 5)):
        culm.yield_now()
    return token


def sleeps(actor: Actor, token: int) -> int:
    culm.sleep(actor.rng.choice([0, 0, 1e-6, 1e-4, 1e-3]))
    return token


def parks_for_a_while(actor: Actor, token: int) -> int:
    try:
        sequence, _ = lowlevel.park(timeout=actor.rng.choice([0, 1e-5, 1e-3]))
    except TimeoutError:
        return token
    actor.note_received(sequence)  # a value that an earlier, cancelled wait did not get
    return token


def is_unparked(actor: Actor, token: int) -> int:
    sequence = actor.await_value()
    culm.spawn(actor.send, sequence, token, stack_limit=actor.rng.choice(STACK_LIMITS))
    for _ in range(actor.rng.randint(0, 2)):
        culm.yield_now()  # the value may come before the park
    return actor.receive(sequence)


def is_unparked_by_a_thread(actor: Actor, token: int) -> int:
    sequence = actor.await_value()
    actor.world.courier.put((actor, sequence, token))
    return actor.receive(sequence)


def switches_in_a_ring(actor: Actor, token: int) -> int:
    """Fibers that switch to each other in turn; the last of them unparks the actor."""
    sequence = actor.await_value()
    turns = actor.rng.randint(1, 20)
    count = actor.rng.randint(2, 6)
    ring: list[Any] = []
    done: list[int] = []

    def member(position: int) -> None:
        value = token if position == 0 else received[position]
        while len(done) < turns:
            done.append(position)
            target = ring[(position + 1) % count]
            if target.state == "new":
                received[(position + 1) % count] = value
                value = lowlevel.switch(target)
            elif target.state == "finished":
                break
            else:
                value = lowlevel.switch(target, value)
        if not delivered:
            delivered.append(True)
            actor.send(sequence, value if value is not None else token)
        for other in ring:
            if other.state == "parked" and other.waiting_for == "unpark":
                try:
                    lowlevel.unpark(other, value)
                except RuntimeError as error:
                    if "on its way" not in str(error):
                        raise

    received: dict[int, Any] = {}
    delivered: list[bool] = []
    ring.extend(
        lowlevel.Fiber(member, position, stack_limit=actor.rng.choice(STACK_LIMITS)) for position in range(count)
    )
    ring[0].start()
    came_back = actor.receive(sequence)
    for fiber in ring:
        if fiber.state != "new":
            fiber.result()
        else:
            fiber.cancel()
    return came_back


def converses(actor: Actor, token: int) -> int:
    """Two fibers that switch to each other, as a generator and its consumer do. If cancelled, abandon the other."""
    if actor.awaited:
        return token  # the value that an earlier, cancelled wait did not get would arrive between the switches
    me = culm.current()
    number = ghost_number(actor.world)

    def other() -> None:
        actor.world.ghosts_begun.append(number)
        try:
            value = 0
            while value is not None:
                value = lowlevel.switch(me, value + 1)
            lowlevel.unpark(me, "end")
        except RuntimeError:
            if not actor.cancels or me.state != "ready":
                raise  # else: it was cancelled from another thread in this moment
        finally:
            actor.world.ghosts_ended.append(number)

    partner = lowlevel.Fiber(other, stack_limit=actor.rng.choice(STACK_LIMITS))
    first = lowlevel.switch(partner)
    actor.check(first == 1, f"a conversation began with {first}")
    for _ in range(actor.rng.randint(0, 10)):
        came_back = lowlevel.switch(partner, token)
        actor.check(came_back == token + 1, f"a conversation answered {came_back}")
    end = lowlevel.switch(partner, None)
    actor.check(end == "end", f"a conversation ended with {end}")
    partner.result()
    return token


def has_a_child(actor: Actor, token: int) -> int:
    if actor.level > 2:
        return token
    child = actor.child(actor.rng.randint(0, 4)).start()
    if actor.rng.random() < 0.3:
        child.fiber.join(timeout=actor.rng.choice([0, 1e-4]))
    if actor.rng.random() < 0.3:
        return token  # not waited for
    child.fiber.join()
    actor.world.judge(child)
    return token


def cancels_another(actor: Actor, token: int) -> int:
    if actor.rng.random() < 0.3:
        actor.world.some_actor(actor.rng).cancel()
    return token


def cancels_itself(actor: Actor, token: int) -> int:
    if actor.resilient and actor.rng.random() < 0.3:
        actor.cancel()
        culm.yield_now()
    return token


def cancels_in_each_state(actor: Actor, token: int) -> int:
    ran: list[str] = []

    def body() -> None:
        ran.append("begun")
        try:
            lowlevel.park()
        finally:
            ran.append("ended")

    new = lowlevel.Fiber(body)
    ready = culm.spawn(body, stack_limit=actor.rng.choice(STACK_LIMITS))
    for fiber in (new, ready):
        actor.check(fiber.cancel(), f"{fiber!r} could not be cancelled")
    parked = culm.spawn(body, stack_limit=actor.rng.choice(STACK_LIMITS))
    while parked.state == "ready":
        culm.yield_now()
    parked.cancel()
    for fiber in (new, ready, parked):
        actor.check(isinstance(fiber.exception(), culm.Cancelled), f"{fiber!r} ended with {fiber.exception()!r}")
        actor.check(fiber.cancel() is False, "a finished fiber was cancelled")
    actor.check(ran == ["begun", "ended"], f"cancelled fibers ran as {ran}")
    return token


def ghost_number(world: World) -> int:
    return next(world.numbers)


def ghost(world: World, number: int, kind: str, *kept_alive: object) -> None:
    """A fiber that nobody will ever wake: its finally block must run nevertheless."""
    witness = Witness()
    world.witnesses.append(weakref.ref(witness))
    world.ghosts_begun.append(number)
    try:
        if kind == "sorted":
            sorted([0], key=lambda _: lowlevel.park())
        elif kind == "handler":
            try:
                raise KeyError(number)
            except KeyError:
                lowlevel.park()
        elif kind == "generator":
            next(park() for park in [lowlevel.park])
        else:
            lowlevel.park()
    except culm.FiberExit:
        pass
    finally:
        if kind == "sleeps":
            culm.sleep(1e-4)
        if kind == "yields":
            culm.yield_now()
        world.ghosts_ended.append(number)


GHOST_KINDS = ["plain", "sorted", "handler", "generator", "sleeps", "yields"]


def abandons(actor: Actor, token: int) -> int:
    """Drops the last reference to parked fibers, alone or in a cycle, before or after they have started."""
    kind = actor.rng.choice(GHOST_KINDS)
    friends: list[object] = []
    for _ in range(actor.rng.randint(1, 4)):
        friends.append(
            culm.spawn(
                ghost, actor.world, ghost_number(actor.world), kind, friends, stack_limit=actor.rng.choice(STACK_LIMITS)
            )
        )
    if actor.rng.random() < 0.5:
        culm.yield_now()
    if actor.rng.random() < 0.5:
        friends.clear()
        culm.yield_now()
    if actor.rng.random() < 0.2:
        gc.collect()
    return token


def never_starts(actor: Actor, token: int) -> int:
    fibers = [lowlevel.Fiber(print, "this must not run") for _ in range(3)]
    fibers.append(lowlevel.Fiber(print, fibers))
    reference = weakref.ref(fibers[0])
    del fibers
    gc.collect(0)
    left = reference()
    actor.check(left is None or left.state == "new", f"{left!r} was never started")
    return token


def fails_untaken(actor: Actor, token: int) -> int:
    """A failed fiber whose exception nobody takes is reported once."""

    def fail() -> None:
        actor.world.untaken.append(token)
        raise Untaken(token)

    culm.spawn(fail, stack_limit=actor.rng.choice(STACK_LIMITS))
    culm.yield_now()
    return token


def fails_taken(actor: Actor, token: int) -> int:
    def fail() -> None:
        culm.yield_now()
        raise ValueError(token)

    fiber = culm.spawn(fail, stack_limit=actor.rng.choice(STACK_LIMITS))
    actor.world.owned.append(fiber)  # keeps it, in case this actor ends before it asks for the outcome
    try:
        fiber.result()
    except ValueError as error:
        return int(error.args[0])
    raise Failure("a failed fiber had a result")


LIGHT = [
    yields,
    sleeps,
    parks_for_a_while,
    is_unparked,
    is_unparked_by_a_thread,
    switches_in_a_ring,
    converses,
    has_a_child,
    cancels_another,
    cancels_itself,
    cancels_in_each_state,
    abandons,
    never_starts,
    fails_untaken,
    fails_taken,
]
