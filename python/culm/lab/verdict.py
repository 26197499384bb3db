"""What an outcome means, in a word or two (caught, not caught, EFAULT), and whether that is good or bad.

It is decided here alone, so that the terminal, the report and the JSON always agree.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from culm.lab.findings import Findings
from culm.lab.outcome import Outcome

__all__ = [
    "NOT_TRIED",
    "UNKNOWN",
    "Difference",
    "Tone",
    "Verdict",
    "ceiling",
    "differences",
    "fork_guard",
    "inapplicable",
    "kernel_write",
    "overflow",
    "unusual",
    "verdicts",
]

Tone = Literal["good", "bad", "fair", "none"]

# Signals by which a guard, or the report of an overflow, ends a process.
_BY_GUARD = ("SIGSEGV", "SIGBUS")


@dataclass(frozen=True)
class Verdict:
    """A word or two, how good that is, and a reason if there is more to say."""

    text: str
    tone: Tone = "none"
    reason: str = ""


UNKNOWN = Verdict("not measured")
NOT_TRIED = (UNKNOWN.text, "not tried")


def _without_result(outcome: Outcome | None) -> Verdict | None:
    """The verdict if there is no result and no signal ended the experiment, whatever the experiment; else None."""
    if outcome is None:
        return UNKNOWN
    if outcome.kind == "unsupported":
        return Verdict("does not apply", "none", outcome.message)
    if outcome.kind in ("timed out", "failed", "left out"):
        return Verdict(outcome.kind, "fair" if outcome.kind == "timed out" else "none", outcome.message)
    return None


def overflow(outcome: Outcome | None) -> Verdict:
    """Was running past the end of the stack noticed before it did harm?"""
    if (verdict := _without_result(outcome)) is not None:
        return verdict
    assert outcome is not None
    if outcome.kind == "killed":
        if outcome.before is None:
            return Verdict("failed", "none", f"killed by {outcome.signal} before the overflow")
        how = "by the guard" if outcome.signal in _BY_GUARD else "and reported"
        return Verdict("caught", "good", f"killed by {outcome.signal}, as it should be: the overflow was caught {how}")
    if outcome.result.get("neighbour_damaged"):
        late = outcome.result.get("giving_back_signal")
        reason = "the program ran on, and a neighbour's memory was overwritten"
        return Verdict("not caught", "bad", f"{reason}; giving the stack back ended in {late}" if late else reason)
    if outcome.result.get("caught"):
        return Verdict("caught", "good", "the overflow was noticed and the program ran on")
    return Verdict("not noticed", "fair", "the program ran on; no neighbour was there to be damaged, or the stack grew")


_WRITES = (
    ("called", "read() called by a function"),
    ("direct", "read() without one"),
    ("tail", "a buffer that ends there"),
)


def kernel_write(outcome: Outcome | None) -> Verdict:
    """May the kernel write into stack that the program has not touched yet?"""
    if (verdict := _without_result(outcome)) is not None:
        return verdict
    assert outcome is not None
    if outcome.kind == "killed":
        return Verdict(f"killed by {outcome.signal}", "bad", outcome.before or outcome.message)
    answers = {name: str(outcome.result.get(name) or UNKNOWN.text) for name, _ in _WRITES}
    answers = {name: answer for name, answer in answers.items() if answer not in NOT_TRIED}
    wrong = {name: answer for name, answer in answers.items() if answer.lower() != "ok"}
    if not answers:
        return UNKNOWN
    if not wrong:
        return Verdict("works", "good")
    reason = "; ".join(f"{text}: {answers[name]}" for name, text in _WRITES if name in answers)
    worst = "EFAULT" if "EFAULT" in wrong.values() else next(iter(wrong.values()))
    return Verdict(worst, "bad", reason)


def ceiling(outcome: Outcome | None) -> Verdict:
    """How many stacks there can be."""
    if (verdict := _without_result(outcome)) is not None:
        return verdict
    assert outcome is not None
    stacks = outcome.result.get("stacks")
    if outcome.kind == "killed":
        return Verdict(f"killed by {outcome.signal}", "bad", outcome.before or outcome.message)
    if not isinstance(stacks, int):
        return UNKNOWN
    if outcome.result.get("stopped_by") == "error":
        error = str(outcome.result.get("errno_name") or "error")
        return Verdict(f"{stacks:,}, {error}", "bad", str(outcome.result.get("message") or ""))
    return Verdict(f"{stacks:,} or more", "good", "no error up to the number that was tried")


def fork_guard(outcome: Outcome | None) -> Verdict:
    """Is the guard still there in a child after fork?"""
    if (verdict := _without_result(outcome)) is not None:
        return verdict
    assert outcome is not None
    if outcome.kind == "killed":
        return Verdict(f"killed by {outcome.signal}", "bad", outcome.before or outcome.message)
    survives = outcome.result.get("guard_survives")
    if survives is None or outcome.result.get("has_guard") is False:
        return Verdict("no guard", "bad")
    signal = outcome.result.get("child_signal")
    if survives:
        return Verdict("survives", "good", f"the child's overflow was ended by {signal}" if signal else "")
    return Verdict("gone", "bad", "the child overflowed its stack unnoticed")


_JUDGES = {
    "overflow-small": overflow,
    "overflow-large": overflow,
    "kernel-write": kernel_write,
    "ceiling": ceiling,
    "fork": fork_guard,
}


def verdicts(findings: Findings) -> dict[str, dict[str, str]]:
    """Strategy -> experiment -> verdict, of every experiment that has one. For the JSON."""
    found: dict[str, dict[str, str]] = {}
    for outcome in findings.outcomes:
        judge = _JUDGES.get(outcome.experiment)
        if judge is not None:
            found.setdefault(outcome.strategy, {})[outcome.experiment] = judge(outcome).text
    return found


@dataclass(frozen=True)
class Difference:
    """Something that was measured and is not what the strategy declares."""

    strategy: str
    trait: str
    declared: str
    measured: str


def differences(findings: Findings) -> list[Difference]:
    """Where a measurement contradicts what a strategy declares about itself."""
    found: list[Difference] = []
    for strategy in findings.strategies:
        for trait, declared, measured in _comparisons(findings, strategy.id, strategy.declares):
            if declared != measured:
                found.append(Difference(strategy.id, trait, declared, measured))
    return found


def _comparisons(findings: Findings, strategy: str, declares: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Trait, what is declared, what was measured; only where both are known."""
    pairs: list[tuple[str, str, str]] = []
    for trait, experiment in (
        ("catches_small_overflow", "overflow-small"),
        ("catches_large_overflow", "overflow-large"),
    ):
        verdict = overflow(findings.outcome(experiment, strategy))
        if isinstance(declares.get(trait), bool) and verdict.text in ("caught", "not caught"):
            pairs.append((experiment, "caught" if declares[trait] else "not caught", verdict.text))
    write = kernel_write(findings.outcome("kernel-write", strategy))
    if declares.get("kernel_may_write") in ("yes", "no") and write.tone in ("good", "bad"):
        expected = "works" if declares["kernel_may_write"] == "yes" else "fails"
        pairs.append(("kernel-write", expected, "works" if write.tone == "good" else "fails"))
    guard = fork_guard(findings.outcome("fork", strategy))
    if isinstance(declares.get("guard_survives_fork"), bool) and guard.text in ("survives", "gone"):
        pairs.append(("guard after fork", "survives" if declares["guard_survives_fork"] else "gone", guard.text))
    return pairs


def inapplicable(findings: Findings) -> list[str]:
    """Which experiments were not possible, one sentence for each reason."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for outcome in findings.outcomes:
        if outcome.kind == "unsupported":
            strategies = reasons.setdefault((outcome.experiment, outcome.message), [])
            if outcome.strategy not in strategies:
                strategies.append(outcome.strategy)
    return [f"{experiment} with {', '.join(names)}: {reason}" for (experiment, reason), names in reasons.items()]


def unusual(findings: Findings) -> list[str]:
    """Which experiments went wrong, one sentence for each reason, however many went wrong for it."""
    reasons: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in findings.outcomes:
        if outcome.kind in ("failed", "timed out", "left out"):
            reasons.setdefault((outcome.kind, " ".join(outcome.message.split())), []).append(outcome)
    sentences = []
    for (kind, message), outcomes in reasons.items():
        first = outcomes[0]
        what = first.command or f"{first.experiment}/{first.strategy}"
        others = f" and {len(outcomes) - 1} more" if len(outcomes) > 1 else ""
        sentences.append(f"{what}{others} {kind}: {message}")
    return sentences
