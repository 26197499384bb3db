"""How other languages do it, as read in their sources, and what was measured here of something comparable."""

from culm.cli.figures import bytes_text
from culm.lab.answers.prose import OWN, Answer
from culm.lab.findings import Findings, number_in
from culm.lab.plan import DEFAULT_LIMIT
from culm.lab.table import idle_bytes

__all__ = ["others"]


def others(findings: Findings) -> Answer:
    """How do Go, Java, OCaml and Erlang do it?"""
    paragraphs = [
        (
            "Go starts each goroutine with 2 KB. A check at the head of every function notices that the stack is used "
            "up; the runtime then copies it into one twice as large, and the garbage collector halves one that is "
            "mostly unused. It can, because the compiler knows where every pointer into the stack lies. C code called "
            "from Go runs on another, ordinary stack."
        ),
        (
            "Java's virtual threads (Loom) copy frames: on parking from the carrier thread's stack to the heap, on "
            "resuming back, a few frames at a time. Native frames cannot be moved; with one of them on the stack the "
            "virtual thread stays pinned to its carrier."
        ),
        (
            "OCaml 5 gives a fiber a few hundred bytes from the heap and doubles by copying; C functions run on the "
            "system stack of the thread."
        ),
        (
            "Erlang keeps stack and heap of a process in one small block, growing towards each other; when they meet, "
            "the collector moves both into a larger one. Code compiled to native keeps to the same block, and C code "
            "may not block or recurse on it."
        ),
        (
            "All four own the compiler, so they know each pointer into a stack and can move it, and all four treat "
            "C as a guest that must stay elsewhere. A library under CPython is in the other position: C frames are "
            "the rule, and addresses of stack variables are in the hands of code that nobody can ask. The stack "
            "must stay where it is."
        ),
    ]
    if measured := _copying(findings):
        paragraphs.append(measured)
    return Answer(
        "others",
        "How do Go, Java, OCaml and Erlang do it?",
        "They move stacks, which takes a compiler that knows every pointer into them. C has none.",
        paragraphs,
        read_not_measured=True,
    )


def _copying(findings: Findings) -> str:
    copied, own = (findings.outcome("idle", strategy, limit=DEFAULT_LIMIT) for strategy in ("copying", OWN))
    copied_bytes = None if copied is None else idle_bytes(copied)
    own_bytes = None if own is None else idle_bytes(own)
    if copied is None or not copied_bytes:
        return ""
    used = number_in(copied.result, "used_bytes")
    text = (
        "Measured here as a counterpart: a stack that is copied to the heap when it is left"
        + (f", with {bytes_text(used)} used," if used else "")
        + f" occupies {bytes_text(copied_bytes)}"
    )
    if not own_bytes:
        return text + "."
    return (
        f"{text}; one that stays where it is, {bytes_text(own_bytes)}. That is what moving buys, and its price is "
        "that each switch copies, and that no address of a stack variable may be known to anybody."
    )
