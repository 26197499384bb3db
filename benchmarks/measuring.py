"""What the programs of this folder share: the table of workloads, running one of them, verdicts, tables, JSON.

run.py compares libraries and compare.py compares revisions of culm. Both hand over samples by figure and by column (a
library, or a revision), one value per round, and name the column that is judged.
Invariant: a ratio is taken between two values of the same round. The median of the ratios counts.
"""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workloads import LEFT_OUT

HERE = Path(__file__).parent
ROOT = HERE.parent
LOAD = "culm_echo_load"
MESSAGE_BYTES = 64
# figure -> library or revision -> one value per round
Samples = dict[str, dict[str, list[float]]]


class LeftOutError(Exception):
    """Something cannot be measured here, and the message says why."""


# --- the workloads ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Workload:
    """A workload of workloads.py: the unit of its figure, the libraries that have it, and how it is run."""

    unit: str
    libraries: tuple[str, ...]
    connections: int = 0  # if not 0, it is a server, and so many connections put load on it

    def function(self, name: str, library: str) -> str:
        return f"serve_{library}" if self.connections else f"{name}_{library}"


PEERS = ("culm", "gevent", "asyncio")
GROUPS: dict[str, dict[str, Workload]] = {
    "switch": {
        "switch": Workload("ns", ("culm", "greenlet")),
        "switch_deep": Workload("ns", ("culm", "greenlet")),
    },
    "yield": {"yield_2": Workload("ns", PEERS), "yield_1000": Workload("ns", PEERS)},
    "spawn": {
        "spawn_1": Workload("ns", PEERS),
        "spawn": Workload("ns", PEERS),
        "spawn_100000": Workload("ns", PEERS),
    },
    "timers": {"timers": Workload("ns", PEERS)},
    "fd_wait": {"fd_wait": Workload("ns", ("culm",)), "fd_wait_timer": Workload("ns", ("culm",))},
    "parked": {
        "parked_small": Workload("B", ("culm",)),
        "parked_default": Workload("B", ("culm",)),
        "parked": Workload("B", ("gevent", "asyncio")),
    },
    "mappings": {"mappings": Workload("", ("culm",))},
    "echo": {
        "echo": Workload("us CPU/request", ("culm", "uvloop", "gevent", "threads"), connections=100),
        "echo_1000": Workload("us CPU/request", ("culm", "uvloop", "gevent"), connections=1000),
    },
}
WORKLOADS = {name: workload for group in GROUPS.values() for name, workload in group.items()}


def measure(name: str, library: str, load: Path | None, seconds: float, python: str | Path = sys.executable) -> float:
    """Run a workload with the libraries that `python` has installed, and return its figure."""
    workload = WORKLOADS[name]
    command = [str(python), str(HERE / "workloads.py"), *workload.function(name, library).rsplit("_", 1)]
    if workload.connections:
        if load is None:
            raise LeftOutError(f"{LOAD} is not built: make bench builds it")
        return measure_server(command, load, workload.connections, seconds)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    check_status(command, done.returncode, done.stderr)
    return float(done.stdout)


def check_status(command: Sequence[str], status: int, errors: str) -> None:
    if status == LEFT_OUT:
        raise LeftOutError(errors.strip())
    if status != 0:
        raise SystemExit(f"{' '.join(command)} ended with {status}:\n{errors}")


def cpu_us(pid: int) -> float:
    """CPU time of a process, all its threads, in microseconds: its CPU clock, as clock_getcpuclockid(3) names it."""
    return time.clock_gettime(~pid << 3 | 2) * 1e6


def measure_server(command: list[str], load: Path, connections: int, seconds: float) -> float:
    allow_descriptors(connections + 100)
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as server,
    ):
        try:
            assert server.stdout is not None
            port = server.stdout.readline().strip()
            if not port:
                status = server.wait() or 1
                errors.seek(0)
                check_status(command, status, errors.read())
            return cpu_us_per_echo(server.pid, [str(load), port, str(connections), str(MESSAGE_BYTES), str(seconds)])
        finally:
            server.kill()


