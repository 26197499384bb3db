"""One experiment as it was asked for, and what came of it.

A death by signal, a time limit and "this kernel cannot" are outcomes like any other: a lab that measures stack
overflows must be able to write down that one killed its process.
"""

import json
import shlex
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from culm.lab.child import Ended

__all__ = ["Experiment", "Kind", "Outcome", "outcome_of"]

# measured     it ran and printed its result
# unsupported  the strategy or the kernel cannot do it; message says why
# killed       a signal ended it; signal says which, before what it was about to do
# timed out    it was still running at its time limit
# failed       it did not do what it should: an error status, or output that is no result; message says what
# left out     it was not run, because the time of the whole run was used up
Kind = Literal["measured", "unsupported", "killed", "timed out", "failed", "left out"]

_MESSAGE_LENGTH_MAX = 400


@dataclass(frozen=True)
class Experiment:
    """What is asked of the probe."""

    name: str
    strategy: str
    options: Mapping[str, str | int | bool] = field(default_factory=dict)
    seconds_max: float = 20.0

    @property
    def label(self) -> str:
        """EXPERIMENT/STRATEGY, and the options that tell it from other experiments with the same two."""
        options = self.options
        parts = [self.name, self.strategy]
        if "limit" in options and self.name == "idle":
            parts.append(f"{int(options['limit']) >> 10}K")
        if self.name == "switch":
            parts += [str(options[key]) for key in ("switch", "count", "stride") if key in options]
        if options.get("locked"):
            parts.append("locked")
        return "/".join(parts)

    @property
    def arguments(self) -> list[str]:
        """The command line after the name of the program."""
        words = [self.name, "--strategy", self.strategy]
        for key, value in self.options.items():
            if value is True:
                words.append(f"--{key}")
            elif value is not False:
                words += [f"--{key}", str(value)]
        return words


@dataclass(frozen=True)
class Outcome:
    """What came of one experiment."""

    experiment: str
    strategy: str
    options: Mapping[str, str | int | bool]
    kind: Kind
    result: Mapping[str, Any] = field(default_factory=dict)
    before: str | None = None
    signal: str | None = None
    message: str = ""
    command: str = ""
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The same as plain dictionaries, for JSON."""
        return asdict(self)


def outcome_of(experiment: Experiment, ended: Ended, command: list[str]) -> Outcome:
    """Make an outcome of how the probe ended and what it printed."""
    before, result = _lines(ended.stdout)
    kind: Kind
    message = _short(ended.stderr)
    name: str | None = None
    if ended.timed_out:
        kind, message = "timed out", f"still running after {experiment.seconds_max:g} s"
    elif ended.signal is not None:
        kind, name = "killed", _signal_name(ended.signal)
    elif ended.status != 0:
        kind, message = "failed", message or f"exit status {ended.status}"
    elif result is None:
        kind, message = "failed", f"no result in its output: {_short(ended.stdout) or 'nothing'}"
    elif "unsupported" in result:
        kind, message, result = "unsupported", str(result["unsupported"]), None
    else:
        kind = "measured"
    return Outcome(
        experiment=experiment.name,
        strategy=experiment.strategy,
        options=dict(experiment.options),
        kind=kind,
        result=result if kind == "measured" and result is not None else {},
        before=before,
        signal=name,
        message=message,
        command=shlex.join(command),
        seconds=round(ended.seconds, 3),
    )


def _lines(stdout: str) -> tuple[str | None, dict[str, Any] | None]:
    """What the probe printed: what it is about to do, and its result; None for what is not there."""
    before: str | None = None
    result: dict[str, Any] | None = None
    for line in stdout.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if not isinstance(value, dict):
            continue
        if set(value) == {"before"}:
            before = str(value["before"])
        else:
            result = value
    return before, result


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _short(text: str) -> str:
    text = "\n".join(" ".join(line.split()) for line in text.splitlines() if line.strip())
    return text if len(text) <= _MESSAGE_LENGTH_MAX else text[: _MESSAGE_LENGTH_MAX - 1] + "…"
