"""The three sentences that the report opens with: what is best here, what it costs, what is wrong with the rest."""

from culm.cli.figures import bytes_text, count_text, duration_text, ratio_text
from culm.lab import verdict
from culm.lab.answers.prose import OWN, listed, names_of
from culm.lab.findings import Findings, number_in
from culm.lab.plan import DEFAULT_LIMIT
from culm.lab.table import idle_bytes

__all__ = ["three_sentences"]


def three_sentences(findings: Findings) -> list[str]:
    """The three sentences, or fewer if hardly anything was measured."""
    return [text for text in (_which(findings), _cost(findings), _rest(findings)) if text]


def _faults(findings: Findings, strategy: str) -> set[str]:
    """What was found to be wrong with the strategy on this machine."""
    faults = set()
    if verdict.overflow(findings.outcome("overflow-small", strategy)).text == "not caught":
        faults.add("overflow")
    if verdict.kernel_write(findings.outcome("kernel-write", strategy)).tone == "bad":
        faults.add("kernel")
    ceiling = findings.outcome("ceiling", strategy)
    if ceiling is not None and ceiling.result.get("stopped_by") == "error":
        faults.add("ceiling")
    return faults


def _measured(findings: Findings) -> list[str]:
    decided = {outcome.strategy for outcome in findings.outcomes if outcome.kind in ("measured", "killed")}
    return [strategy.id for strategy in findings.strategies if strategy.id in decided]


def _which(findings: Findings) -> str:
    if OWN not in _measured(findings):
        return ""
    faults = _faults(findings, OWN)
    name = names_of([OWN])
    if not faults:
        caught = verdict.overflow(findings.outcome("overflow-small", OWN)).text == "caught"
        guarded = " whose end is guarded" if caught else ""
        return (
            f"Reserve addresses once, cut them into stacks{guarded}, and let the kernel put in a page when one is "
            f"touched: on this machine the strategy {name} passed every test of safety."
        )
    meaning = {
        "overflow": "an overflow was not caught",
        "kernel": "the kernel could not write into new stack",
        "ceiling": "the number of stacks has a ceiling",
    }
    return (
        f"On this machine even {name}, culm's own strategy, has a flaw: "
        f"{listed(meaning[each] for each in sorted(faults))}."
    )


def _cost(findings: Findings) -> str:
    parts = []
    growth = findings.number("growth", OWN, "ns_per_page")
    ratio = findings.number("growth", OWN, "ratio")
    if growth is not None:
        against = "" if ratio is None else f" ({ratio_text(ratio)} times a plain mapping)"
        parts.append(f"a page of growth costs {duration_text(growth)}{against}")
    idle = findings.outcome("idle", OWN, limit=DEFAULT_LIMIT)
    total = None if idle is None else idle_bytes(idle)
    if total is not None:
        parts.append(f"an idle stack with a limit of 10 MB takes {bytes_text(total)}")
    stacks = findings.outcome("ceiling", OWN)
    count = None if stacks is None else number_in(stacks.result, "stacks")
    if stacks is not None and count is not None:
        more = "at most" if stacks.result.get("stopped_by") == "error" else "at least"
        parts.append(f"there can be {more} {count_text(count)} of them")
    if not parts:
        return ""
    text = listed(parts)
    return text[:1].upper() + text[1:] + "."


def _rest(findings: Findings) -> str:
    rest = [strategy for strategy in _measured(findings) if strategy != OWN]
    faults = {strategy: _faults(findings, strategy) for strategy in rest}
    parts = []
    for fault, words in (
        ("overflow", "let a stack that runs over damage its neighbour"),
        ("kernel", "make a system call fail that writes into new stack"),
        ("ceiling", "end at some number of stacks"),
    ):
        guilty = [strategy for strategy in rest if fault in faults[strategy]]
        if guilty:
            parts.append(f"{len(guilty)} {words if len(guilty) > 1 else _singular(words)} ({names_of(guilty)})")
    if not parts:
        return (
            ""
            if not rest
            else f"None of the other {len(rest)} strategies that were tried showed one of those flaws here."
        )
    return f"Of the other {len(rest)} strategies, {'; '.join(parts)}."


def _singular(words: str) -> str:
    verb, _, rest = words.partition(" ")
    return f"{verb}s {rest}"
