"""Everything one run of the lab found: the machine, what the probe knows, every outcome. Reads and writes the JSON.

Tables, plots and answers are made from this alone, so a report can be made again from the JSON of another machine.
Invariant: a figure that was not measured is None, never zero.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from culm.lab.outcome import Outcome

__all__ = ["FORMAT", "Findings", "FormatError", "Strategy"]

FORMAT = 1


class FormatError(ValueError):
    """A file is not the JSON of a run of the lab. The message says what is wrong with it."""


@dataclass(frozen=True)
class Strategy:
    """A way of allocating stacks, as the probe describes it."""

    id: str
    name: str
    summary: str
    declares: Mapping[str, Any]
    available: bool
    why_not: str | None

    @property
    def limit_bytes_max(self) -> int | None:
        """The largest stack it can make; None if only addresses bound it."""
        largest = self.declares.get("limit_max_bytes")
        return int(largest) if isinstance(largest, int) and largest > 0 else None

    @classmethod
    def read(cls, described: Mapping[str, Any]) -> "Strategy":
        """Make one from what the probe printed about it."""
        identifier = str(described["id"])
        why_not = described.get("why_not")
        return cls(
            id=identifier,
            name=str(described.get("name") or identifier),
            summary=str(described.get("summary") or ""),
            declares=dict(described.get("declares") or {}),
            available=bool(described.get("available", True)),
            why_not=None if why_not is None else str(why_not),
        )


@dataclass(frozen=True)
class Findings:
    """One run."""

    plan: str
    started: str  # ISO 8601, with the zone
    seconds: float
    machine: Mapping[str, Any]
    knowledge: Mapping[str, Any]  # what `culm-stack-probe strategies` printed
    outcomes: Sequence[Outcome]
    fiber: Mapping[str, Any] = field(default_factory=dict)  # see picture.py

    @property
    def strategies(self) -> list[Strategy]:
        """All that the probe listed, in its order."""
        return [Strategy.read(described) for described in self.knowledge["strategies"]]

    @property
    def kernel(self) -> Mapping[str, Any]:
        """What the probe says of the kernel."""
        return self.knowledge.get("kernel") or {}

    @property
    def page_bytes(self) -> int:
        """The size of a page here."""
        return int(self.kernel.get("page_bytes") or 4096)

    def strategy(self, identifier: str) -> Strategy | None:
        """The strategy with this id, or None."""
        return next((each for each in self.strategies if each.id == identifier), None)

    def named(self, experiment: str, strategy: str | None = None, **options: object) -> Iterator[Outcome]:
        """Outcomes of this experiment, with these options where they are given."""
        for outcome in self.outcomes:
            if outcome.experiment != experiment or (strategy is not None and outcome.strategy != strategy):
                continue
            if all(outcome.options.get(key) == value for key, value in options.items()):
                yield outcome

    def outcome(self, experiment: str, strategy: str, **options: object) -> Outcome | None:
        """The first outcome that named() gives, or None."""
        return next(self.named(experiment, strategy, **options), None)

    def number(self, experiment: str, strategy: str, name: str, **options: object) -> float | None:
        """A figure that was measured, or None."""
        outcome = self.outcome(experiment, strategy, **options)
        return None if outcome is None else number_in(outcome.result, name)

    def numbers(self, experiment: str, name: str, **options: object) -> dict[str, float]:
        """A figure of each strategy for which it was measured."""
        found: dict[str, float] = {}
        for outcome in self.named(experiment, None, **options):
            value = number_in(outcome.result, name)
            if value is not None:
                found.setdefault(outcome.strategy, value)
        return found

    def as_dict(self) -> dict[str, Any]:
        """The same as plain dictionaries, for JSON."""
        return {
            "format": FORMAT,
            "plan": self.plan,
            "started": self.started,
            "seconds": self.seconds,
            "machine": dict(self.machine),
            "knowledge": dict(self.knowledge),
            "outcomes": [outcome.as_dict() for outcome in self.outcomes],
            "fiber": dict(self.fiber),
        }

    @classmethod
    def read(cls, document: object) -> "Findings":
        """The opposite of as_dict(). FormatError if `document` is something else."""
        if not isinstance(document, dict) or "outcomes" not in document:
            raise FormatError("it is not the JSON of `culm lab --json`: there is no list of outcomes in it")
        if document.get("format") != FORMAT:
            raise FormatError(f"its format is {document.get('format')!r}; this culm reads format {FORMAT}")
        try:
            found = cls(
                plan=str(document["plan"]),
                started=str(document["started"]),
                seconds=float(document["seconds"]),
                machine=dict(document["machine"]),
                knowledge=dict(document["knowledge"]),
                outcomes=[Outcome(**outcome) for outcome in document["outcomes"]],
                fiber=dict(document["fiber"]),
            )
            found.strategies  # noqa: B018  # reads what the probe printed, which may be damaged too
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"it is damaged: {type(error).__name__}: {error}") from error
        return found


def number_in(result: Mapping[str, Any], name: str) -> float | None:
    """A finite number, or None for everything else."""
    value = result.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)
