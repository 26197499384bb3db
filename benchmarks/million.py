"""A million parked fibers in one process: what they cost to make, keep, resume, fork, interrupt and end.

    python benchmarks/million.py [--count 1000000] [--limits 65536 262144 10485760] [--rounds N] [--json FILE]

For each stack limit three processes are measured, one after the other, so that only one has its memory at a time:

yardstick   touches one page of plain memory in every `limit` bytes: the pages and page tables that as many stacks
            need, without stacks. On a virtual machine most of this time is spent on getting memory back from the host
life        makes the fibers (spawned, run until they park), reads memory, page tables and mappings, forks, resumes all
            of them, ends
interrupt   makes the fibers, waits, is sent SIGINT, and ends with all of them parked

Every fiber runs a Python function that parks. A guard lies below each stack. Prints a table, a verdict per figure that
must be reached, and keeps every measurement in the file of --json.
Invariant: a figure is printed only if every fiber was parked when it was measured and ran on when it was resumed.
"""

import argparse
import json
import mmap
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import culm
from culm import lowlevel
from measuring import keep

KIB, MIB = 1024, 1024 * 1024
LIMITS = [64 * KIB, 256 * KIB, 10 * MIB]
# What a million fibers may occupy, for each group of stack limits: at least one limit of the group must stay below it.
# And how long making them may take.
MEMORY_MAX_GB = {(64 * KIB, 256 * KIB): 5.0, (10 * MIB,): 9.5}
CREATE_SECONDS_MAX = 15.0
MILLION = 1_000_000
MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # Python 3.13 names it; the value is that of every Linux here


# --- the process that is measured -------------------------------------------------------------------------------------


def memory() -> dict[str, int]:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {key: int(status[name].split()[0]) * KIB for key, name in (("resident", "VmRSS"), ("page_tables", "VmPTE"))}


def mappings() -> int:
    return len(Path("/proc/self/maps").read_text().splitlines())


resumed = 0


def wait() -> None:
    global resumed
    lowlevel.park()
    resumed += 1


def make(count: int, limit: int) -> tuple[list[culm.Fiber[None]], dict[str, float]]:
    """Make fibers and let each run until it parks. Return them with what that took."""
    before = memory()
    start = time.perf_counter()
    cpu = time.process_time()
    fibers = [culm.spawn(wait, stack_limit=limit) for _ in range(count)]
    spawned = time.perf_counter()
    culm.yield_now()
    end = time.perf_counter()
    after = memory()
    parked = sum(fiber.waiting_for == "unpark" for fiber in fibers)
    if parked != count:
        raise SystemExit(f"{count - parked} of {count} fibers are not parked")
    result: dict[str, float] = {
        "spawn_seconds": spawned - start,
        "create_seconds": end - start,
        "create_cpu_seconds": time.process_time() - cpu,
        "mappings": mappings(),
    }
    for key, value in after.items():
        result[f"{key}_bytes"] = value
        result[f"{key}_bytes_per_fiber"] = (value - before[key]) / count
    return fibers, result


def yardstick(count: int, limit: int) -> None:
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    memory = mmap.mmap(-1, count * limit, flags=flags)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    start = time.perf_counter()
    for offset in range(0, count * limit, limit):
        memory[offset] = 1
    print(json.dumps({"yardstick_seconds": time.perf_counter() - start}))


def life(count: int, limit: int) -> None:
    fibers, result = make(count, limit)
    start = time.perf_counter()
    child = os.fork()
    if child == 0:
        os._exit(0 if culm.fibers() == [] else 1)
    result["fork_seconds"] = time.perf_counter() - start
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        raise SystemExit("the child of fork() went wrong")
    result["fork_child_seconds"] = time.perf_counter() - start - result["fork_seconds"]

    start = time.perf_counter()
    for fiber in fibers:
        lowlevel.unpark(fiber)
    for fiber in fibers:
        fiber.join()
    result["resume_seconds"] = time.perf_counter() - start
    if resumed != count:
        raise SystemExit(f"only {resumed} of {count} fibers ran on")
    print(json.dumps(result), flush=True)


def interrupt(count: int, limit: int) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in what a shell runs in the background
    fibers, _result = make(count, limit)
    try:
        print("ready", flush=True)
        culm.sleep(3600)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    sys.exit(0 if len(fibers) == count else 1)


CHILDREN = {"yardstick": yardstick, "life": life, "interrupt": interrupt}


# --- measuring --------------------------------------------------------------------------------------------------------


