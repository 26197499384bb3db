"""One run of the lab: every experiment of the plan in a child, the picture of a real fiber, progress while it goes on.

Invariant: the run changes no setting of the machine, and whatever ends it (an error, Ctrl-C, SIGTERM, SIGKILL) no
child of it goes on and no file is left: what is written is written at the very end, by publish.py.
"""

import platform
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from culm.cli.doctor import examine
from culm.cli.machine import read_text
from culm.lab.findings import Findings
from culm.lab.outcome import Experiment, Outcome
from culm.lab.picture import draw_fiber
from culm.lab.plan import Plan
from culm.lab.probe import Probe

__all__ = ["Interrupted", "interruptible", "run_session"]


class Interrupted(BaseException):
    """A signal asked the lab to end.

    Derives from BaseException, like KeyboardInterrupt, so that no `except Exception` on its way handles it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise Interrupted at the first signal that would end the program. Later ones are ignored: the lab cleans up."""
    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number)
        is not signal.SIG_IGN  # it is when a shell runs this in the background, or nohup does
    ]

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(number)

    previous = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def run_session(
    probe: Probe,
    knowledge: dict[str, Any],
    plan: Plan,
    experiments: Sequence[Experiment],
    *,
    with_fiber: bool,
    console: Console,
) -> Findings:
    """Run all experiments and return what was found. Shows its progress on `console`."""
    started, clock = datetime.now().astimezone(), time.monotonic()
    deadline = clock + plan.seconds_max
    outcomes: list[Outcome] = []
    with _progress(console, len(experiments) + with_fiber) as progress:
        # The fiber comes first, because it takes little time and the report gives it the most room.
        fiber = {}
        if with_fiber:
            progress.begin("a real fiber")
            fiber = draw_fiber()
            progress.end("a real fiber")
        for experiment in experiments:
            progress.begin(experiment.label)
            late = time.monotonic() >= deadline
            outcome = _left_out(experiment, plan) if late else probe.run(experiment)
            outcomes.append(outcome)
            progress.end(f"{experiment.label}: {outcome.kind}")
    return Findings(
        plan=plan.name,
        started=started.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - clock, 1),
        machine=_machine(),
        knowledge=knowledge,
        outcomes=outcomes,
        fiber=fiber,
    )


def _left_out(experiment: Experiment, plan: Plan) -> Outcome:
    message = (
        f"the {plan.seconds_max:g} s of a {plan.name} run were used up; --full has more time, --only runs some of them"
    )
    return Outcome(experiment.name, experiment.strategy, dict(experiment.options), "left out", message=message)


class _Lines:
    """Prints a line for each step. Used where the output is no terminal."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._done = 0

    def begin(self, what: str) -> None:
        pass

    def end(self, what: str) -> None:
        self._done += 1
        self._console.print(f"[{self._done}/{self._total}] {what}", markup=False, highlight=False, soft_wrap=True)


class _Bar:
    """Shows a bar and what is being done. Each step draws it: the lab forks, so it has no thread that could."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=total)

    def begin(self, what: str) -> None:
        self._progress.update(self._task, description=what)
        self._progress.refresh()

    def end(self, what: str) -> None:
        self._progress.update(self._task, advance=1)
        self._progress.refresh()


@contextmanager
def _progress(console: Console, total: int) -> Iterator[_Lines | _Bar]:
    if not console.is_terminal:
        yield _Lines(console, total)
        return
    columns = (BarColumn(bar_width=30), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as progress:
        yield _Bar(progress, total)


def _machine() -> dict[str, Any]:
    """What `culm doctor` knows, and the processor. Where /proc is hidden, as much of it as can be found out."""
    try:
        described = examine().as_dict()
    except (OSError, KeyError, ValueError) as error:
        described = {"versions": {}, "kernel": {}, "limits": {}, "unknown": f"{type(error).__name__}: {error}"}
    return {**described, "system": f"Linux {platform.release()}", "processor": _processor()}


def _processor() -> str:
    for line in (read_text("/proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model"):
            return value.strip()
    return platform.machine()