def cpu_us_per_echo(server: int, command: list[str]) -> float:
    """Put load on a server and return its CPU time per echo, from when every connection has had one."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
        assert load.stdout is not None
        is_ready = load.stdout.readline() == "ready\n"
        before = cpu_us(server)
        echoes = load.stdout.readline()
        used = cpu_us(server) - before
    if load.returncode != 0 or not is_ready:
        raise SystemExit(f"{' '.join(command)} ended with {load.returncode}")
    if int(echoes) == 0:
        raise SystemExit(f"{' '.join(command)}: no echo came; the load must be longer")
    return used / int(echoes)


def allow_descriptors(count: int) -> None:
    """Raise this process's limit on open files, which its children inherit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


# --- the C++ benchmarks -----------------------------------------------------------------------------------------------


def build_programs(root: Path, *names: str) -> Path:
    """Build programs of benchmarks/ in the source tree `root`, and return the folder where they lie."""
    folder = root / "build" / "release"
    log = folder.with_suffix(".log")
    log.parent.mkdir(exist_ok=True)
    with log.open("w") as output:
        configured = (folder / "build.ninja").exists() or run_quietly(["cmake", "--preset", "release"], root, output)
        build = ["cmake", "--build", "--preset", "release", "--target", *names]
        if not configured or not run_quietly(build, root, output):
            raise LeftOutError(f"{', '.join(names)} could not be built (needs libbenchmark-dev): see {log}")
    return folder / "benchmarks"


def run_quietly(command: list[str], folder: Path, output: Any) -> bool:
    return subprocess.run(command, cwd=folder, stdout=output, stderr=output, check=False).returncode == 0


def run_cxx(program: Path, *options: str) -> dict[str, float]:
    """CPU nanoseconds per item, by benchmark; the median where one was repeated."""
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        command = [str(program), *options, f"--benchmark_out={out.name}", "--benchmark_out_format=json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        check_status(command, done.returncode, done.stderr)
        measured = json.loads(Path(out.name).read_text())["benchmarks"]
    samples: dict[str, list[float]] = {}
    for one in measured:
        if one.get("run_type") == "aggregate":
            continue
        if one.get("error_occurred"):
            print(f"left out: {one['name']} ({one['error_message']})", file=sys.stderr)
            continue
        name = one["name"].split("/iterations:")[0].split("/repeats:")[0]
        per_item = 1e9 / one["items_per_second"] if "items_per_second" in one else one["cpu_time"]
        samples.setdefault(name, []).append(per_item)
    return {name: statistics.median(values) for name, values in samples.items()}


# --- ratios and verdicts ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bound:
    """What must hold: the figure is at most `factor` times that of another; if none is named, at most `factor` itself.

    The other is the same figure in the column `peer`, or the figure `against` in the judged column.
    """

    figure: str
    factor: float
    peer: str | None = None
    against: str | None = None

    def text(self) -> str:
        other = self.peer or self.against
        return f"at most {self.factor:.4g} times {other}" if other else f"at most {self.factor:,.0f}"

    def values(self, samples: Samples, judged: str) -> list[float]:
        """Return what is held against the factor, one value per round; nothing if it was not measured."""
        own = samples.get(self.figure, {}).get(judged, [])
        if self.against:
            return ratios(own, samples.get(self.against, {}).get(judged, []))
        return ratios(own, samples.get(self.figure, {}).get(self.peer, [])) if self.peer else own


def ratios(measured: list[float], others: list[float]) -> list[float]:
    """Divide round by round. Rounds that only one side has are left out."""
    return [divide(one, other) for one, other in zip(measured, others, strict=False)]


def divide(measured: float, other: float) -> float:
    if other == 0:
        return 1.0 if measured == 0 else float("inf")
    return measured / other


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):,.4g} ({min(values):,.4g} to {max(values):,.4g})"


def verdicts(bounds: Iterable[Bound], samples: Samples, judged: str) -> list[str]:
    lines = []
    for bound in bounds:
        if values := bound.values(samples, judged):
            reached = statistics.median(values) <= bound.factor
            lines.append(f"{'reached' if reached else 'MISSED '}  {bound.figure}: {bound.text()}: {spread(values)}")
    return lines


# --- output -----------------------------------------------------------------------------------------------------------


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> None:
    """Print a table. The first `texts` columns hold words, the others figures."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number < texts else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    # A terminal that is narrower breaks the lines itself; a table squeezed into it would lose digits.
    Console(width=200).print(table)


def keep(path: Path | None, about: dict[str, Any], **measured: Any) -> None:
    """Write what was measured into a JSON file, if there is to be one, together with where and when that was."""
    if path is None:
        return
    here = {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    path.write_text(json.dumps({"about": here | about, **measured}, indent=1))
