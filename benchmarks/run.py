"""Measure culm beside its peers: every workload of one run alternates between the libraries, round after round.

    python benchmarks/run.py [switch spawn parked mappings echo] [--rounds N] [--json FILE]

Prints, per workload, the median and the spread of each library, its ratio to culm, and whether the figure that culm
must reach is reached. Needs the libraries of the extra `bench`; one that is missing is left out and named.
Invariant: ratios are only taken between figures of the same run on the same machine.
"""

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
LOAD = "culm_echo_load"
CONNECTIONS, MESSAGE_BYTES = 100, 64


@dataclass(frozen=True)
class Bound:
    """What must hold: culm's median is at most `factor` times the peer's; without a peer, at most `factor` itself."""

    workload: str
    factor: float
    peer: str | None = None
    against: str | None = None  # another workload of culm

    def text(self) -> str:
        other = self.peer or (f"culm's own {self.against}" if self.against else "")
        return f"at most {self.factor:.4g} times {other}" if other else f"at most {self.factor:,.0f}"


UNITS = {
    "switch": "ns",
    "switch_deep": "ns",
    "spawn": "ns",
    "parked_small": "B",
    "parked_default": "B",
    "parked": "B",
    "mappings": "",
    "echo": "us CPU/request",
}
GROUPS = {
    "switch": {"switch": ["culm", "greenlet"], "switch_deep": ["culm", "greenlet"]},
    "spawn": {"spawn": ["culm", "gevent", "asyncio"]},
    "parked": {"parked_small": ["culm"], "parked_default": ["culm"], "parked": ["gevent", "asyncio"]},
    "mappings": {"mappings": ["culm"]},
    "echo": {"echo": ["culm", "uvloop", "gevent", "threads"]},
}
BOUNDS = [
    Bound("switch", 1 / 6, peer="greenlet"),
    Bound("switch_deep", 1.10, against="switch"),
    Bound("spawn", 1 / 20, peer="gevent"),
    Bound("spawn", 1.0, peer="asyncio"),
    Bound("parked_small", 5000),
    Bound("parked_default", 9000),
    Bound("mappings", 199),
    Bound("echo", 1.15, peer="uvloop"),
    Bound("echo", 2 / 3, peer="gevent"),
]


def available(library: str) -> bool:
    return library in ("asyncio", "threads") or importlib.util.find_spec(library) is not None


def measure(workload: str, library: str, load: Path | None, seconds: float) -> float:
    if workload == "echo":
        assert load is not None
        return measure_echo(library, load, seconds)
    command = [sys.executable, str(HERE / "workloads.py"), workload, library]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def cpu_us(pid: int) -> float:
    """CPU time of a process, all its threads, in microseconds: its CPU clock, as clock_getcpuclockid(3) names it."""
    return time.clock_gettime(~pid << 3 | 2) * 1e6


def measure_echo(library: str, load: Path, seconds: float) -> float:
    server = subprocess.Popen(
        [sys.executable, str(HERE / "workloads.py"), "serve", library], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        port = server.stdout.readline().strip()
        run_load(load, port, 0.3)
        before = cpu_us(server.pid)
        echoes = run_load(load, port, seconds)
        return (cpu_us(server.pid) - before) / echoes
    finally:
        server.kill()
        server.wait()


def run_load(load: Path, port: str, seconds: float) -> int:
    command = [str(load), port, str(CONNECTIONS), str(MESSAGE_BYTES), str(seconds)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def find_load() -> Path | None:
    found = [path for path in HERE.parent.glob(f"build/*/benchmarks/{LOAD}") if os.access(path, os.X_OK)]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def run_groups(groups: list[str], rounds: int, seconds: float) -> dict[str, dict[str, list[float]]]:
    load = find_load()
    samples: dict[str, dict[str, list[float]]] = {}
    for group in groups:
        if group == "echo" and load is None:
            print(f"left out: echo ({LOAD} is not built: make bench builds it)", file=sys.stderr)
            continue
        for workload, libraries in GROUPS[group].items():
            missing = [library for library in libraries if not available(library)]
            for library in missing:
                print(f"left out: {workload} of {library} (pip install {library})", file=sys.stderr)
            samples[workload] = {library: [] for library in libraries if library not in missing}
        for _ in range(rounds):
            for workload in GROUPS[group]:
                for library, values in samples[workload].items():
                    values.append(measure(workload, library, load, seconds))
    return samples


def report(samples: dict[str, dict[str, list[float]]]) -> list[str]:
    lines = [f"{'workload':<16}{'library':<10}{'median':>12}{'min':>12}{'max':>12}  unit            ratio to culm"]
    medians: dict[tuple[str, str], float] = {}
    for workload, libraries in samples.items():
        for library, values in libraries.items():
            medians[workload, library] = statistics.median(values)
        own = medians.get((workload, "culm"))
        for library, values in libraries.items():
            middle = medians[workload, library]
            ratio = f"{middle / own:.2f}" if own and library != "culm" else ""
            lines.append(
                f"{workload:<16}{library:<10}{middle:>12,.2f}{min(values):>12,.2f}{max(values):>12,.2f}  "
                f"{UNITS[workload]:<16}{ratio}"
            )
    lines.append("")
    for bound in BOUNDS:
        own = medians.get((bound.workload, "culm"))
        other = medians.get((bound.workload, bound.peer)) if bound.peer else 1.0
        if bound.against:
            other = medians.get((bound.against, "culm"))
        if own is None or other is None:
            continue
        reached = own <= bound.factor * other
        lines.append(f"{'reached' if reached else 'MISSED ':<8} {bound.workload}: {bound.text()}: {own / other:.4g}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", choices=[*GROUPS, []], help="what to measure (default: everything)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one echo load")
    parser.add_argument("--json", type=Path, help="keep every single measurement in this file")
    options = parser.parse_args()
    samples = run_groups(options.groups or list(GROUPS), options.rounds, options.seconds)
    print("\n".join(report(samples)))
    if options.json:
        about = {
            "python": platform.python_version(),
            "kernel": platform.release(),
            "cpus": os.cpu_count(),
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "rounds": options.rounds,
        }
        options.json.write_text(json.dumps({"about": about, "samples": samples}, indent=1))


if __name__ == "__main__":
    main()
