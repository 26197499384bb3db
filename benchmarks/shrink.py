"""What shrinking costs and gives: ten thousand fibers that recursed 256 KB deep and parked.

    python benchmarks/shrink.py                          prints the table
    python benchmarks/shrink.py --rounds 3 --json out.json

Each measurement is a process of its own. `give` lets the thread idle and counts what came back within two seconds;
`nothing` does it for fibers that had nothing to give; `switch` runs a pair of fibers that switch without a pause, once
beside parked deep fibers with shrinking switched off and once with it on, and takes the time of every switch.
Invariant: ratios are made within one run only; every single measurement goes into the file of --json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from measuring import keep

FIBERS = 10_000
DEPTH_BYTES = 256 << 10


@dataclass(frozen=True)
class Bound:
    name: str
    unit: str
    limit: float
    at_least: bool = False


BOUNDS = [
    Bound("given_back_percent", "% of the excess, within 2 s of idleness", 99.0, at_least=True),
    Bound("cpu_us_per_page", "us CPU per page given back", 0.5),
    Bound("cpu_us_per_fiber_with_nothing", "us CPU per fiber with nothing to give", 1.5),
    Bound("switch_p99_ratio", "p99 of a switch while shrinking / p99 without", 2.0),
]


def recurse(depth: int) -> int:
    """Use the C stack: min() calls back into Python from C."""
    return 0 if depth == 0 else min([depth], key=lambda _: recurse(depth - 1))


def depth_for(wanted_bytes: int) -> int:
    """How deep recurse() must go to use so many bytes of stack."""
    import culm

    peaks = []
    for depth in (100, 200):
        fiber = culm.spawn(park_after, depth)
        culm.yield_now()
        peaks.append(fiber.stack.peak)
        culm.lowlevel.unpark(fiber)
        fiber.join()
        culm.trim()
    per_level = (peaks[1] - peaks[0]) / 100
    return round((wanted_bytes - peaks[0]) / per_level) + 100


def park_after(depth: int) -> None:
    from culm import lowlevel

    recurse(depth)
    lowlevel.park()


def parked(count: int, depth: int) -> list[object]:
    import culm

    fibers: list[object] = [culm.spawn(park_after, depth) for _ in range(count)]
    culm.yield_now()
    return fibers


def resident_bytes() -> int:
    """What the stacks of all fibers hold in memory. After a trim that is two pages in use and one to spare each."""
    import culm

    now = culm.statistics(stacks=True)
    assert now.stack_resident_bytes is not None
    return now.stack_resident_bytes


def give() -> dict[str, float]:
    import culm

    depth = depth_for(DEPTH_BYTES)
    fibers = parked(FIBERS, depth)
    before, full = culm.statistics(), resident_bytes()
    start = time.monotonic()
    culm.sleep(2.0)
    waited = time.monotonic() - start
    after, left = culm.statistics(), resident_bytes()
    culm.trim()
    least = resident_bytes()
    pages = (after.shrink_bytes - before.shrink_bytes) / os.sysconf("SC_PAGESIZE")
    assert len(fibers) == after.fibers
    return {
        "given_back_percent": 100 * (full - left) / (full - least),
        "cpu_us_per_page": (after.shrink_cpu_ns - before.shrink_cpu_ns) / 1000 / pages,
        "excess_megabytes": (full - least) / 1e6,
        "slices": after.shrink_slices - before.shrink_slices,
        "idle_seconds": waited,
    }


def nothing() -> dict[str, float]:
    import culm

    fibers = parked(FIBERS, 0)
    before = culm.statistics()
    culm.sleep(2.0)
    after = culm.statistics()
    visited = after.shrink_visited - before.shrink_visited
    assert visited >= len(fibers) * 0.99
    return {"cpu_us_per_fiber_with_nothing": (after.shrink_cpu_ns - before.shrink_cpu_ns) / 1000 / visited}


def switch() -> dict[str, float]:
    import culm

    culm.configure(shrink_after=None, react_to_pressure=False)
    fibers = parked(FIBERS, depth_for(DEPTH_BYTES))
    quiet = time_switches(lambda: False)
    before, full = culm.statistics(), resident_bytes()
    culm.configure(shrink_after=1.0)
    culm.sleep(0)

    def given_back() -> bool:
        now = culm.statistics()
        return now.shrink_bytes - before.shrink_bytes > 0.9 * full and now.shrink_kept_bytes == 0

    while culm.statistics().shrink_slices == before.shrink_slices:  # until the fibers are old enough
        culm.yield_now()
        busy_for(0.001)
    loaded = time_switches(given_back)
    assert len(fibers) == FIBERS
    return {
        "switch_p99_ns_without": quiet[1],
        "switch_p99_ns_while_shrinking": loaded[1],
        "switch_p99_ratio": loaded[1] / quiet[1],
        "switch_p50_ratio": loaded[0] / quiet[0],
        "switch_worst_us_without": quiet[2] / 1000,
        "switch_worst_us_while_shrinking": loaded[2] / 1000,
        "busy_seconds": loaded[3],
    }


def busy_for(seconds: float) -> None:
    import culm

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        culm.yield_now()


def time_switches(is_done: Callable[[], bool]) -> tuple[float, float, float, float]:
    """Median, 99th percentile and maximum of a round trip between two fibers, and how long it was done for."""
    import culm
    from culm import lowlevel

    main = culm.current()
    clock = time.perf_counter_ns
    change = lowlevel.switch

    def partner() -> None:
        while True:
            change(main)

    other = lowlevel.Fiber(partner)
    change(other)
    times: list[int] = []
    start = time.monotonic()
    while len(times) < 1_000_000 or (not is_done() and len(times) < 20_000_000):
        for _ in range(10_000):
            begin = clock()
            change(other)
            times.append(clock() - begin)
        if is_done() and len(times) >= 500_000:
            break
    seconds = time.monotonic() - start
    times.sort()
    return times[len(times) // 2], times[len(times) * 99 // 100], times[-1], seconds


WORKLOADS = {"give": give, "nothing": nothing, "switch": switch}


def measure(workload: str, python: str | Path = sys.executable) -> dict[str, float]:
    """Run a workload with the culm that `python` has installed, and return its figures."""
    command = [str(python), __file__, "--one", workload]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{workload} failed:\n{done.stderr}")
    result: dict[str, float] = json.loads(done.stdout)
    return result


def report(samples: dict[str, list[float]]) -> list[str]:
    lines = [f"{'figure':<34}{'median':>12}{'min':>12}{'max':>12}"]
    for name, values in samples.items():
        lines.append(f"{name:<34}{statistics.median(values):>12,.3f}{min(values):>12,.3f}{max(values):>12,.3f}")
    lines.append("")
    for bound in BOUNDS:
        if bound.name not in samples:
            continue
        middle = statistics.median(samples[bound.name])
        reached = middle >= bound.limit if bound.at_least else middle <= bound.limit
        side = "at least" if bound.at_least else "at most"
        lines.append(f"{'reached' if reached else 'MISSED ':<8} {middle:.4g} {bound.unit}: {side} {bound.limit:g}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", choices=[*WORKLOADS, []], help="what to measure (default: all)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="keep every single measurement in this file")
    parser.add_argument("--one", choices=list(WORKLOADS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        sys.setrecursionlimit(20_000)
        print(json.dumps(WORKLOADS[options.one]()))
        return
    samples: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for workload in options.workloads or WORKLOADS:
            for name, value in measure(workload).items():
                samples.setdefault(name, []).append(value)
    print("\n".join(report(samples)))
    keep(options.json, {"rounds": options.rounds}, samples=samples)


if __name__ == "__main__":
    main()
