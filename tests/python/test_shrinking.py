"""Parked fibers give their memory back by themselves; how much each function's fibers use is known.

Waits are for conditions: that a counter has moved, never that a time has passed.
"""

import dataclasses
import functools
import os
import re
import resource
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import culm
from culm import _culm, lowlevel

PAGE = resource.getpagesize()
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def settings_are_put_back() -> Iterator[None]:
    """Each test begins and ends with the settings that were there, and with cold stacks."""
    before = culm.configure()
    culm.trim()
    yield
    culm.configure(**dataclasses.asdict(before))
    _culm.override_pressure_sources(None, None)


def recurse(depth: int) -> int:
    """Use the C stack: min() calls back into Python from C."""
    if depth == 0:
        return 0
    return min([depth], key=lambda _: recurse(depth - 1))


def park_after(depth: int) -> None:
    recurse(depth)
    lowlevel.park()


def park_all(count: int, depth: int = 200) -> list[culm.Fiber[None]]:
    fibers = [culm.spawn(park_after, depth) for _ in range(count)]
    culm.yield_now()
    return fibers


def end_all(fibers: list[culm.Fiber[None]]) -> None:
    for fiber in fibers:
        lowlevel.unpark(fiber)
    for fiber in fibers:
        fiber.join()


def resident(fibers: list[culm.Fiber[None]]) -> int:
    return sum(fiber.stack.resident for fiber in fibers)


def test_idle_fibers_give_back_what_they_do_not_need_and_keep_their_peaks() -> None:
    before = culm.statistics()
    culm.configure(shrink_after=0.01)
    fibers = park_all(200)
    deep, peaks = resident(fibers), [fiber.stack.peak for fiber in fibers]
    while culm.statistics().shrink_fibers < before.shrink_fibers + 200:
        culm.sleep(0.02)
    after = culm.statistics()
    assert resident(fibers) < deep / 5
    assert [fiber.stack.peak for fiber in fibers] == peaks
    assert after.shrink_bytes - before.shrink_bytes == deep - resident(fibers)
    assert after.shrink_visited - before.shrink_visited >= 200
    assert after.shrink_kept_bytes == 0
    assert after.shrink_cpu_ns > before.shrink_cpu_ns
    end_all(fibers)


def test_a_thread_that_is_never_idle_gives_back_beyond_the_budget() -> None:
    culm.configure(shrink_after=0.01, shrink_budget=0)
    fibers = park_all(50)
    deep = resident(fibers)
    before = culm.statistics().idle_polls
    spinner = culm.spawn(spin_until, lambda: resident(fibers) < deep / 5)
    while not spinner.join(0):
        culm.yield_now()
    assert culm.statistics().idle_polls == before
    end_all(fibers)


def spin_until(done: Callable[[], bool]) -> None:
    while not done():
        for _ in range(1000):
            culm.yield_now()


def test_within_the_budget_a_busy_thread_only_looks() -> None:
    culm.configure(shrink_after=0.01, shrink_budget=1 << 30)
    before = culm.statistics()
    fibers = park_all(50)
    deep = resident(fibers)
    spinner = culm.spawn(spin_until, lambda: culm.statistics().shrink_visited >= before.shrink_visited + 50)
    while not spinner.join(0):
        culm.yield_now()
    assert resident(fibers) == deep
    assert culm.statistics().shrink_kept_bytes > deep / 2
    culm.trim()
    assert resident(fibers) < deep / 5
    assert culm.statistics().shrink_kept_bytes == 0
    end_all(fibers)


def test_every_frame_survives_being_shrunk() -> None:
    culm.configure(shrink_after=0.001, shrink_budget=0)

    def remember(number: int) -> int:
        values = list(range(number))
        recurse(100)
        lowlevel.park()
        recurse(150)
        return sum(values)

    shrunk = culm.statistics().shrink_fibers
    fibers = [culm.spawn(remember, number) for number in range(100)]
    culm.yield_now()
    while culm.statistics().shrink_fibers < shrunk + 100:
        culm.sleep(0.005)
    for fiber in fibers:
        lowlevel.unpark(fiber)
    assert [fiber.result() for fiber in fibers] == [sum(range(number)) for number in range(100)]


def test_memory_pressure_takes_everything_at_once(tmp_path: Path) -> None:
    (tmp_path / "memory.current").write_text("99\n")
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.high").write_text("max\n")
    culm.configure(shrink_after=None)
    _culm.override_pressure_sources(str(tmp_path), None)
    fibers = park_all(20)
    deep, before = resident(fibers), culm.statistics().pressure_events
    (tmp_path / "memory.max").write_text("100\n")
    while culm.statistics().pressure_events == before:
        culm.sleep(0.05)
    culm.sleep(0)
    while resident(fibers) > deep / 5:
        culm.sleep(0.01)
    end_all(fibers)


