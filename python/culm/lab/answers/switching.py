"""The switch: by the number of live stacks and the distance between them, and by implementation."""

from functools import partial

from culm.cli.figures import count_text, duration_text, ratio_text
from culm.lab import plots
from culm.lab.answers.prose import Answer, listed
from culm.lab.findings import Findings
from culm.lab.plots import switch_lines

__all__ = ["implementations", "live_stacks"]


def live_stacks(findings: Findings) -> Answer:
    """Does a switch get dearer with the number of stacks?"""
    lines = switch_lines(findings)
    odd, even = dict(lines.get(("assembly", "odd"), [])), dict(lines.get(("assembly", "power-of-two"), []))
    if not odd:
        short, paragraphs = "It could not be measured here.", []
    else:
        few, many = min(odd), max(odd)
        short = f"{duration_text(odd[few])} with {count_text(few)} stacks"
        if many > few and odd[many] > 1.2 * odd[few]:
            short = f"From {short} to {duration_text(odd[many])} with {count_text(many)}: same code, other caches."
        elif many > few:
            short = f"Hardly, here: {short}, {duration_text(odd[many])} with {count_text(many)}."
        else:
            short += "."
        paragraphs = [
            (
                "A switch touches the top of the stack it goes to. With many stacks these lines, and the page table "
                "entries for them, no longer fit into the caches of the processor."
            )
        ]
        if compared := _compared(odd, even):
            paragraphs.append(compared)
    return Answer(
        "switching",
        "Does a switch get dearer with the number of live stacks?",
        short,
        paragraphs,
        partial(plots.switch_plot, findings),
        method=(
            (
                "That many stacks switch to one another in a fixed order, round and round; each step needs what it "
                "finds on the stack it comes to. The stride is the distance from one stack to the next: a power of "
                "two, or one page more than that, an odd number of pages."
            ),
        ),
    )


def _compared(odd: dict[int, float], even: dict[int, float]) -> str:
    both = {count: even[count] / odd[count] for count in odd if even.get(count)}
    if not both:
        return ""
    count = max(both, key=lambda each: both[each])
    if both[count] <= 1.1:
        return "The distance between stacks makes no difference on this machine, a power of two or not."
    return (
        "When the distance between stacks is a power of two, their tops fall into the same few sets of the caches. "
        f"With {count_text(count)} stacks a switch then takes {duration_text(even[count])} instead of "
        f"{duration_text(odd[count])}, {ratio_text(both[count])} times as much. culm's stride is an odd number of "
        "pages, which costs nothing."
    )


def implementations(findings: Findings) -> Answer:
    """What do other context switches cost?"""
    lines = {switch: dict(points) for (switch, stride), points in switch_lines(findings).items() if stride == "odd"}
    counts = set.intersection(*(set(points) for points in lines.values())) if lines else set()
    missing = [
        f"{switch.get('id')} ({switch.get('why_not') or 'no reason given'})"
        for switch in findings.knowledge.get("switches") or []
        if not switch.get("available", True)
    ]
    question = "What do other context switches cost?"
    paragraphs = [f"Not available here: {listed(missing)}."] if missing else []
    if not counts or "assembly" not in lines:
        return Answer("implementations", question, "It could not be measured here.", paragraphs)
    count = min(counts)
    figures = {switch: points[count] for switch, points in lines.items()}
    own = figures.pop("assembly")
    if not figures:
        return Answer(
            "implementations", question, f"{duration_text(own)}, culm's own; no other is available here.", paragraphs
        )
    short = f"With {count_text(count)} stacks: {duration_text(own)} in assembly, " + listed(
        f"{duration_text(ns)} with {switch}" for switch, ns in figures.items()
    )
    if "ucontext" in figures:
        ratio = figures["ucontext"] / own
        paragraphs.insert(
            0,
            "`swapcontext` saves and restores the signal mask, a system call each way"
            + (f"; here it takes {ratio_text(ratio)} times what the switch in assembly takes." if ratio > 1.2 else "."),
        )
    return Answer("implementations", question, short + ".", paragraphs)
