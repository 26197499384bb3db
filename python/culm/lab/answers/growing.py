"""Growth: lazy mmap, MAP_GROWSDOWN, split stacks."""

from functools import partial

from culm.cli.figures import bytes_text, count_text, duration_text, ratio_text
from culm.lab import plots, verdict
from culm.lab.answers.prose import OWN, Answer, listed, why_no_result
from culm.lab.findings import Findings, number_in
from culm.lab.outcome import Outcome

__all__ = ["growsdown", "lazy_mmap", "split_stacks"]

_BY_HAND = ("fault-handler", "fault-thread", "userfaultfd")


def lazy_mmap(findings: Findings) -> Answer:
    """Is lazy mmap enough?"""
    bare = findings.outcome("overflow-small", "bare-mmap")
    caught = verdict.overflow(bare)
    grows = findings.number("growth", "bare-mmap", "ns_per_page") or findings.number("growth", OWN, "ns_per_page")
    if caught.text == "not caught":
        short = (
            "For growing, yes. For safety, no: a stack that runs over writes into the next one, and nothing says so."
        )
    elif caught.text == "caught":
        short = "On this run the overflow hit something that stopped it, but a bare mapping promises no such thing."
    elif grows is not None:
        short = "For growing, yes. Whether an overflow goes unnoticed could not be decided on this machine."
    else:
        short = f"It could not be measured here: {why_no_result(bare)}."
    paragraphs = [text for text in (_growth(findings), _by_hand(findings), _neighbour(bare)) if text]
    return Answer(
        "lazy-mmap",
        "Is lazy mmap enough?",
        short,
        paragraphs,
        partial(plots.growth_plot, findings),
        method=(
            (
                "A stack is made with each strategy and touched page by page from the base down, in rounds that "
                "alternate with the same number of pages of a plain mapping. The figure is the median of the rounds, "
                "divided by the pages."
            ),
            (
                "The overflow writes downwards from inside the stack, past its limit, in a process of its own; what "
                "lies below is another stack of the same kind, whose bytes are then compared with what was put there."
            ),
        ),
    )


def _growth(findings: Findings) -> str:
    own, plain, ratio = (
        findings.number("growth", OWN, name) for name in ("ns_per_page", "plain_mmap_ns_per_page", "ratio")
    )
    if own is None:
        return ""
    text = (
        "A private anonymous mapping costs addresses until it is touched; then the kernel puts in a page, with no "
        f"help from the program. That takes {duration_text(own)} for each page of a stack of the arena here"
    )
    if plain is None or ratio is None:
        return text + "."
    return (
        f"{text}, and {duration_text(plain)} for each of a plain mapping in the same run. Round by round, the first "
        f"took {ratio_text(ratio)} times as long as the second."
    )


def _by_hand(findings: Findings) -> str:
    own = findings.number("growth", OWN, "ns_per_page")
    figures = findings.numbers("growth", "ns_per_page")
    by_hand = [each for each in _BY_HAND if each in figures]
    if own is None or not by_hand:
        return ""
    costs = listed(f"{duration_text(figures[each])} with `{each}`" for each in by_hand)
    ratios = sorted(figures[each] / own for each in by_hand)
    start = f"Committing pages from the program instead, when a fault asks for them, costs for each page: {costs}. "
    if ratios[0] <= 1.05:
        return start + "On this machine at least one of them is no dearer than letting the kernel do it."
    between = ratio_text(ratios[0]) if len(ratios) == 1 else f"{ratio_text(ratios[0])} to {ratio_text(ratios[-1])}"
    return start + f"That is {between} times what the kernel takes by itself, for the same page."


def _neighbour(bare: Outcome | None) -> str:
    caught = verdict.overflow(bare)
    if caught.text == "not caught":
        return (
            "What is missing is an end. The kernel merges neighbouring mappings into one, so the page below a "
            "stack's limit is the base of the next stack. Here the experiment ran over, overwrote its neighbour and "
            "went on without a signal."
        )
    if caught.text == "caught" and bare is not None:
        return (
            f"The overflow was ended by {bare.signal} here, because nothing was mapped below that stack. With many "
            "stacks the kernel places mappings next to each other, and then there is a neighbour."
        )
    return ""


