"""What answers are made of: a question, a short answer, paragraphs with this machine's figures, a plot, the method.

Text is plain, with `code` in backticks. Which sentences an answer has depends on what was measured; where a figure is
missing, its sentence is left out. Invariant: each figure in an answer was measured, except where the answer is marked
as read, not measured.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from culm.lab.canvas import Plot
from culm.lab.outcome import Outcome
from culm.lab.table import Table

__all__ = ["OWN", "Answer", "listed", "names_of", "why_no_result"]

OWN = "arena"


@dataclass(frozen=True)
class Answer:
    """One question of the report."""

    id: str
    question: str
    short: str
    paragraphs: Sequence[str] = field(default_factory=tuple)
    plot: Callable[[], Plot | None] | None = None  # drawn only where it can be shown
    table: Table | None = None
    method: Sequence[str] = field(default_factory=tuple)
    read_not_measured: bool = False


def listed(words: Iterable[str], joint: str = "and") -> str:
    """a; a and b; a, b and c."""
    *most, last = words
    return f"{', '.join(most)} {joint} {last}" if most else last


def names_of(strategies: Iterable[str], joint: str = "and") -> str:
    """Strategies as a list in a sentence, by the names that tables, plots and the command line use."""
    return listed((f"`{each}`" for each in strategies), joint)


def why_no_result(outcome: Outcome | None) -> str:
    """The reason why there is no result, as the end of a sentence."""
    if outcome is None:
        return "the experiment was not part of this run"
    if outcome.kind == "killed":
        return f"the experiment was killed by {outcome.signal}"
    if outcome.kind == "timed out":
        return f"the experiment was {outcome.message}"
    return outcome.message or outcome.kind
