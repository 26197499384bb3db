"""What a limit costs, what shrinking costs, and the picture of a real fiber."""

from functools import partial
from typing import Any

from culm.cli.figures import bytes_text, count_text, duration_text, ratio_text
from culm.lab import plots
from culm.lab.answers.prose import OWN, Answer, names_of, why_no_result
from culm.lab.findings import Findings, number_in
from culm.lab.plan import DEFAULT_LIMIT
from culm.lab.table import idle_bytes

__all__ = ["limit", "picture", "shrinking"]

_ADDRESSES_BYTES = 1 << 47  # what a process has on x86-64; with 48-bit addresses on aarch64 it has twice as much


def limit(findings: Findings) -> Answer:
    """What does a 10 MB limit really cost?"""
    outcome = findings.outcome("idle", OWN, limit=DEFAULT_LIMIT)
    total = None if outcome is None else idle_bytes(outcome)
    if outcome is None or total is None:
        short = f"It could not be measured here: {why_no_result(outcome)}."
    else:
        short = f"{bytes_text(total)} of memory for each idle stack, and 10 MB of addresses, of which there are plenty."
    paragraphs = []
    if outcome is not None and total is not None:
        resident = number_in(outcome.result, "rss_bytes_per_stack") or 0
        tables = number_in(outcome.result, "page_table_bytes_per_stack") or 0
        paragraphs.append(
            f"A stack with a limit of 10 MB, of which 1 KB was used, has {bytes_text(resident)} in memory. Its "
            f"addresses need page tables: {bytes_text(tables)} for each stack. Tables do not count as resident "
            "memory of the process, but a control group is charged for them, so they belong to the cost."
        )
    paragraphs += [text for text in (_smaller(findings, total), _dearer(findings, total)) if text]
    reserved = None if outcome is None else number_in(outcome.result, "reserved_bytes_per_stack")
    if reserved:
        count = _ADDRESSES_BYTES // int(reserved)
        paragraphs.append(
            f"Each reserves {bytes_text(reserved)} of addresses, the guard included. A process can have 128 TB of "
            f"those: room for {count // 1_000_000} million such stacks."
        )
    return Answer(
        "limit",
        "What does a 10 MB limit really cost?",
        short,
        paragraphs,
        partial(plots.idle_plot, findings),
        method=(
            (
                "Many stacks are made and 1 KB of each is written. Memory is the growth of VmRSS, page tables that of "
                "VmPTE, both from /proc/self/status, divided by the stacks."
            ),
        ),
    )


def _smaller(findings: Findings, total: float | None) -> str:
    sizes = {
        int(outcome.options["limit"]): bytes_
        for outcome in findings.named("idle", OWN)
        if (bytes_ := idle_bytes(outcome)) is not None
    }
    smallest = min(sizes, default=DEFAULT_LIMIT)
    if total is None or smallest >= DEFAULT_LIMIT:
        return ""
    saved = total - sizes[smallest]
    if saved < 0.05 * total:
        return (
            f"A limit of {bytes_text(smallest)} would save nothing that matters: {bytes_text(sizes[smallest])} instead."
        )
    return (
        f"With a limit of {bytes_text(smallest)} it is {bytes_text(sizes[smallest])}: neighbouring stacks then share "
        f"a table. The difference for a million stacks is {bytes_text(saved * 1_000_000)}."
    )


def _dearer(findings: Findings, total: float | None) -> str:
    if total is None:
        return ""
    dearer = {
        outcome.strategy: bytes_
        for outcome in findings.named("idle", limit=DEFAULT_LIMIT)
        if outcome.strategy != OWN and (bytes_ := idle_bytes(outcome)) is not None and bytes_ > 1.1 * total
    }
    if not dearer:
        return ""
    worst = max(dearer, key=lambda strategy: dearer[strategy])
    return f"Of all that were measured, {names_of([worst])} takes most: {bytes_text(dearer[worst])} for an idle stack."