def test_another_thread_follows_the_settings_at_once_even_when_it_is_idle() -> None:
    culm.configure(shrink_after=None, react_to_pressure=False)
    parked: list[culm.Fiber[None]] = []
    ready, finish = threading.Event(), threading.Event()

    def work() -> None:
        parked.extend(park_all(1))
        culm.spawn(ready.set)
        culm.spawn(finish.wait).join()
        end_all(parked)

    thread = threading.Thread(target=work)
    thread.start()
    ready.wait()
    deep = parked[0].stack.resident
    culm.configure(shrink_after=0.001)
    while parked[0].stack.resident > deep / 5:
        culm.sleep(0.01)
    finish.set()
    thread.join()


def test_sites_tell_what_the_fibers_of_each_function_use() -> None:
    fibers = park_all(10, 100) + park_all(10, 300)
    site = next(site for site in culm.stack_sites() if site.function == "park_after")
    assert site.file is not None
    assert Path(site.file).samefile(__file__)
    assert site.line == park_after.__code__.co_firstlineno
    assert site.fibers == 20
    assert site.limit == 20 * fibers[0].stack.limit
    assert site.resident == resident(fibers)
    assert site.peak_max >= max(fiber.stack.peak for fiber in fibers)
    totals = culm.statistics(stacks=True)
    assert totals.stack_resident_bytes == resident(fibers)
    assert totals.stack_peak_bytes is not None
    assert totals.stack_peak_bytes >= site.peak_max
    assert totals.stack_limit_bytes == site.limit
    assert culm.statistics().stack_resident_bytes is None
    end_all(fibers)
    after = next(site for site in culm.stack_sites() if site.function == "park_after")
    assert (after.fibers, after.resident) == (0, 0)
    assert after.peaks >= 20
    assert after.peak_max == site.peak_max


def test_exact_peaks_are_each_fibers_own() -> None:
    culm.configure(exact_peaks=True)

    def deep() -> None:
        recurse(300)

    def shallow() -> None:
        pass

    culm.spawn(deep).join()
    fiber = culm.spawn(lowlevel.park)
    culm.yield_now()
    assert fiber.stack.peak <= 3 * PAGE, "the stack that the deep one left is clean"
    lowlevel.unpark(fiber)
    fiber.join()
    culm.spawn(deep).join()
    culm.spawn(functools.partial(shallow)).join()
    sites = {site.function.rpartition(".")[2]: site for site in culm.stack_sites()}
    assert sites["deep"].peak_max > 100 * 1024
    assert (sites["deep"].peaks, sites["shallow"].peaks) == (2, 1)
    assert sites["shallow"].peak_max <= 4 * PAGE
    assert sites["deep"].peak_mean == sites["deep"].peak_max


def test_fibers_are_listed_in_the_order_of_their_making_whatever_was_shrunk() -> None:
    fibers = park_all(10)
    culm.trim()
    again = fibers[3]
    lowlevel.unpark(again)
    fibers.append(culm.spawn(park_after, 1))
    fibers.remove(again)
    assert [fiber for fiber in culm.fibers() if fiber is not again] == fibers
    end_all(fibers)
    again.join()


def test_stacks_never_get_huge_pages() -> None:
    fibers = park_all(1)
    base = stack_mapping_flags()
    assert base, "no mapping of an arena was found"
    assert all("nh" in flags for flags in base)
    end_all(fibers)


def stack_mapping_flags() -> list[list[str]]:
    """VmFlags of every mapping above half a gigabyte: the arenas."""
    found = []
    size = 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if match := re.match(r"Size: +(\d+) kB", line):
            size = int(match[1])
        elif line.startswith("VmFlags:") and size > 1 << 19:
            flags = line.split()[1:]
            if "rd" in flags and "wr" in flags:
                found.append(flags)
    return found


