"""Random fibers doing random things, for minutes or hours, each checked against a model of what it should bring back.

    python tests/stress/stress.py --minutes 10                 new seeds, printed
    python tests/stress/stress.py --seed 123 --rounds 1        repeats the round that failed

A round starts some fibers ("actors") whose steps are chosen from its seed: spawn on every stack class, yield, sleep,
park and unpark (also from OS threads), rings and pairs of symmetric switches, cancelling anybody in any state,
recursion in Python and in C until RecursionError, exceptions, generators, contexts, threading.local, garbage
collection, abandoned fibers, blocking calls on sockets, pipes, locks and queues, OS threads that end with fibers
parked, fork(), asyncio. Steps happen inside nested calls of many kinds. A seed always makes the same choices, but
operating system threads interleave differently each time.

Each round must end with: every result as predicted (or Cancelled where somebody cancelled), every value sent received
once, every finally block run, no fiber left, no descriptor left, no unexpected report in sys.unraisablehook, and no
more memory than before. When a round takes longer than a minute the program prints its seed and where each fiber is,
and ends.

Exit status 0 and one line of totals, or 1 and the seed to repeat.
"""

import argparse
import faulthandler
import gc
import os
import random
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import blocking
import looking
import processes
import switching
from world import Actor, Failure, Untaken, World

import culm

ROUND_SECONDS_MAX = 60
WARM_UP_ROUNDS = 40
RESIDENT_KB_SLACK = 60_000
SEED_BITS = 32

KINDS = {
    "light": switching.LIGHT + looking.LIGHT + blocking.LIGHT,
    "heavy": looking.HEAVY + blocking.HEAVY + processes.HEAVY,
    "rare": looking.RARE + processes.RARE,
}


class Reports:
    """What was reported behind the program's back: through sys.unraisablehook and threading.excepthook."""

    def __init__(self) -> None:
        self.untaken: list[int] = []
        self.surprises: list[str] = []
        sys.unraisablehook = self.take_unraisable
        threading.excepthook = self.take_from_thread

    def take_unraisable(self, report: Any) -> None:
        if isinstance(report.exc_value, Untaken):
            self.untaken.append(report.exc_value.args[0])
            return
        # From 3.14 on a generator that runs inside an unreachable fiber is unreachable as well, and the collector may
        # try to close it before the fiber is unwound. That fails harmlessly: unwinding the fiber closes the generator.
        if isinstance(report.exc_value, ValueError) and str(report.exc_value) == "generator already executing":
            return
        lines = traceback.format_exception(report.exc_value)
        self.surprises.append(f"unraisable: {report.err_msg} {report.object!r}\n{''.join(lines)}")

    def take_from_thread(self, report: Any) -> None:
        self.surprises.append("in a thread: " + "".join(traceback.format_exception(report.exc_value)))

    def forget(self) -> None:
        self.untaken.clear()
        self.surprises.clear()


class Watchdog:
    """Ends the program when a round hangs. First prints where each fiber is; then faulthandler ends it, from C."""

    def __init__(self) -> None:
        self.world: World | None = None
        self.round_began = time.monotonic()
        self.watches = threading.Event()
        threading.Thread(target=self.watch, name="watchdog", daemon=True).start()
        self.watches.wait()

    def begin(self, world: World) -> None:
        self.round_began = time.monotonic()
        self.world = world
        faulthandler.dump_traceback_later(ROUND_SECONDS_MAX, exit=True)

    def end(self) -> None:
        self.world = None
        faulthandler.cancel_dump_traceback_later()

    def watch(self) -> None:
        culm.current()  # only a thread that knows culm may look at frames
        self.watches.set()
        while True:
            time.sleep(1)
            world = self.world
            if world is not None and time.monotonic() - self.round_began > ROUND_SECONDS_MAX - 10:
                self.world = None
                print(f"the round with --seed {world.seed} hangs", file=sys.stderr)
                for fiber in gc.get_objects():
                    if isinstance(fiber, culm.Fiber) and fiber.state in ("ready", "running", "parked"):
                        print_fiber(fiber)
                sys.stderr.flush()


def print_fiber(fiber: Any) -> None:
    print(f"--- {fiber!r} waits for {fiber.waiting_for}", file=sys.stderr)
    print("".join(fiber.traceback().format()), file=sys.stderr)


def open_descriptors() -> set[str]:
    names = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            names.add(f"{entry.name} -> {entry.readlink()}")
        except OSError:
            pass  # the descriptor that the listing itself uses, which is closed by now
    return names


def status_kb(field: str) -> int:
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(field):
                return int(line.split()[1])
    raise Failure(f"no {field} in /proc/self/status")


def play(seed: int, reports: Reports, watchdog: Watchdog) -> World:
    """Play one round, from the first spawn to the last check. Raises Failure if a check fails."""
    reports.forget()
    world = World(seed, KINDS)
    watchdog.begin(world)
    threshold = gc.get_threshold()
    if world.rng.random() < 0.3:
        gc.set_threshold(10)
    courier = threading.Thread(target=world.deliver_from_thread, name="courier")
    courier.start()
    try:
        for _ in range(world.rng.choice([1, 3, 10, 30])):
            Actor(world, world.rng.randint(1, 25)).start()
        wait_for_all(world)
    finally:
        world.over = True
        gc.set_threshold(*threshold)
        world.courier.put(None)
        courier.join()
    world.judge_actors()
    settle(world)
    world.judge_books()
    judge_surroundings(world, reports)
    watchdog.end()
    return world


