"""Guards and mappings: what they cost, and how many there can be."""

from functools import partial

from culm.cli.figures import count_text, duration_text, ratio_text
from culm.lab import plots
from culm.lab.answers.prose import OWN, Answer, listed, names_of
from culm.lab.findings import Findings, number_in
from culm.lab.outcome import Outcome

__all__ = ["guards", "mappings"]

_GUARDED = "mmap"
_BARE = "bare-mmap"


def guards(findings: Findings) -> Answer:
    """What does a guard cost, and how many stacks can have one?"""
    marker = findings.kernel.get("guard") == "kernel marker"
    own = findings.outcome("ceiling", OWN)
    own_stacks = None if own is None else number_in(own.result, "stacks")
    stopped = own is not None and own.result.get("stopped_by") == "error"
    guarded = findings.outcome("ceiling", _GUARDED)
    if own_stacks is None:
        short = "It could not be measured here."
    elif stopped:
        short = (
            f"There can be {count_text(own_stacks)} guarded stacks of 10 MB in one process here; then the "
            "kernel refuses."
        )
    else:
        short = (
            f"{_cost_of_guard(findings)}, and there is no ceiling in sight: {count_text(own_stacks)} guarded "
            "stacks of 10 MB were made."
        )
    paragraphs = [
        _kind_of_guard(findings, marker),
        *_mprotect_costs(findings, guarded),
        _met(findings),
        _large_steps(findings),
    ]
    return Answer(
        "guards",
        "What does a guard cost, and how many stacks can have one?",
        short,
        [text for text in paragraphs if text],
        partial(plots.create_plot, findings),
        method=(
            (
                "Stacks are made until something fails or the number asked for is reached; nothing of them is touched. "
                "The cost is that of making a stack and touching its first page, the median of repeated rounds, each "
                "with many stacks."
            ),
        ),
    )


def _cost_of_guard(findings: Findings) -> str:
    own = findings.number("lifecycle", OWN, "create_ns")
    if own is None:
        return "A guard is cheap"
    return f"A new stack with its guard takes {duration_text(own)} from the arena"


def _kind_of_guard(findings: Findings, marker: bool) -> str:
    if marker:
        text = (
            "This kernel has MADV_GUARD_INSTALL: a guard is a mark in the page table, not a mapping, so guards do "
            "not use up mappings and are installed in batches"
        )
        return text + (
            " with one call for many." if findings.kernel.get("vectored_guard") else ", here with one call for each."
        )
    return (
        "This kernel has no MADV_GUARD_INSTALL (Linux 6.13 or newer does). Guards are made with mprotect, which "
        f"splits a mapping in two, and a process may have {count_text(number_in(findings.kernel, 'mappings_max'))} "
        "mappings (vm.max_map_count)."
    )


def _mprotect_costs(findings: Findings, guarded: Outcome | None) -> list[str]:
    texts = []
    own, mprotect = (findings.number("lifecycle", each, "create_ns") for each in (OWN, _GUARDED))
    if own and mprotect:
        comparison = f"{ratio_text(mprotect / own)} times as much as" if mprotect > 1.05 * own else "no more than"
        texts.append(
            f"A mapping for each stack with an mprotect guard takes {duration_text(mprotect)} to make, {comparison} "
            f"the arena's {duration_text(own)}."
        )
    if guarded is not None and guarded.result.get("stopped_by") == "error":
        texts.append(
            f"And it ends at {count_text(number_in(guarded.result, 'stacks'))} stacks with "
            f"{guarded.result.get('errno_name', 'an error')}, however much memory is free."
        )
    return [" ".join(texts)] if texts else []


def _met(findings: Findings) -> str:
    met = findings.outcome("overflow-small", OWN)
    if met is None or met.kind != "killed" or met.before is None:
        return ""
    text = f"The experiment that ran over the end of a stack of the arena was ended by {met.signal}, as it should be"
    return text + (f", and wrote: `{met.message.splitlines()[0]}`" if met.message else ".")


def _large_steps(findings: Findings) -> str:
    missed, caught = [], []
    for strategy in findings.strategies:
        outcome = findings.outcome("overflow-large", strategy.id)
        if outcome is None:
            continue
        if outcome.kind == "measured" and outcome.result.get("neighbour_damaged"):
            missed.append(strategy.id)
        elif outcome.kind == "killed" and outcome.before is not None:
            caught.append(strategy.id)
    if not missed:
        return ""
    text = "What a guard of one page does not stop is a step over it. One write 64 KB past the limit "
    if caught:
        text += f"was not caught by {names_of(missed)}; it was by {names_of(caught)}."
    else:
        text += f"was caught by none of the {len(missed)} strategies that were tried."
    return (
        text + " Code compiled with `-fstack-clash-protection` touches each page on its way, and then the guard is met."
    )


