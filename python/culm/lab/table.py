"""The tables of the lab: a row for each strategy, a column for each property, a table for each group of questions.

They are made here once, of headings and of cells with a text and a tone; the terminal and the report only lay them out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from culm.cli.figures import bytes_text, count_text, duration_text, ratio_text
from culm.lab import verdict
from culm.lab.findings import Findings, Strategy, number_in
from culm.lab.outcome import Outcome
from culm.lab.plan import DEFAULT_LIMIT
from culm.lab.verdict import Verdict

__all__ = ["Column", "Table", "all_tables", "answer_table", "unavailable"]


@dataclass(frozen=True)
class Column:
    """A heading, and whether figures stand below it."""

    heading: str
    is_figure: bool = True

    @property
    def is_declared(self) -> bool:
        """Whether it shows what the strategies declare, not what was measured. Such headings end with a star."""
        return self.heading.endswith("*")


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first cell of a row names what the row is about."""

    id: str
    title: str
    about: str  # one line: what was measured, and how to read it
    columns: Sequence[Column]
    rows: Sequence[Sequence[Verdict]]


Cell = Callable[[Findings, Strategy], Verdict]


def all_tables(findings: Findings) -> list[Table]:
    """All tables in which at least one row has something that was measured."""
    tables = [
        _by_strategy(findings, *definition)
        for definition in (_safety(), _space(findings), _time(), _shrink(findings), _after_fork())
    ]
    tables += [_switches(findings)]
    return [table for table in tables if table.rows]


def answer_table(findings: Findings) -> Table:
    """The table that the report opens with: the properties that decide between strategies."""
    return _by_strategy(
        findings,
        "answer",
        "The strategies, by what decides",
        "",
        [
            (Column("Small overflow", False), _overflow("overflow-small")),
            (Column("Kernel writes first", False), _kernel_write),
            (Column("Stacks possible"), _ceiling),
            (Column("Idle stack"), _idle_total(DEFAULT_LIMIT)),
            (Column("Grow a page"), _duration("growth", "ns_per_page")),
            (Column("Reuse"), _duration("lifecycle", "reuse_ns")),
        ],
    )


def unavailable(findings: Findings) -> list[Strategy]:
    """The strategies that this machine cannot have."""
    return [strategy for strategy in findings.strategies if not strategy.available]


_Definition = tuple[str, str, str, list[tuple[Column, Cell]]]


def _by_strategy(
    findings: Findings, identifier: str, title: str, about: str, columns: list[tuple[Column, Cell]]
) -> Table:
    rows = []
    for strategy in findings.strategies:
        cells = [cell(findings, strategy) for _, cell in columns]
        says_something = any(
            cell.text not in _EMPTY for (column, _), cell in zip(columns, cells, strict=True) if not column.is_declared
        )
        if strategy.available and says_something:
            rows.append([Verdict(strategy.id, "none", f"{strategy.name}: {strategy.summary}"), *cells])
    headings = [Column("Strategy", False), *(column for column, _ in columns)]
    # With --only most columns would be empty.
    kept = [index for index in range(len(headings)) if any(row[index] != verdict.UNKNOWN for row in rows)]
    return Table(
        identifier, title, about, [headings[index] for index in kept], [[row[index] for index in kept] for row in rows]
    )


_EMPTY = (verdict.UNKNOWN.text, "does not apply")


def _safety() -> _Definition:
    return (
        "safety",
        "Is it safe?",
        (
            "Each in a process of its own. Caught: the overflow ended that process before it did harm. A large "
            "overflow is one step of 64 KB. Kernel: read() into stack that was not touched yet, called by a "
            "function, directly, and with only a part of the buffer there."
        ),
        [
            (Column("Small overflow", False), _overflow("overflow-small")),
            (Column("64 KB overflow", False), _overflow("overflow-large")),
            (Column("Kernel writes first", False), _kernel_write),
            (Column("Guard after fork", False), lambda f, s: verdict.fork_guard(f.outcome("fork", s.id))),
            (Column("Strict overcommit*", False), _declared("works_under_strict_overcommit")),
            (Column("Carries Python*", False), _declared("carries_python")),
        ],
    )