def growsdown(findings: Findings) -> Answer:
    """Does MAP_GROWSDOWN do what its name says?"""
    outcome = findings.outcome("growsdown", "growsdown")
    result = {} if outcome is None or outcome.kind != "measured" else outcome.result
    grew, damaged = number_in(result, "grew_bytes"), result.get("neighbour_damaged")
    overrun = verdict.overflow(findings.outcome("overflow-small", "growsdown"))
    harmful = bool(damaged) or overrun.text == "not caught"
    if outcome is not None and outcome.kind == "killed":
        short = f"Here it ended the process: {outcome.signal}, {outcome.before or 'without a word before'}."
    elif grew is None:
        short = f"It could not be measured here: {why_no_result(outcome)}."
    elif grew == 0:
        short = "No. The mapping did not grow at all here."
    elif harmful:
        short = "It grows, and does not stop: it grew into the neighbour's place, and nothing said so."
    else:
        short = "It grows, and here it stopped before the neighbour. It is still not made for many stacks."
    paragraphs = []
    if grew is not None:
        stopped = result.get("stopped_by")
        ending = f" until {stopped}" if stopped and stopped != "nothing" else ", and nothing stopped it"
        paragraphs.append(
            f"With nothing below it, the mapping grew by {bytes_text(grew)} as it was touched downwards{ending}."
        )
    gap = number_in(result, "stack_guard_gap_bytes")
    if gap is not None and gap > 0:
        paragraphs.append(
            f"The kernel keeps a gap of {bytes_text(gap)} between a mapping that grows and an ordinary one below it. "
            "It keeps none towards another one that grows, and stacks next to each other are just that."
        )
    if harmful:
        paragraphs.append(
            "A stack that runs over therefore continues in the memory of the stack below it. Two fibers then share "
            "it, each thinking that it is its own; the crash comes later, elsewhere."
        )
    stacks = findings.outcome("ceiling", "growsdown")
    if stacks is not None and stacks.result.get("stopped_by") == "error":
        paragraphs.append(
            "Each is a mapping of its own, so their number has a ceiling: "
            f"{count_text(number_in(stacks.result, 'stacks'))} here, then "
            f"{stacks.result.get('errno_name', 'an error')}. How far each may grow is RLIMIT_STACK, one number for "
            "the whole process."
        )
    return Answer(
        "growsdown",
        "Does MAP_GROWSDOWN do what its name says?",
        short,
        paragraphs,
        method=(
            (
                "Three descents, page by page, each in a child that says how deep it is: with nothing below, "
                "towards an ordinary mapping, and towards another mapping that grows down. The last of these is "
                "filled with a pattern first and compared after. The limit (RLIMIT_STACK) is set to 8 MB, the usual "
                "one, for the first."
            ),
        ),
    )


def split_stacks(findings: Findings) -> Answer:
    """Why not split stacks?"""
    outcome = findings.outcome("split", "split")
    result = {} if outcome is None or outcome.kind != "measured" else outcome.result
    hot, inside = number_in(result, "ns_per_hot_split_call"), number_in(result, "ns_per_call_in_segment")
    common = (
        "With -fsplit-stack every function begins by comparing the stack pointer with a limit, and takes another "
        "segment from the heap when there is too little left. So everything on the stack must be compiled that way: "
        "the interpreter, its extension modules and libc are not. Calls into them need one large segment, and then "
        "the small stacks are gone."
    )
    if inside is None:
        strategy = findings.strategy("split")
        reason = (strategy.why_not if strategy is not None else None) or why_no_result(outcome)
        short = f"Because all code would have to be compiled for it. What a call costs was not measured here: {reason}."
        paragraphs = [common]
    elif hot is None or hot <= 1.5 * inside:
        short = (
            "Because all code would have to be compiled for it. The edge of a segment, known as the hot split, is "
            "cheap here."
        )
        found = "was not met at any depth tried" if hot is None else f"took {duration_text(hot)}"
        paragraphs = [
            common,
            (
                f"A call inside a segment took {duration_text(inside)}, one at the edge {found}: with this linker "
                "segments are large, and then stacks are not small."
            ),
        ]
    else:
        short = (
            f"Because all code would have to be compiled for it, and a call at the edge of a segment costs "
            f"{duration_text(hot)} here instead of {duration_text(inside)}."
        )
        share = number_in(result, "hot_share")
        often = "" if share is None else f" It was met at {100 * share:.0f}% of the depths tried."
        paragraphs = [
            common,
            (
                "A loop that calls a function at the edge of a segment pays that each time around: "
                f"{ratio_text(hot / inside)} times an ordinary call. Where the edges lie depends on depth, so the same "
                f"loop is fast or slow by accident.{often}"
            ),
        ]
    linker = result.get("linker")
    if linker:
        paragraphs[-1] += f" Linked with {linker}."
    return Answer(
        "split",
        "Why not split stacks?",
        short,
        paragraphs,
        method=(
            (
                "A program of its own, compiled with -fsplit-stack, calls a small function very often at many "
                "depths: at most of them it fits into the segment, at some it does not. The figures are those of "
                "the former and the latter."
            ),
        ),
    )
