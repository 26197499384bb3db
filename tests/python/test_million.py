"""Very many parked fibers in one process: all resumed, forked, interrupted and ended; guarded, and without mappings.

20,000 by default. CULM_MILLION=1 makes it the million of the figures (about 10 GB of memory); the marker `slow` covers
a hundred thousand.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from culm import _culm

KIB, MIB = 1024, 1024 * 1024
KERNEL_GUARDS = _culm.kernel_features()["guard"] == "madvise"

# How each child process begins. Its arguments are the number of fibers and their stack limit.
HEADER = """
import gc, os, sys, time
import culm
from culm import lowlevel
count, limit = int(sys.argv[1]), int(sys.argv[2])
resumed = 0
def wait():
    global resumed
    lowlevel.park()
    resumed += 1
def make(function=wait):
    fibers = [culm.spawn(function, stack_limit=limit) for _ in range(count)]
    culm.yield_now()
    assert all(fiber.state == "parked" for fiber in fibers)
    return fibers
"""


def counts():
    if not KERNEL_GUARDS:
        return [pytest.param(5_000, id="5000")]  # each guard takes two mappings
    return [pytest.param(20_000, id="20000"), pytest.param(100_000, id="100000", marks=pytest.mark.slow)] + (
        [pytest.param(1_000_000, id="million", marks=pytest.mark.slow)] if os.environ.get("CULM_MILLION") else []
    )


@pytest.fixture(params=counts())
def count(request) -> int:
    return request.param


@pytest.fixture(params=[64 * KIB, 256 * KIB, 10 * MIB], ids=["64K", "256K", "10M"])
def limit(request) -> int:
    return request.param


@pytest.fixture
def run_many(run_script, count, limit):
    """Runs a script with `count` fibers of that limit to its end, which must be a good one."""

    def run(source: str) -> str:
        arguments = f"import sys; sys.argv[1:] = ['{count}', '{limit}']"
        done = run_script(arguments + HEADER + source, timeout=110)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run


def test_all_are_resumed_and_gone(run_many, count):
    out = run_many("""
fibers = make()
for fiber in fibers: lowlevel.unpark(fiber)
for fiber in fibers: fiber.join()
print(resumed, len(culm.fibers()), culm.statistics().fibers)
""")
    assert out.split() == [str(count), "0", "0"]


def test_guards_cost_no_mappings_and_memory_stays_within_the_figure(run_many, count, limit):
    if not KERNEL_GUARDS:
        pytest.skip("this kernel's guards are mappings")
    out = run_many("""
from pathlib import Path
def memory():
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return sum(int(status[key].split()[0]) * 1024 for key in ("VmRSS", "VmPTE"))
def mappings():
    return len(Path("/proc/self/maps").read_text().splitlines())
culm.spawn(wait, stack_limit=limit).cancel()
culm.yield_now()
before, mapped = memory(), mappings()
fibers = make()
print((memory() - before) / count, mappings() - mapped)
""")
    per_fiber, mapped = out.split()
    assert float(per_fiber) <= (9_500 if limit > MIB else 5_000) * (1.1 if count < 100_000 else 1)
    assert int(mapped) < 300


def test_child_of_fork_has_none_and_the_parent_all(run_many, count):
    out = run_many("""
fibers = make()
child = os.fork()
if child == 0:
    left = len(culm.fibers())
    spawned = culm.spawn(lambda: "spawned", stack_limit=limit).result()
    print(left, fibers[0].state, fibers[-1].state, spawned, flush=True)
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
for fiber in fibers: lowlevel.unpark(fiber)
for fiber in fibers: fiber.join()
print(resumed)
""")
    assert out.splitlines() == ["0 finished finished spawned", str(count)]


@pytest.mark.parametrize("patched", ["culm.patch()", ""], ids=["patched", "plain"])
def test_exit_unwinds_all(run_many, count, patched):
    out = run_many(f"""
import atexit
{patched}
ended = 0
def wait():
    global ended
    try:
        {"time.sleep(3600)" if patched else "culm.sleep(3600)"}
    finally:
        ended += 1
class Last:
    def __del__(self): print(ended)
last = Last()
fibers = make(wait)
""")
    assert out == f"{count}\n"


def test_clean_ups_that_wait_are_waited_for_at_exit(run_many, count):
    out = run_many("""
ended = 0
def wait():
    global ended
    try:
        lowlevel.park()
    finally:
        culm.sleep(0.001)
        ended += 1
class Last:
    def __del__(self): print(ended)
last = Last()
fibers = make(wait)
""")
    assert out == f"{count}\n"


def test_exit_drops_fibers_nobody_refers_to(run_many, count):
    out = run_many("""
class Held:
    ended = 0
    def __del__(self): Held.ended += 1
def wait():
    held = Held()
    lowlevel.park()
fibers = make(wait)
del fibers
gc.collect()
print(Held.ended, len(culm.fibers()))
""")
    assert out == f"{count} 0\n"


def test_ctrl_c_reaches_main_and_the_program_ends(tmp_path: Path, count, limit):
    script = tmp_path / "script.py"
    script.write_text(
        HEADER
        + """
fibers = make()
try:
    print("ready", flush=True)
    culm.sleep(3600)
except KeyboardInterrupt:
    print("interrupted", len(culm.fibers()), flush=True)
    raise
"""
    )
    process = subprocess.Popen(
        [sys.executable, script, str(count), str(limit)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=110)
    assert out == f"interrupted {count}\n"
    assert err.splitlines()[-1] == "KeyboardInterrupt"
    assert process.returncode == -signal.SIGINT


def test_interrupt_ends_culm_run_and_all_it_started(tmp_path: Path, count, limit):
    script = tmp_path / "script.py"
    script.write_text(
        HEADER
        + """
def main():
    fibers = make()
    print("ready", flush=True)
    time.sleep(3600)
try:
    culm.run(main)
except KeyboardInterrupt:
    print("interrupted", len(culm.fibers()), flush=True)
"""
    )
    process = subprocess.Popen(
        [sys.executable, script, str(count), str(limit)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=110)
    assert (out, err, process.returncode) == ("interrupted 0\n", "", 0)
