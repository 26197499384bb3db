"""What the kernel does to stacks: writing into them, fork, overcommit, locked memory and huge pages."""

from functools import partial

from culm.cli.figures import bytes_text, count_text, duration_text, ratio_text
from culm.lab import plots, verdict
from culm.lab.answers.prose import OWN, Answer, listed, names_of, why_no_result
from culm.lab.findings import Findings, number_in
from culm.lab.outcome import Outcome
from culm.lab.table import Column, Table
from culm.lab.verdict import Verdict

__all__ = ["fork", "kernel_writes", "locked_and_huge", "strict_overcommit"]


def kernel_writes(findings: Findings) -> Answer:
    """Is it correct when the kernel touches memory that is not there yet?"""
    verdicts = {
        outcome.strategy: verdict.kernel_write(outcome)
        for outcome in findings.named("kernel-write")
        if outcome.kind in ("measured", "killed")
    }
    fails = [strategy for strategy, each in verdicts.items() if each.tone == "bad"]
    works = [strategy for strategy, each in verdicts.items() if each.tone == "good"]
    if not verdicts:
        short = "It could not be measured here."
    elif not fails:
        short = "Yes, with every strategy that was tried here."
    elif OWN in works:
        short = f"Yes where the kernel itself supplies the page; no with {names_of(fails)}."
    else:
        short = f"Not with {names_of(fails)}."
    paragraphs = []
    if works:
        paragraphs.append(
            f"A read() into a buffer on untouched stack works with {names_of(works)}: the fault happens inside the "
            "kernel, which knows the mapping as writable and puts in a page."
        )
    if fails:
        paragraphs.append(
            "Where pages are committed by a handler of SIGSEGV, the mapping is not writable until the handler has "
            "run, and a fault inside a system call raises no signal: the call answers with EFAULT or with fewer "
            "bytes than asked for. It does so even when only a part of the buffer lies where nothing is "
            "yet. So such a stack is fit only for code that is known to touch its buffers first, which no C "
            "library promises."
        )
    return Answer(
        "kernel-write",
        "Is it correct when the kernel touches memory that is not there yet?",
        short,
        paragraphs,
        table=_write_table(findings),
        method=(
            (
                "read() from /dev/zero is given a buffer on a stack that is new. Called by a function: the buffer "
                "is an array of the caller, and the call itself pushes its return address below it, which touches "
                "the stack there. Direct: the buffer lies far below anything touched, as for a system call with no "
                "function around it. Across the edge: only its upper part is there yet. Compiled without stack "
                "clash protection, which would touch every page first."
            ),
        ),
    )


def _write_table(findings: Findings) -> Table | None:
    rows = []
    for outcome in findings.named("kernel-write"):
        if outcome.kind == "measured":
            cells = [_answer(outcome.result.get(key)) for key in ("called", "direct", "tail")]
        elif outcome.kind == "killed":
            cells = [verdict.kernel_write(outcome)] * 3
        else:
            continue
        rows.append([Verdict(outcome.strategy), *cells])
    if not rows:
        return None
    headings = ("Strategy", "Called by a function", "Direct", "Across the edge")
    return Table("kernel-write", "What read() answered", "", [Column(text, False) for text in headings], rows)


def _answer(value: object) -> Verdict:
    text = verdict.UNKNOWN.text if value is None else str(value)
    if text in verdict.NOT_TRIED:
        return verdict.UNKNOWN
    return Verdict("works", "good") if text.lower() == "ok" else Verdict(text, "bad")


def fork(findings: Findings) -> Answer:
    """What does fork cost?"""
    outcome = findings.outcome("fork", OWN)
    result = {} if outcome is None or outcome.kind != "measured" else outcome.result
    stacks, whole, each = (number_in(result, name) for name in ("stacks", "fork_ns", "fork_ns_per_stack"))
    if stacks is None or whole is None or each is None:
        short = f"It could not be measured here: {why_no_result(outcome)}."
    else:
        short = (
            f"{duration_text(whole)} with {count_text(stacks)} stacks of the arena, {duration_text(each)} "
            "for each of them."
        )
    paragraphs = []
    copied = number_in(result, "parent_cow_ns_per_page")
    if copied is not None:
        paragraphs.append(
            f"fork() copies page tables, not pages. The parent pays later: {duration_text(copied)} for each page "
            "that it writes again, because the page must be copied then."
        )
    survives = [each.strategy for each in findings.named("fork") if verdict.fork_guard(each).text == "survives"]
    gone = [each.strategy for each in findings.named("fork") if verdict.fork_guard(each).text == "gone"]
    if survives:
        paragraphs.append(f"In the child, an overflow still met the guard with {names_of(survives)}.")
    if gone:
        paragraphs.append(f"In the child, the guard was gone with {names_of(gone)}: an overflow there goes unnoticed.")
    refused = [each.strategy for each in findings.named("fork") if "refused" in each.message]
    if refused:
        paragraphs.append(
            f"With {names_of(refused)} fork() itself was refused: memory that may be written counts as if it were "
            "used, and twice that was more than this machine has."
        )
    stuck = [each.strategy for each in findings.named("fork") if each.result.get("child_goes_on") is False]
    if stuck:
        paragraphs.append(
            f"In the child, stacks of {names_of(stuck)} could not grow any more: what grows them is a thread or a "
            "handler that fork() does not copy."
        )
    paragraphs.append(
        "`subprocess` uses vfork or posix_spawn where it can, and these copy nothing. `os.fork` pays in full."
    )
    return Answer(
        "fork",
        "What does fork cost?",
        short,
        paragraphs,
        partial(plots.fork_plot, findings),
        method=(
            (
                "That many stacks are made and the first page of each is touched; then fork() is timed in the parent, "
                "repeatedly. The child overflows one of the stacks, and the signal that ends it is noted."
            ),
        ),
    )


