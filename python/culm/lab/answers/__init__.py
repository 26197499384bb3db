"""The questions of the report, in their order, each answered from the findings of one run."""

from culm.lab.answers import growing, guards, kernel, memory, others, switching
from culm.lab.answers.prose import Answer
from culm.lab.findings import Findings

__all__ = ["all_answers"]

_QUESTIONS = (
    growing.lazy_mmap,
    guards.guards,
    guards.mappings,
    kernel.kernel_writes,
    growing.growsdown,
    growing.split_stacks,
    others.others,
    memory.limit,
    memory.shrinking,
    kernel.fork,
    kernel.strict_overcommit,
    kernel.locked_and_huge,
    switching.live_stacks,
    switching.implementations,
)


def all_answers(findings: Findings) -> list[Answer]:
    """One answer for each question; questions about which nothing was measured are left out."""
    answers = [memory.picture(findings), *(question(findings) for question in _QUESTIONS)]
    return [answer for answer in answers if answer is not None]