def shrinking(findings: Findings) -> Answer:
    """What does it cost to give memory back?"""
    outcome = findings.outcome("shrink", OWN)
    result = {} if outcome is None or outcome.kind != "measured" else outcome.result
    single, empty = number_in(result, "single_ns_per_stack"), number_in(result, "empty_ns_per_stack")
    batches = [
        (int(batch["ranges"]), ns)
        for batch in result.get("batches") or []
        if (ns := number_in(batch, "ns_per_stack")) is not None
    ]
    best = min(batches, key=lambda pair: pair[1], default=None)
    paragraphs = []
    if single is None:
        short = f"It could not be measured here: {why_no_result(outcome)}."
    elif best is not None and best[1] < 0.95 * single:
        short = (
            f"{duration_text(single)} for one stack with one call; {duration_text(best[1])} with "
            f"{count_text(best[0])} stacks in a call, {ratio_text(single / best[1])} times less."
        )
        paragraphs.append(
            "Each call enters the kernel and makes it tell the other processors; a call for many stacks does both "
            "once. So culm shrinks in batches, and never while it switches."
        )
    elif best is not None:
        short = f"{duration_text(single)} for one stack, and calls for many save nothing on this machine."
    else:
        short = f"{duration_text(single)} for one stack; this kernel has no call that serves many."
    if empty is not None:
        paragraphs.append(
            f"To ask for nothing is cheap too: {duration_text(empty)} for a stack that has nothing to give."
        )
    share = number_in(result, "bytes_returned_share")
    if share is not None:
        what = "all of it came back" if share >= 0.995 else f"{100 * share:.0f}% of it came back"
        paragraphs.append(f"What was given back was looked for afterwards in the page map: {what}.")
    return Answer(
        "shrink",
        "What does it cost to give memory back?",
        short,
        paragraphs,
        partial(plots.shrink_plot, findings),
        method=(
            (
                "Stacks are grown by the same number of pages each; then what lies below their base page is discarded, "
                "with one call for each (madvise), then with calls for many (process_madvise on the process itself). "
                "Residency is read before and after."
            ),
        ),
    )


def picture(findings: Findings) -> Answer:
    """What does a real fiber's stack do?"""
    question = "What does the stack of a real fiber look like over time?"
    samples: list[dict[str, Any]] = findings.fiber.get("samples") or []
    if not samples:
        failure = findings.fiber.get("failure", "it was not part of this run")
        return Answer("fiber", question, f"There is no picture here: {failure}.")
    peak = max(sample["resident_bytes"] for sample in samples)
    returned = [sample["resident_bytes"] for sample in samples if sample["doing"] == "is back at the base"]
    trimmed = [sample["resident_bytes"] for sample in samples if sample["doing"] == "trimmed"]
    if trimmed and trimmed[-1] < peak / 2:
        short = f"It grew to {bytes_text(peak)}, and gave back all but {bytes_text(trimmed[-1])}."
    else:
        short = f"It grew to {bytes_text(peak)}; hardly anything was given back here."
    paragraphs = [
        (
            "A Python fiber recurses through `sorted()`, parks every few levels, and returns. While it is parked "
            "another fiber asks the kernel which pages of its stack are in memory."
        )
    ]
    if returned and returned[0] > peak / 2:
        paragraphs.append(
            "Returning gives nothing back by itself: with the stack pointer at the base again, "
            f"{bytes_text(returned[0])} were still in memory. `culm.trim()` gives back what lies below the stack "
            "pointer of a parked fiber, and so does culm itself when fibers have been idle. Nothing above the stack "
            "pointer is ever touched."
        )
    return Answer(
        "fiber",
        question,
        short,
        paragraphs,
        partial(plots.fiber_plot, findings),
        method=(
            (
                "Residency comes from PAGEMAP_SCAN or /proc/self/pagemap, through "
                "`culm.lowlevel.resident_pages(fiber)`; the stack pointer from `Fiber.stack.used`. The base of the "
                "stack is at the upper edge of the picture: stacks grow downwards."
            ),
        ),
    )