def _space(findings: Findings) -> _Definition:
    limits = sorted({int(outcome.options["limit"]) for outcome in findings.named("idle", "arena")})
    columns: list[tuple[Column, Cell]] = [
        (Column("Mappings each"), _number("lifecycle", "mappings_per_stack", _mappings_text)),
        (Column("Stacks until"), _ceiling),
    ]
    columns += [(Column(f"Idle, {bytes_text(limit)}"), _idle_total(limit)) for limit in _few(limits)]
    return (
        "space",
        "How much room does it take?",
        (
            "Stacks until: how many could be made, and the error that ended it. Idle: memory and page tables of a "
            "parked stack that used 1 KB, by its limit."
        ),
        columns,
    )


def _mappings_text(count: float) -> str:
    # A mapping that a strategy needs once is divided by the number of stacks too, which leaves a small fraction.
    return f"{count:.0f}" if abs(count - round(count)) < 0.05 else f"{count:.1f}"


def _few(limits: list[int]) -> list[int]:
    """At most four of them, the smallest and the largest included."""
    return limits if len(limits) <= 4 else [limits[0], *limits[1:-1][:: max(1, (len(limits) - 2) // 2)][:2], limits[-1]]


def _time() -> _Definition:
    return (
        "time",
        "What does it cost in time?",
        (
            "Medians. First touch: the first byte of a new stack. Reuse: taken from a warm pool and put back. Growth: "
            "each further page; the ratio is to a plain mmap touched page by page in the same run."
        ),
        [
            (Column("Create"), _duration("lifecycle", "create_ns")),
            (Column("First touch"), _duration("lifecycle", "first_touch_ns")),
            (Column("Reuse"), _duration("lifecycle", "reuse_ns")),
            (Column("Destroy"), _duration("lifecycle", "destroy_ns")),
            (Column("Grow a page"), _duration("growth", "ns_per_page")),
            (Column("of plain mmap"), _number("growth", "ratio", lambda n: f"{ratio_text(n)} x")),
        ],
    )


def _shrink(findings: Findings) -> _Definition:
    sizes = sorted({size for outcome in findings.named("shrink") for size in batch_sizes(outcome)})
    shown = [sizes[0], sizes[len(sizes) // 2], sizes[-1]] if len(sizes) > 3 else sizes
    columns: list[tuple[Column, Cell]] = [
        (Column("One by one, a page"), _duration("shrink", "single_ns_per_page")),
        *((Column(f"{size:,} at once, a page"), _batch(size)) for size in shown),
        (Column("Nothing to give, a stack"), _duration("shrink", "empty_ns_per_stack")),
        (Column("Given back"), _number("shrink", "bytes_returned_share", lambda n: f"{100 * n:.0f}%")),
    ]
    return (
        "shrink",
        "What does shrinking cost?",
        (
            "Giving the unused pages of parked stacks back: one call for each stack, or one call for many. The last "
            "column says how much of it the kernel really took."
        ),
        columns,
    )


def _after_fork() -> _Definition:
    return (
        "fork",
        "What does fork cost?",
        (
            "fork() with that many stacks alive, each with one page in use; then the parent pays for each page it "
            "writes again."
        ),
        [
            (Column("Stacks"), _number("fork", "stacks", count_text)),
            (Column("fork()"), _duration("fork", "fork_ns")),
            (Column("for each stack"), _duration("fork", "fork_ns_per_stack")),
            (Column("a page written after"), _duration("fork", "parent_cow_ns_per_page")),
        ],
    )


def _switches(findings: Findings) -> Table:
    outcomes = [outcome for outcome in findings.named("switch") if outcome.kind == "measured"]
    counts = sorted({int(outcome.options["count"]) for outcome in outcomes})
    if len(counts) > 5:
        counts = sorted({counts[0], *(count for count in counts if count in (100, 1_000, 10_000)), counts[-1]})
    rows: dict[tuple[str, str], list[Verdict]] = {}
    for outcome in outcomes:
        rows.setdefault((str(outcome.options["switch"]), str(outcome.options["stride"])), [])
    for (switch, stride), cells in rows.items():
        cells.append(Verdict(f"{switch}, {stride_text(stride)}"))
        for count in counts:
            ns = findings.number("switch", "arena", "ns_per_switch", switch=switch, stride=stride, count=count)
            cells.append(verdict.UNKNOWN if ns is None else Verdict(duration_text(ns)))
    return Table(
        "switch",
        "What does a switch cost?",
        "Round robin over that many live stacks. The stride is the distance from one stack to the next.",
        [Column("Switch, stride", False), *(Column(f"{count:,} stacks") for count in counts)],
        list(rows.values()),
    )


def stride_text(stride: str) -> str:
    """The option as words."""
    return {"odd": "odd number of pages", "power-of-two": "power of two"}.get(stride, stride)


def batch_sizes(outcome: Outcome) -> list[int]:
    """How many ranges a call gave back, for each size that was tried."""
    return [int(batch["ranges"]) for batch in outcome.result.get("batches") or [] if "ranges" in batch]


def _overflow(experiment: str) -> Cell:
    return lambda findings, strategy: verdict.overflow(findings.outcome(experiment, strategy.id))


def _kernel_write(findings: Findings, strategy: Strategy) -> Verdict:
    return verdict.kernel_write(findings.outcome("kernel-write", strategy.id))


def _ceiling(findings: Findings, strategy: Strategy) -> Verdict:
    return verdict.ceiling(findings.outcome("ceiling", strategy.id))


def _declared(trait: str) -> Cell:
    def cell(findings: Findings, strategy: Strategy) -> Verdict:
        value = strategy.declares.get(trait)
        if value is None:
            return verdict.UNKNOWN
        if isinstance(value, bool):
            return Verdict("yes" if value else "no", "good" if value else "none")
        if value == "charged in full":
            return Verdict("charged", "fair", "each stack counts with its whole limit")
        return Verdict(str(value), {"yes": "good", "no": "bad"}.get(str(value), "fair"))  # type: ignore[arg-type]

    return cell


def _number(experiment: str, name: str, written: Callable[[float], str]) -> Cell:
    def cell(findings: Findings, strategy: Strategy) -> Verdict:
        outcome = findings.outcome(experiment, strategy.id)
        value = None if outcome is None else number_in(outcome.result, name)
        return _absent(outcome) if value is None else Verdict(written(value))

    return cell


def _duration(experiment: str, name: str) -> Cell:
    return _number(experiment, name, duration_text)


def _batch(size: int) -> Cell:
    def cell(findings: Findings, strategy: Strategy) -> Verdict:
        outcome = findings.outcome("shrink", strategy.id)
        if outcome is None or outcome.kind != "measured":
            return _absent(outcome)
        for batch in outcome.result.get("batches") or []:
            if batch.get("ranges") == size and (ns := number_in(batch, "ns_per_page")) is not None:
                return Verdict(duration_text(ns))
        return verdict.UNKNOWN

    return cell


def _idle_total(limit: int) -> Cell:
    def cell(findings: Findings, strategy: Strategy) -> Verdict:
        outcome = findings.outcome("idle", strategy.id, limit=limit)
        total = None if outcome is None else idle_bytes(outcome)
        return _absent(outcome) if total is None else Verdict(bytes_text(total))

    return cell


def idle_bytes(outcome: Outcome) -> float | None:
    """Memory and page tables of an idle stack."""
    resident = number_in(outcome.result, "rss_bytes_per_stack")
    tables = number_in(outcome.result, "page_table_bytes_per_stack")
    return None if resident is None else resident + (tables or 0)


def _absent(outcome: Outcome | None) -> Verdict:
    """The cell for a figure that is not there; it says why."""
    if outcome is None or outcome.kind == "measured":
        return verdict.UNKNOWN
    if outcome.kind == "unsupported":
        return Verdict("does not apply", "none", outcome.message)
    if outcome.kind == "killed":
        return Verdict(f"killed by {outcome.signal}", "bad", outcome.before or outcome.message)
    return Verdict(outcome.kind, "fair", outcome.message)