def child(what: str, count: int, limit: int, python: str | Path) -> subprocess.Popen[str]:
    command = [str(python), __file__, "--child", what, "--count", str(count), "--limits", str(limit)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_until_asleep(process: subprocess.Popen[str]) -> None:
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
        time.sleep(0.001)


def expect(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    if process.stdout.readline().strip() != line:
        process.kill()
        raise SystemExit(f"the measured process did not get as far as {line!r}")


def measure(count: int, limit: int, python: str | Path = sys.executable) -> dict[str, float]:
    """Measure with the culm that `python` has installed."""
    result: dict[str, float] = {}
    for what in ("yardstick", "life"):
        process = child(what, count, limit, python)
        text, _ = process.communicate()
        if process.returncode != 0:
            raise SystemExit(f"the measured process ended with {process.returncode}")
        result |= json.loads(text)

    process = child("interrupt", count, limit, python)
    expect(process, "ready")
    wait_until_asleep(process)
    start = time.perf_counter()
    process.send_signal(signal.SIGINT)
    expect(process, "interrupted")
    interrupted = time.perf_counter()
    process.communicate()
    result["interrupt_seconds"] = interrupted - start
    result["exit_seconds"] = time.perf_counter() - interrupted
    if process.returncode != 0:
        raise SystemExit(f"the interrupted process ended with {process.returncode}")
    return result


ROWS = [
    ("yardstick", "yardstick_seconds", "s", 1),
    ("create", "create_seconds", "s", 1),
    ("  of this, spawning", "spawn_seconds", "s", 1),
    ("  CPU time", "create_cpu_seconds", "s", 1),
    ("resident", "resident_bytes", "GB", 1e-9),
    ("page tables", "page_tables_bytes", "GB", 1e-9),
    ("resident per fiber", "resident_bytes_per_fiber", "B", 1),
    ("page tables per fiber", "page_tables_bytes_per_fiber", "B", 1),
    ("mappings", "mappings", "", 1),
    ("fork() in the parent", "fork_seconds", "s", 1),
    ("  until the child has ended", "fork_child_seconds", "s", 1),
    ("resume all", "resume_seconds", "s", 1),
    ("Ctrl-C to KeyboardInterrupt", "interrupt_seconds", "s", 1),
    ("exit with all parked", "exit_seconds", "s", 1),
]


def limit_name(limit: int) -> str:
    return f"{limit // MIB} MB" if limit >= MIB else f"{limit // KIB} KB"


def table(samples: dict[int, list[dict[str, float]]], count: int) -> list[str]:
    lines = [f"{count:,} parked fibers" + "".join(f"{limit_name(limit):>26}" for limit in samples)]
    for title, key, unit, factor in ROWS:
        cells = []
        for rounds in samples.values():
            values = [one[key] * factor for one in rounds]
            digits = 3 if unit in ("s", "GB") else 0
            spread = f"({min(values):,.{digits}f} to {max(values):,.{digits}f})"
            cells.append(f"{statistics.median(values):,.{digits}f} {spread}")
        lines.append(f"{title + (' [' + unit + ']' if unit else ''):<32}" + "".join(f"{cell:>26}" for cell in cells))
    return lines


def verdicts(samples: dict[int, list[dict[str, float]]], count: int) -> list[str]:
    """The figures of a million, scaled to the count that was measured."""
    share = count / MILLION
    memory_gb, seconds = {}, {}
    for limit, rounds in samples.items():
        memory_gb[limit] = statistics.median(one["resident_bytes"] + one["page_tables_bytes"] for one in rounds) / 1e9
        seconds[limit] = statistics.median(one["create_seconds"] for one in rounds)
    lines = [
        verdict(f"create, {limit_name(limit)}", value, CREATE_SECONDS_MAX * share, "s")
        for limit, value in seconds.items()
    ]
    if count < MILLION:
        return lines  # the interpreter itself would count for too much
    for limits, bound in MEMORY_MAX_GB.items():
        name = " or ".join(limit_name(limit) for limit in limits)
        measured = [memory_gb[limit] for limit in limits if limit in memory_gb]
        if measured:
            lines.append(verdict(f"memory, {name}", min(measured), bound * share, "GB"))
    return lines


def verdict(name: str, measured: float, bound: float, unit: str) -> str:
    return f"{name}, {measured:.3f} {unit}, at most {bound:.3g} {unit}, {'ok' if measured <= bound else 'missed'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=MILLION)
    parser.add_argument("--limits", type=int, nargs="+", default=LIMITS, help="stack limits in bytes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="keep every single measurement in this file")
    parser.add_argument("--child", choices=list(CHILDREN), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        CHILDREN[options.child](options.count, options.limits[0])
        return
    samples: dict[int, list[dict[str, float]]] = {limit: [] for limit in options.limits}
    for _ in range(options.rounds):
        for limit, rounds in samples.items():
            rounds.append(measure(options.count, limit))
    print("\n".join([*table(samples, options.count), "", *verdicts(samples, options.count)]))
    keep(options.json, {"count": options.count}, samples=samples)


if __name__ == "__main__":
    main()