def wait_for_all(world: World) -> None:
    """Wait for all actors and threads. These make more of both, so go on until there is none left to wait for."""
    waited = 0
    while waited < len(world.actors) + len(world.threads):
        waited = len(world.actors) + len(world.threads)
        for actor in list(world.actors):
            actor.fiber.join()
        for thread in list(world.threads):
            while thread.ident is None and thread in threading.enumerate():
                culm.sleep(1e-3)  # the actor was cancelled in start(), and the thread has not begun yet
            if thread.ident is not None:  # otherwise the actor was cancelled before the OS thread was made
                thread.join()
    for fiber in world.owned:
        fiber.join()
        fiber.exception()


def settle(world: World) -> None:
    """Collect abandoned fibers, and let them end."""
    for _ in range(5000):
        gc.collect()
        if not culm.fibers():
            return
        culm.sleep(1e-4)
    raise Failure(f"fibers are left: {culm.fibers()}, {[fiber.traceback() for fiber in culm.fibers()]}")


def judge_surroundings(world: World, reports: Reports) -> None:
    alive = [reference() for reference in world.witnesses if reference() is not None]
    if alive:
        raise Failure(
            f"{len(alive)} locals of abandoned fibers are alive: {[gc.get_referrers(one) for one in alive[:2]]}"
        )
    if reports.surprises:
        raise Failure("\n".join(reports.surprises))
    if sorted(reports.untaken) != sorted(world.untaken):
        raise Failure(f"untaken exceptions {world.untaken}, reported {reports.untaken}")


class Ledger:
    """What must not grow from round to round."""

    def __init__(self) -> None:
        self.rounds = 0
        self.operations: Counter[str] = Counter()
        self.descriptors = open_descriptors()
        self.resident_kb = 0
        self.mappings = 0
        self.peak_resident_kb = 0

    def enter(self, world: World) -> None:
        self.operations += world.operations
        descriptors = open_descriptors()
        if len(descriptors) > len(self.descriptors):
            raise Failure(f"descriptors are left: {descriptors - self.descriptors}")
        with open("/proc/self/maps") as maps:
            mappings = sum(1 for _ in maps)
        resident_kb = status_kb("VmRSS")
        self.peak_resident_kb = max(self.peak_resident_kb, resident_kb)
        self.rounds += 1
        if self.rounds <= WARM_UP_ROUNDS:
            self.resident_kb = max(self.resident_kb, resident_kb)
            self.mappings = max(self.mappings, mappings)
            return
        if resident_kb > self.resident_kb * 1.5 + RESIDENT_KB_SLACK:
            raise Failure(f"memory grows: {resident_kb} KB after {self.resident_kb} KB in the first rounds")
        if mappings > self.mappings * 1.5 + 200:
            raise Failure(f"memory mappings grow: {mappings} after {self.mappings} in the first rounds")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10, help="end after that many minutes (default: 10)")
    parser.add_argument("--rounds", type=int, default=None, help="end after that many rounds, if that is sooner")
    parser.add_argument("--seed", type=int, default=None, help="the first round's seed; the next ones count up")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side (default: 1)")
    return parser.parse_args()


def run(seed: int, minutes: float, rounds: int | None) -> int:
    """Play rounds until the time is over. Return the exit status."""
    faulthandler.enable()
    warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
    culm.patch()
    reports, watchdog, ledger = Reports(), Watchdog(), Ledger()
    first, end = seed, time.monotonic() + minutes * 60
    while time.monotonic() < end and (rounds is None or ledger.rounds < rounds):
        print(f"round --seed {seed}", flush=True)
        try:
            ledger.enter(play(seed, reports, watchdog))
        except BaseException:
            traceback.print_exc()
            print(f"FAILED in round {ledger.rounds + 1}; repeat with --seed {seed} --rounds 1", file=sys.stderr)
            sys.stderr.flush()
            os._exit(1)  # what is left of the round might hang the exit
        seed += 1
    operations = " ".join(f"{name}={count}" for name, count in ledger.operations.most_common())
    print(
        f"ok: {ledger.rounds} rounds, seeds {first} to {seed - 1}, {ledger.operations.total()} operations, "
        f"at most {ledger.peak_resident_kb // 1024} MB resident: {operations}",
        flush=True,
    )
    return 0


def main() -> int:
    chosen = options()
    seed = chosen.seed if chosen.seed is not None else random.SystemRandom().getrandbits(SEED_BITS)
    children = []
    for job in range(1, chosen.jobs):
        pid = os.fork()
        if pid == 0:
            return run(seed + job * 1_000_000, chosen.minutes, chosen.rounds)
        children.append(pid)
    status = run(seed, chosen.minutes, chosen.rounds)
    for pid in children:
        _, ended = os.waitpid(pid, 0)
        status = status or int(ended != 0)
    return status


if __name__ == "__main__":
    sys.exit(main())
