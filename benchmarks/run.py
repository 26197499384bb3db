"""Measure culm beside its peers: every workload of one run alternates between the libraries, round after round.

    python benchmarks/run.py [GROUP ...] [--rounds N] [--json FILE]

Prints, per workload, the median and the spread of each library, its ratio to culm, and whether the figure that culm
must reach is reached. Needs the libraries of the extra `bench`; one that is missing is left out and named. The groups
and their workloads stand in measuring.py.
Invariant: ratios are only taken between figures of the same run on the same machine.
"""

import argparse
import importlib.util
import os
import statistics
import sys
from pathlib import Path

from measuring import GROUPS, LOAD, ROOT, WORKLOADS, Bound, Samples, keep, measure, print_table, ratios, verdicts

BOUNDS = [
    Bound("switch", 1 / 6, peer="greenlet"),
    Bound("switch_deep", 1.10, against="switch"),
    Bound("spawn", 1 / 20, peer="gevent"),
    Bound("spawn", 1.0, peer="asyncio"),
    Bound("fd_wait_timer", 1.15, against="fd_wait"),
    Bound("parked_small", 5000),
    Bound("parked_default", 9000),
    Bound("mappings", 199),
    Bound("echo", 1.15, peer="uvloop"),
    Bound("echo", 2 / 3, peer="gevent"),
]


def available(library: str) -> bool:
    return library in ("asyncio", "threads") or importlib.util.find_spec(library) is not None


def find_load() -> Path | None:
    found = [path for path in ROOT.glob(f"build/*/benchmarks/{LOAD}") if os.access(path, os.X_OK)]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def run_groups(groups: list[str], rounds: int, seconds: float) -> Samples:
    load = find_load()
    samples: Samples = {}
    for group in groups:
        if group == "echo" and load is None:
            print(f"left out: echo ({LOAD} is not built: make bench builds it)", file=sys.stderr)
            continue
        for name, workload in GROUPS[group].items():
            missing = [library for library in workload.libraries if not available(library)]
            for library in missing:
                print(f"left out: {name} of {library} (pip install {library})", file=sys.stderr)
            samples[name] = {library: [] for library in workload.libraries if library not in missing}
        for _ in range(rounds):
            for name in GROUPS[group]:
                for library, values in samples[name].items():
                    values.append(measure(name, library, load, seconds))
    return samples


def rows(samples: Samples) -> list[list[str]]:
    lines = []
    for name, libraries in samples.items():
        own = libraries.get("culm", [])
        for library, values in libraries.items():
            compared = ratios(values, own) if library != "culm" else []
            figures = [statistics.median(values), min(values), max(values)]
            ratio = f"{statistics.median(compared):.2f}" if compared else ""
            lines.append([name, library, WORKLOADS[name].unit, *(f"{figure:,.2f}" for figure in figures), ratio])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", choices=[*GROUPS, []], help="what to measure (default: everything)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one echo load")
    parser.add_argument("--json", type=Path, help="keep every single measurement in this file")
    options = parser.parse_args()
    samples = run_groups(options.groups or list(GROUPS), options.rounds, options.seconds)
    headings = ["workload", "library", "unit", "median", "min", "max", "ratio to culm"]
    print_table(headings, rows(samples), texts=3)
    print("\n".join(["", *verdicts(BOUNDS, samples, "culm")]))
    keep(options.json, {"rounds": options.rounds}, samples=samples)


if __name__ == "__main__":
    main()
