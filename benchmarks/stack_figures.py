"""The figures of stacks, from C++: growth, pool, cold stacks, round robin. Judges what culm_stack_benchmark measures.

    python benchmarks/stack_figures.py [--rounds N] [--json FILE]

Builds culm_stack_benchmark (tools/cxx-benchmarks does the same) and runs it round after round; within a round both
sides of each ratio take turns. The power-of-two strides are a process of their own, right after the ordinary one. A
ratio is taken per round, and the median of the ratios counts. Prints "figure, measured, bound, ok/missed".
Invariant: a ratio is only taken between figures of the same round.
"""

import argparse
import statistics
from dataclasses import dataclass
from pathlib import Path

from measuring import ROOT, LeftOutError, build_programs, keep, run_cxx

PROGRAM = "culm_stack_benchmark"
CLASSES = {"64 KB": 0, "256 KB": 1, "10 MB": 3}


@dataclass(frozen=True)
class Figure:
    """The time of `measured`, divided by that of `against` if that is given, must be at most `bound`, if given."""

    name: str
    measured: str
    bound: float | None
    against: str | None = None

    def value(self, times: dict[str, float]) -> float:
        return times[self.measured] / (times[self.against] if self.against else 1.0)


FIGURES = [
    Figure("growth of a fiber's stack by a page / plain first touch", "growth_fiber", 1.05, "growth_plain"),
    Figure("stack from the pool and back, ns", "pool_hit", 40.0),
    *(
        Figure(
            f"cold stack / first touch + vectored guard, {name}", f"cold_stack/{number}", 1.2, f"cold_parts/{number}"
        )
        for name, number in CLASSES.items()
        if name != "256 KB"
    ),
    *(
        Figure(
            f"{what} over {count:,} fibers / power-of-two strides, {name}",
            f"{measured}/{count}/{CLASSES[name]}",
            bound,
            f"power-of-two {measured}/{count}/{CLASSES[name]}",
        )
        for name in ("10 MB", "256 KB")
        for count in (1_000, 10_000)
        for what, measured, bound in (
            ("round robin", "round_robin", 0.6),
            ("  the memory it goes through alone,", "round_robin_memory", None),
        )
    ),
]


# What one round consists of: the mark before the names of its figures, and the options of the program.
RUNS = {
    "growth, pool, cold": (
        "",
        "--benchmark_filter=growth|pool|cold",
        "--benchmark_repetitions=5",
        "--benchmark_enable_random_interleaving=true",
    ),
    "round robin": ("", "--benchmark_filter=round_robin"),
    "power-of-two strides": ("power-of-two ", "--stride=power-of-two", "--benchmark_filter=round_robin"),
}


def one_run(program: Path, what: str) -> dict[str, float]:
    mark, *options = RUNS[what]
    return {mark + name: value for name, value in run_cxx(program, *options).items()}


def one_round(program: Path) -> dict[str, float]:
    return {name: value for what in RUNS for name, value in one_run(program, what).items()}


def report(rounds: list[dict[str, float]]) -> list[str]:
    lines = []
    for figure in FIGURES:
        values = [
            figure.value(times) for times in rounds if {figure.measured, figure.against or ""} - {""} <= set(times)
        ]
        bound = "no bound" if figure.bound is None else f"at most {figure.bound:g}"
        if not values:
            lines.append(f"{figure.name}, not measured, {bound}, left out")
            continue
        middle = statistics.median(values)
        verdict = "" if figure.bound is None else ", ok" if middle <= figure.bound else ", missed"
        spread = f"({min(values):.3g} to {max(values):.3g})"
        lines.append(f"{figure.name}, {middle:.3g} {spread}, {bound}{verdict}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="keep every single measurement in this file")
    options = parser.parse_args()
    try:
        program = build_programs(ROOT, PROGRAM) / PROGRAM
    except LeftOutError as reason:
        raise SystemExit(str(reason)) from None
    rounds = [one_round(program) for _ in range(options.rounds)]
    print("\n".join(report(rounds)))
    keep(options.json, {}, rounds=rounds)


if __name__ == "__main__":
    main()