def strict_overcommit(findings: Findings) -> Answer:
    """What happens under strict overcommit?"""
    mode = findings.kernel.get("overcommit_mode")
    groups: dict[str, list[str]] = {}
    for strategy in findings.strategies:
        declared = strategy.declares.get("works_under_strict_overcommit")
        if isinstance(declared, str):
            groups.setdefault(declared, []).append(strategy.id)
    if mode == 2:
        short = "It is in force here (vm.overcommit_memory=2): what this report measured was measured under it."
    elif mode is None:
        short = "Whether it is in force could not be found out here; it was not switched on for this."
    else:
        short = (
            f"It is off here (vm.overcommit_memory={mode}), and the lab does not switch it on. So this is "
            "explained, not measured."
        )
    paragraphs = [
        (
            "Under strict overcommit a mapping that can be written counts in full when it is made, MAP_NORESERVE or "
            "not. Ten thousand stacks of 10 MB are 98 GB then, although they use 40 MB. What is not accessible yet "
            "(PROT_NONE) does not count; it does when it becomes writable."
        )
    ]
    if groups.get("yes"):
        paragraphs.append(f"Declared to work all the same: {names_of(groups['yes'])}.")
    if groups.get("charged in full"):
        paragraphs.append(
            f"They work, but each stack is charged with its whole limit: {names_of(groups['charged in full'])}."
        )
    if groups.get("no"):
        paragraphs.append(
            f"Declared not to: {names_of(groups['no'])}. culm then uses another strategy, and says so once."
        )
    return Answer("overcommit", "What happens under strict overcommit?", short, paragraphs)


def locked_and_huge(findings: Findings) -> Answer | None:
    """What do locked memory and huge pages do to stacks?"""
    locked = [outcome for outcome in findings.named("mlock") if outcome.kind == "measured"]
    huge = [outcome for outcome in findings.named("thp") if outcome.kind == "measured"]
    paragraphs = [text for text in (_locked(locked), _huge(huge)) if text]
    if not paragraphs:
        return None
    resists = any(outcome.result.get("madv_dontneed") not in (None, "ok") for outcome in locked)
    swells = any(built and allowed > 1.5 * built for _, built, allowed, _ in _huge_figures(huge))
    effects = [
        *(["locked memory is not given back by the usual call"] if resists else []),
        *(["huge pages make an idle stack many times as large"] if swells else []),
    ]
    short = (
        (f"They work against elasticity: {listed(effects)}.")
        if effects
        else "Nothing that was noticed on this machine."
    )
    return Answer("locked", "What do locked memory and huge pages do to stacks?", short, paragraphs)


def _locked(outcomes: list[Outcome]) -> str:
    chosen = _own_or_first(outcomes)
    if chosen is None:
        return ""
    calls = [
        f"`{name.upper()}` answers {chosen.result[name] or 'ok'}"
        for name in ("madv_dontneed", "madv_guard_install", "madv_dontneed_locked")
        if name in chosen.result
    ]
    text = f"On a stack of {names_of([chosen.strategy])} that is locked page by page as it is touched (MLOCK_ONFAULT)"
    text = f"{text}, {listed(calls)}." if calls else ""
    touched, left = (number_in(chosen.result, name) for name in ("rss_bytes", "rss_bytes_after_shrink"))
    if touched and left is not None:
        text += f" Of {bytes_text(touched)} in memory, {bytes_text(left)} were left after shrinking it."
    return text


def _huge_figures(outcomes: list[Outcome]) -> list[tuple[str, float, float, object]]:
    """Strategy, bytes of an idle stack as built and with huge pages allowed, the setting of the machine."""
    return [
        (outcome.strategy, built, allowed, outcome.result.get("enabled"))
        for outcome in outcomes
        if (built := number_in(outcome.result, "as_built_rss_bytes_per_stack"))
        and (allowed := number_in(outcome.result, "allowed_rss_bytes_per_stack"))
    ]


def _huge(outcomes: list[Outcome]) -> str:
    figures = _huge_figures(outcomes)
    if not figures:
        return ""
    strategy, built, allowed, enabled = max(figures, key=lambda each: each[2] / each[1])
    setting = f" The setting of this machine is `{enabled}`." if enabled else ""
    if allowed <= 1.5 * built:
        return f"With huge pages allowed no strategy took noticeably more memory for an idle stack here.{setting}"
    text = (
        f"With huge pages allowed, one byte on a stack of {names_of([strategy])} takes {bytes_text(allowed)} instead "
        f"of {bytes_text(built)}, {ratio_text(allowed / built)} times as much."
    )
    own = next((each for each in figures if each[0] == OWN and each[0] != strategy), None)
    if own is not None and own[2] <= 1.5 * own[1]:
        text += f" With {names_of([OWN])} it stays at {bytes_text(own[2])}: a guard beside each stack prevents them."
    return f"{text} culm exempts its stacks from huge pages in any case.{setting}"


def _own_or_first(outcomes: list[Outcome]) -> Outcome | None:
    return next((outcome for outcome in outcomes if outcome.strategy == OWN), outcomes[0] if outcomes else None)