def test_fork_while_slices_are_under_way(run_script: Run) -> None:
    done = run_script("""
import os, threading, time, warnings
import culm
warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
from culm import lowlevel
def recurse(depth):
    return 0 if depth == 0 else min([depth], key=lambda _: recurse(depth - 1))
def park():
    recurse(200)
    lowlevel.park()
    return recurse(100)
culm.configure(shrink_after=0.001, shrink_budget=0)
def busy():
    while not stop:
        fibers = [culm.spawn(park) for _ in range(100)]
        culm.sleep(0.003)
        for fiber in fibers:
            lowlevel.unpark(fiber)
        for fiber in fibers:
            fiber.result()
stop = False
thread = threading.Thread(target=busy)
thread.start()
fibers = [culm.spawn(park) for _ in range(50)]
culm.yield_now()
for _ in range(30):
    culm.sleep(0.002)
    child = os.fork()
    if child == 0:
        mine = [culm.spawn(park) for _ in range(20)]
        culm.sleep(0.003)
        culm.trim()
        assert culm.statistics().shrink_kept_bytes == 0
        for fiber in mine:
            lowlevel.unpark(fiber)
        assert [fiber.result() for fiber in mine] == [100] * 20
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
stop = True
thread.join()
for fiber in fibers:
    lowlevel.unpark(fiber)
for fiber in fibers:
    fiber.result()
print("good")
""")
    assert (done.stdout, done.stderr) == ("good\n", "")


def test_threads_that_end_while_slices_are_under_way(run_script: Run) -> None:
    done = run_script("""
import threading
import culm
from culm import lowlevel
def recurse(depth):
    return 0 if depth == 0 else min([depth], key=lambda _: recurse(depth - 1))
def park():
    recurse(200)
    lowlevel.park()
culm.configure(shrink_after=0.001, shrink_budget=0)
def work():
    fibers = [culm.spawn(park) for _ in range(50)]
    while culm.statistics().shrink_visited == 0:
        culm.sleep(0.001)
for _ in range(40):
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print("good")
""")
    assert (done.stdout, done.stderr) == ("good\n", "")


MLOCKALL = """
import ctypes, resource
libc = ctypes.CDLL(None, use_errno=True)
assert libc.mlockall({flags}) == 0
"""
USE_STACKS = """
import culm
from culm import lowlevel
def recurse(depth):
    return 0 if depth == 0 else min([depth], key=lambda _: recurse(depth - 1))
def park():
    recurse(200)
    lowlevel.park()
    recurse(200)
fibers = [culm.spawn(park) for _ in range(20)]
culm.yield_now()
culm.trim()
for fiber in fibers:
    lowlevel.unpark(fiber)
for fiber in fibers:
    fiber.result()
now = culm.statistics()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="locking memory needs a privilege")
def test_future_memory_locked_does_not_commit_whole_arenas(run_script: Run) -> None:
    script = MLOCKALL.format(flags=2) + USE_STACKS
    script += """
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
assert int(status["VmRSS"].split()[0]) < 500_000, status["VmRSS"]
print("good")
"""
    done = run_script(script)
    assert (done.stdout, done.stderr) == ("good\n", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="locking memory needs a privilege")
def test_locked_stacks_stay_and_are_counted_as_refused(run_script: Run) -> None:
    script = "import culm\nculm.spawn(int).join()\n" + MLOCKALL.format(flags="1 | 4") + USE_STACKS
    script += (
        "assert now.shrink_refused == now.shrink_ranges > 0, now\nassert now.shrink_bytes == 0, now\nprint('good')\n"
    )
    done = run_script(script)
    assert (done.stdout, done.stderr) == ("good\n", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace needs a privilege")
def test_without_proc_and_sys_everything_but_the_pressure_works(run_script: Run) -> None:
    done = run_script("""
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(0x00020000) != 0:
    sys.exit(77)
libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None)
for directory in (b"/proc", b"/sys"):
    assert libc.mount(b"none", directory, b"tmpfs", 0, None) == 0
import culm
from culm import _culm, lowlevel
assert _culm.pressure_sources() == {"group_directory": "", "stall_file": ""}
assert not _culm.kernel_features()["pagemap_scan"]
def recurse(depth):
    return 0 if depth == 0 else min([depth], key=lambda _: recurse(depth - 1))
def park():
    recurse(200)
    lowlevel.park()
fibers = [culm.spawn(park) for _ in range(20)]
culm.yield_now()
deep = sum(fiber.stack.resident for fiber in fibers)
culm.trim()
assert sum(fiber.stack.resident for fiber in fibers) < deep / 5
assert lowlevel.resident_pages(fibers[0])[0][0] == 0
for fiber in fibers:
    lowlevel.unpark(fiber)
for fiber in fibers:
    fiber.result()
print("good")
""")
    if done.returncode == 77:
        pytest.skip("this machine does not let root make a mount namespace")
    assert (done.stdout, done.stderr) == ("good\n", "")