def mappings(findings: Findings) -> Answer:
    """What do thousands of mappings cost?"""
    ended = [outcome for outcome in findings.named("ceiling") if outcome.result.get("stopped_by") == "error"]
    by_mappings = [outcome for outcome in ended if _mappings_each(findings, outcome.strategy) >= 1]
    others = [outcome for outcome in ended if outcome not in by_mappings]
    tried = max((int(outcome.options.get("count", 0)) for outcome in findings.named("ceiling")), default=0)
    if by_mappings:
        # The plain strategy is named if it is among them, because it is what most programs use.
        first = next((each for each in by_mappings if each.strategy == _GUARDED), min(by_mappings, key=_stacks))
        short = (
            f"First of all, a ceiling: {names_of([first.strategy])} ends at {count_text(_stacks(first))} stacks, "
            "because the process may have no more mappings."
        )
    elif tried:
        short = f"No strategy ran out of mappings with up to {count_text(tried)} stacks on this machine."
    else:
        short = "It could not be measured here."
    texts = [_ceilings(findings, by_mappings), *map(_other_end, others), _time(findings), _fork(findings)]
    return Answer(
        "mappings",
        "What do thousands of mappings cost?",
        short,
        [text for text in texts if text],
        partial(plots.ceiling_plot, findings),
        method=(
            (
                "Mappings for each stack: lines of /proc/self/maps with many stacks, less those without. The "
                "ceiling is the number of stacks at which the first call failed, with its errno; the base page of "
                "each is touched."
            ),
        ),
    )


def _stacks(outcome: Outcome) -> float:
    return number_in(outcome.result, "stacks") or 0


def _mappings_each(findings: Findings, strategy: str) -> int:
    """How many mappings a stack of this strategy needs, measured or else declared."""
    measured = findings.number("lifecycle", strategy, "mappings_per_stack")
    if measured is None:
        found = findings.strategy(strategy)
        measured = None if found is None else number_in(found.declares, "mappings_per_stack")
    return round(measured or 0)


def _ceilings(findings: Findings, ended: list[Outcome]) -> str:
    groups: dict[int, list[Outcome]] = {}
    for outcome in ended:
        groups.setdefault(_mappings_each(findings, outcome.strategy), []).append(outcome)
    parts = []
    for each, outcomes in sorted(groups.items()):
        lowest, highest = (count_text(bound(map(_stacks, outcomes))) for bound in (min, max))
        between = lowest if lowest == highest else f"{lowest} to {highest}"
        names = names_of(outcome.strategy for outcome in outcomes)
        parts.append(f"{names} with {_NUMBERS.get(each, str(each))} for each stack at {between}")
    if not parts:
        return ""
    limit = number_in(findings.kernel, "mappings_max")
    known = "" if limit is None else f" A process may have {count_text(limit)} mappings here (vm.max_map_count)."
    errors = listed(dict.fromkeys(str(outcome.result.get("errno_name") or "an error") for outcome in ended))
    return f"These ended with {errors}: {listed(parts)}.{known}"


_NUMBERS = {1: "one mapping", 2: "two mappings"}


def _other_end(outcome: Outcome) -> str:
    error = outcome.result.get("errno_name") or "an error"
    return (
        f"{names_of([outcome.strategy])} ended at {count_text(_stacks(outcome))} stacks with {error} too, but not "
        "for want of mappings: the kernel does not promise that much memory."
    )


def _time(findings: Findings) -> str:
    own, one_each = (findings.number("lifecycle", each, "destroy_ns") for each in (OWN, _BARE))
    if not own or not one_each:
        return ""
    if one_each <= 1.05 * own:
        return f"Giving one mapping back takes {duration_text(one_each)}, the arena's way {duration_text(own)}."
    return (
        f"Then time: to unmap one stack takes {duration_text(one_each)}, to empty one of the arena, which stays "
        f"mapped, {duration_text(own)}. A stack from a warm pool needs neither."
    )


def _fork(findings: Findings) -> str:
    own, guarded = (findings.number("fork", each, "fork_ns_per_stack") for each in (OWN, _GUARDED))
    if not own or not guarded:
        return ""
    if guarded > 1.1 * own:
        return (
            f"fork() copies the list of mappings: {duration_text(guarded)} for each stack with a mapping and a guard "
            f"of its own, {duration_text(own)} in the arena."
        )
    return (
        f"fork() copies the list of mappings too, but page tables dominate: {duration_text(guarded)} for each stack "
        f"with mappings of its own, {duration_text(own)} in the arena."
    )
