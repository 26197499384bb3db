"""`culm demo`: ten thousand connections in plain blocking style on one OS thread, then the same with OS threads.

The job itself is course.py, the same code for both. This module fits it to the machine, runs it on fibers here and on
threads in a process of its own, and hands the figures to report.py.
"""

import sys
from dataclasses import dataclass

import culm
from culm.cli.demo.course import Course, Crew, Dive, Figures, descend
from culm.cli.demo.report import Display, print_figures
from culm.cli.demo.threads import run_on_threads
from culm.cli.machine import available_memory_bytes, has_proc, open_descriptors, raise_descriptor_limit

__all__ = ["Plan", "run_demo"]

_DIVERS = 1000
_THREAD_CLIENTS = 2000
_THREAD_SECONDS = 4.0
_SPARE_DESCRIPTORS = 64
_LEVELS_MAX = 2000
_LEVELS_STEP = 10


@dataclass(frozen=True)
class Plan:
    """What was asked for on the command line."""

    clients: int
    seconds: float
    depth_bytes: int
    with_threads: bool


def run_demo(plan: Plan) -> int:
    """Run the demo and print its figures; returns the exit status."""
    if not has_proc():
        raise SystemExit("culm demo: it measures memory through /proc, which is not mounted (mount -t proc proc /proc)")
    remarks: list[str] = []
    clients = _clients_that_fit(plan.clients, remarks)
    divers = _divers_that_fit(min(_DIVERS, clients), plan.depth_bytes, remarks)
    sys.setrecursionlimit(max(sys.getrecursionlimit(), 10 * _LEVELS_MAX))
    culm.patch()
    figures, levels = culm.run(_run_on_fibers, plan, clients, divers)
    remarks += figures.failures[:5]
    threads: Figures | str | None = None
    if plan.with_threads:
        threads = run_on_threads(
            clients=min(_THREAD_CLIENTS, clients),
            divers=divers,
            levels=levels,
            seconds=min(_THREAD_SECONDS, plan.seconds),
        )
    print_figures(figures, threads, plan.depth_bytes, remarks)
    return 1 if figures.failures else 0


def _run_on_fibers(plan: Plan, clients: int, divers: int) -> tuple[Figures, int]:
    levels = culm.spawn(_levels_for, plan.depth_bytes, name="probe").result()
    crew = Crew(
        spawn=culm.spawn,
        switches=lambda: culm.statistics().switches,
        give_memory_back=culm.trim,
        stack_bytes=_average_stack_bytes,
    )
    course = Course(clients=clients, divers=divers, levels=levels, seconds=plan.seconds, crew=crew)
    with Display(course) as display:
        painter = culm.spawn(display.keep_current, culm.sleep, name="display")
        figures = course.run()
        display.finish()
        painter.join()
    return figures, levels


def _levels_for(depth_bytes: int) -> int:
    """How many levels of descend() bring `depth_bytes` of the running fiber's stack into memory."""
    resident = 0

    def measure() -> None:
        nonlocal resident
        resident = culm.current().stack.resident

    levels = 0
    while resident < depth_bytes and levels < _LEVELS_MAX:
        levels += _LEVELS_STEP
        descend(Dive(levels, measure))
    return levels


def _average_stack_bytes() -> float | None:
    resident = [fiber.stack.resident for fiber in culm.fibers() if not fiber.is_main]
    return sum(resident) / len(resident) if resident else None


def _clients_that_fit(wanted: int, remarks: list[str]) -> int:
    """Raise the limit on open files as far as `wanted` clients need, two descriptors each; return how many then fit."""
    needed = 2 * wanted + open_descriptors() + _SPARE_DESCRIPTORS
    limit = raise_descriptor_limit(needed)
    if limit >= needed:
        return wanted
    fitting = (limit - open_descriptors() - _SPARE_DESCRIPTORS) // 2
    if fitting < 1:
        raise SystemExit(f"culm demo: the limit of {limit} open files leaves no room for a connection (ulimit -n)")
    remarks.append(
        f"{fitting:,} clients instead of {wanted:,}: the limit on open files is {limit:,} and may not be raised "
        f"(needed: {needed:,}; ulimit -Hn)"
    )
    return fitting


def _divers_that_fit(wanted: int, depth_bytes: int, remarks: list[str]) -> int:
    """How many may recurse: all are at their deepest at the same time, which may take half of the free memory."""
    fitting = max(1, available_memory_bytes() // 2 // depth_bytes)
    if fitting >= wanted:
        return wanted
    remarks.append(f"{fitting:,} instead of {wanted:,} recurse: there is not enough free memory for all of them")
    return fitting
