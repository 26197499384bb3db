"""What the demo shows: its progress while it runs, its figures when it has ended.

The display is refreshed by a fiber, not by a thread of its own: the process is to have one OS thread.
"""

import time
from collections.abc import Callable, Sequence
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

from culm.cli.demo.course import Course, Figures
from culm.cli.figures import bytes_text, count_text

__all__ = ["Display", "print_figures"]

_REFRESH_SECONDS = 0.2


class Display:
    """Bars for the parts of the course, and the rate of requests."""

    def __init__(self, course: Course) -> None:
        self._course = course
        self._finished = False
        self._progress = Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=40),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            auto_refresh=False,
        )
        self._connected = self._add("Connected", course.clients)
        self._exchanged = self._add("Exchanged messages", course.clients)
        self._at_bottom = self._add("Recursed", course.divers)
        self._surfaced = self._add("Returned", course.clients)
        self._seen = (time.monotonic(), 0)

    def __enter__(self) -> "Display":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finished = True
        self._progress.stop()

    def keep_current(self, sleep: Callable[[float], object]) -> None:
        """Show where the course is until finish() is called."""
        while not self._finished:
            self._show()
            sleep(_REFRESH_SECONDS)

    def finish(self) -> None:
        """Show the end, and let keep_current() return."""
        self._show()
        self._finished = True

    def _add(self, description: str, total: int) -> TaskID:
        return self._progress.add_task(description, total=total, note="")

    def _show(self) -> None:
        course = self._course
        now, requests = time.monotonic(), sum(course.requests)
        then, requests_then = self._seen
        self._seen = (now, requests)
        rate = (requests - requests_then) / (now - then) if now > then else 0.0
        note = f"{count_text(requests)} requests" + (f", {count_text(rate)} a second" if rate else "")
        self._progress.update(self._connected, completed=course.connected.arrived)
        self._progress.update(self._exchanged, completed=course.exchanged.arrived, note=note)
        self._progress.update(self._at_bottom, completed=course.at_bottom.arrived)
        self._progress.update(self._surfaced, completed=course.surfaced.arrived)
        self._progress.refresh()


def print_figures(
    fibers: Figures,
    threads: Figures | str | None,
    depth_bytes: int,
    remarks: Sequence[str],
    console: Console | None = None,
) -> None:
    """Print both sides next to each other."""
    console = console or Console()
    console.print("Echo of 64 bytes over loopback, plain blocking code, client and server in one process:")
    table = Table()
    table.add_column("")
    table.add_column("fibers", justify="right")
    sides = [fibers]
    if isinstance(threads, Figures):
        table.add_column("OS threads", justify="right")
        sides.append(threads)
    for heading, text in _rows(depth_bytes):
        table.add_row(heading, *map(text, sides))
    console.print(table)
    if isinstance(threads, Figures):
        remarks = [
            *remarks,
            "A thread also has a kernel stack, which is not part of these figures. Its switches are the kernel's.",
            *(f"OS threads, {failure}" for failure in threads.failures[:3]),
        ]
    elif threads is not None:
        remarks = [*remarks, f"The same could not be done with OS threads here: {threads}"]
    for remark in remarks:
        console.print(f"- {escape(remark)}", highlight=False)


def _rows(depth_bytes: int) -> list[tuple[str, Callable[[Figures], str]]]:
    return [
        ("Clients", lambda side: count_text(side.clients)),
        ("Fibers or threads at once", lambda side: count_text(side.flows)),
        ("OS threads", lambda side: count_text(side.os_threads)),
        ("Memory mappings", lambda side: count_text(side.mappings)),
        ("Requests per second", lambda side: count_text(side.requests_per_second)),
        ("Switches per second", lambda side: count_text(side.switches_per_second)),
        ("Resident each, at rest", lambda side: bytes_text(side.rest_bytes)),
        ("  of which its stack", lambda side: _or_dash(side.rest_stack_bytes)),
        (f"Resident each, {bytes_text(depth_bytes)} deep", lambda side: _or_dash(side.peak_bytes)),
        ("Recursed at the same time", lambda side: count_text(side.divers)),
        ("Resident each, after it", lambda side: bytes_text(side.after_bytes)),
        ("  of which its stack", lambda side: _or_dash(side.after_stack_bytes)),
    ]


def _or_dash(count: float | None) -> str:
    return "-" if count is None else bytes_text(count)
