"""Compare the working tree with an older revision of culm: every figure of this folder, as a ratio with its spread.

    python benchmarks/compare.py --base REV [GROUP ...] [--rounds N] [--json FILE]      (make bench-compare BASE=REV)

Both revisions are built and installed beside each other (revisions.py). Round after round each figure is measured on
both, one right after the other, and the one that comes first changes with every round. The Python programs and the load
of the servers are always those of the working tree; the C++ benchmarks are built from each revision's own sources.
Invariant: a ratio is only taken between figures of the same round. What one of the two lacks is left out and named.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import measuring
import million
import shrink
import stack_figures
from measuring import GROUPS, LOAD, WORKLOADS, Bound, LeftOutError, Samples
from revisions import Revision, committed, working_tree

SWITCH_PROGRAM = "culm_switch_benchmark"
BASE, HEAD = "BASE", "HEAD"
SLOWER_MAX = 1.03
# Resident memory is the whole process's, and differs by a few pages from run to run.
LARGER_MAX = 1.002
BOUNDS = [
    *(
        Bound(name, SLOWER_MAX, peer=BASE)
        for group in ("switch", "yield", "spawn", "timers", "echo")
        for name in GROUPS[group]
    ),
    *(Bound(name, LARGER_MAX, peer=BASE) for name in ("parked_small", "parked_default")),
    Bound("fd_wait_timer", 1.15, against="fd_wait"),
]


@dataclass(frozen=True)
class Part:
    """What is measured on one revision before it is the other's turn. Gives figures by name."""

    name: str
    measure: Callable[[Revision], dict[str, float]]


def workload_part(name: str, load: Path | None, seconds: float) -> Part:
    return Part(name, lambda revision: {name: measuring.measure(name, "culm", load, seconds, python=revision.python)})


def named(group: str, figures: dict[str, float]) -> dict[str, float]:
    return {f"{group} {name}": value for name, value in figures.items()}


def program(revision: Revision, name: str) -> Path:
    path = revision.program(name)
    if not path.exists():
        raise LeftOutError(f"{revision.text} has no {name}")
    return path


def cxx_switch(revision: Revision) -> dict[str, float]:
    return named("cxx-switch", measuring.run_cxx(program(revision, SWITCH_PROGRAM)))


def cxx_stack_part(what: str) -> Part:
    def measure(revision: Revision) -> dict[str, float]:
        return named("cxx-stack", stack_figures.one_run(program(revision, stack_figures.PROGRAM), what))

    return Part(f"cxx-stack {what}", measure)


def shrink_part(workload: str) -> Part:
    return Part(
        f"shrink {workload}", lambda revision: named("shrink", shrink.measure(workload, python=revision.python))
    )


def million_part(limit: int) -> Part:
    group = f"million {million.limit_name(limit)}"
    return Part(group, lambda revision: named(group, million.measure(million.MILLION, limit, python=revision.python)))


def all_parts(load: Path | None, seconds: float) -> dict[str, list[Part]]:
    """Return the parts of every group that can be named on the command line."""
    groups = {
        group: [
            workload_part(name, load, seconds) for name, workload in workloads.items() if "culm" in workload.libraries
        ]
        for group, workloads in GROUPS.items()
    }
    groups["cxx-switch"] = [Part("cxx-switch", cxx_switch)]
    groups["cxx-stack"] = [cxx_stack_part(what) for what in stack_figures.RUNS]
    groups["shrink"] = [shrink_part(workload) for workload in shrink.WORKLOADS]
    groups["million"] = [million_part(limit) for limit in million.LIMITS]
    return groups


ONLY_WHEN_NAMED = {"million"}  # takes 14 GB, and a minute on each side of a round


def one_round(parts: list[Part], sides: list[tuple[str, Revision]], samples: Samples) -> None:
    """Measure every part on both sides, and add what came out. A part that one side lacks goes from the list."""
    for part in parts.copy():
        print(f"  {part.name}", file=sys.stderr)
        try:
            measured = {side: part.measure(revision) for side, revision in sides}
        except LeftOutError as reason:
            print(f"left out: {part.name} ({reason})", file=sys.stderr)
            parts.remove(part)
            continue
        for name in measured[BASE].keys() ^ measured[HEAD].keys():
            print(f"left out: {name} (only one of the revisions has it)", file=sys.stderr)
        for name in (name for name in measured[HEAD] if name in measured[BASE]):
            for side, figures in measured.items():
                samples.setdefault(name, {BASE: [], HEAD: []})[side].append(figures[name])


def unit(figure: str) -> str:
    """Return the unit of a figure; those of shrink.py and million.py say it in their names."""
    if figure in WORKLOADS:
        return WORKLOADS[figure].unit
    return "ns" if figure.startswith("cxx-") else ""


def rows(samples: Samples) -> list[list[str]]:
    lines = []
    for figure, sides in samples.items():
        ratios = measuring.ratios(sides[HEAD], sides[BASE])
        medians = [f"{statistics.median(sides[side]):,.4g}" for side in (BASE, HEAD)]
        of_ratios = [f"{value:.3f}" for value in (statistics.median(ratios), min(ratios), max(ratios))]
        lines.append([figure, unit(figure), *medians, *of_ratios])
    return lines


def build(base: Revision, head: Revision, groups: list[str]) -> None:
    for revision in (base, head):
        revision.install()
    wanted = {"cxx-switch": SWITCH_PROGRAM, "cxx-stack": stack_figures.PROGRAM, "echo": LOAD}
    for group, name in wanted.items():
        for revision in (base, head) if group != "echo" else (head,):
            if group in groups:
                try:
                    revision.build_programs(name)
                except LeftOutError as reason:
                    print(reason, file=sys.stderr)


def main() -> None:
    names = list(all_parts(None, 0))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "groups", nargs="*", choices=[*names, []], help="what to measure (default: everything but million)"
    )
    parser.add_argument("--base", required=True, help="the revision to compare with, as git names it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one echo load")
    parser.add_argument("--json", type=Path, help="keep every single measurement in this file")
    options = parser.parse_args()
    groups = options.groups or [name for name in names if name not in ONLY_WHEN_NAMED]

    base, head = committed(options.base), working_tree()
    build(base, head, groups)
    load = head.program(LOAD)
    parts_of = all_parts(load if load.exists() else None, options.seconds)
    parts = [part for group in groups for part in parts_of[group]]
    about = {"base": base.text, "head": head.text, "trees": {BASE: base.tree, HEAD: head.tree}}
    samples: Samples = {}
    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
        one_round(parts, [(BASE, base), (HEAD, head)][:: 1 if number % 2 == 0 else -1], samples)
        measuring.keep(options.json, about | {"rounds": number + 1}, samples=samples)

    print(f"BASE is {base.text}, HEAD is {head.text}; medians, and HEAD / BASE of the same round\n")
    measuring.print_table(["figure", "unit", BASE, HEAD, "ratio", "min", "max"], rows(samples), texts=2)
    print("\n".join(["", *measuring.verdicts(BOUNDS, samples, HEAD)]))


if __name__ == "__main__":
    main()
