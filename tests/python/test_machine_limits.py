"""What the machine may have set or left out: a small RLIMIT_MEMLOCK, transparent huge pages everywhere, no /proc."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.skipif(os.geteuid() != 0, reason="giving privileges up needs them")
def test_a_small_limit_of_locked_memory_is_respected_and_explained(run_script: Any) -> None:
    done = run_script("""
import ctypes, os, resource
import culm
libc = ctypes.CDLL(None, use_errno=True)
resource.setrlimit(resource.RLIMIT_MEMLOCK, (8 << 20, 8 << 20))
os.setresuid(65534, 65534, 65534)
assert libc.mlockall(2) == 0  # MCL_FUTURE: what is mapped from now on counts, touched or not
fibers = [culm.spawn(lambda: "good", stack_limit=limit) for limit in (64 << 10, 256 << 10, 1 << 20) for _ in range(50)]
print({fiber.result() for fiber in fibers})
try:
    culm.spawn(int)  # 10 MB
except OSError as error:
    print(error.errno, "ulimit -l" in str(error))
print(culm.spawn(lambda: "still good", stack_limit=64 << 10).result())
""")
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["{'good'}", "12 True", "still good"]


def test_stacks_ask_for_no_huge_pages_wherever_they_are_on(run_script: Any) -> None:
    if not Path("/sys/kernel/mm/transparent_hugepage").exists():
        pytest.skip("this kernel has no transparent huge pages")
    done = run_script("""
import re, culm
fibers = [culm.spawn(culm.sleep, 60, stack_limit=limit) for limit in (64 << 10, 256 << 10, 1 << 20, 10 << 20)]
culm.yield_now()
arenas = []  # neighbours of the same kind are one mapping
for line in open("/proc/self/smaps"):
    if match := re.match("([0-9a-f]+)-([0-9a-f]+) (....) ", line):
        size, access = int(match[2], 16) - int(match[1], 16), match[3]
    elif line.startswith("VmFlags:") and access == "rw-p" and size > 256 << 20:
        arenas.append((size, "nh" in line.split()))
print(sum(size for size, refuses in arenas), all(refuses for size, refuses in arenas))
for fiber in fibers:
    fiber.cancel()
""")
    assert done.stderr == ""
    size, all_refuse = done.stdout.split()
    assert int(size) > 15 << 30
    assert all_refuse == "True"


@pytest.fixture
def run_without_proc(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command where /proc is an empty folder: in a mount namespace of its own."""
    hide = "mount -t tmpfs none /proc && exec"
    prefix = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
    try:
        subprocess.run([*prefix, f"{hide} true"], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"/proc cannot be hidden here: {error}")

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*prefix, f'{hide} "$@"', "sh", *command], capture_output=True, text=True, timeout=120, cwd=tmp_path
        )

    return run


def test_without_proc_blocking_calls_cooperate_and_stacks_shrink(
    run_without_proc: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = run_without_proc(
        sys.executable,
        "-c",
        """
import os, socket, time
import culm, culm.lowlevel

def recurse(depth):
    return min([depth], key=lambda _: recurse(depth - 1)) if depth else 0

def echo(connection):
    recurse(200)
    connection.sendall(connection.recv(100))

def main():
    near, far = socket.socketpair()
    fiber = culm.spawn(echo, near)
    culm.spawn(time.sleep, 0.01).join()
    assert culm.statistics().interposed_parks >= 2
    before = fiber.stack.resident
    assert culm.trim() >= 1
    print(os.path.exists("/proc/self"), fiber.stack.resident < before / 4)
    far.sendall(b"hello")
    print(far.recv(100))
    fiber.join()

culm.run(main)
""",
    )
    assert (done.stdout, done.stderr) == ("False True\nb'hello'\n", "")


def test_without_proc_the_commands_say_what_they_cannot_know(
    run_without_proc: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    pytest.importorskip("rich", reason="the command line needs culm[cli]")
    done = run_without_proc(sys.executable, "-m", "culm", "doctor")
    assert done.returncode == 0, done.stderr
    assert "/proc is not mounted" in done.stdout
    assert "unknown in use" in done.stdout
    done = run_without_proc(sys.executable, "-m", "culm", "demo")
    assert done.returncode == 1
    assert done.stderr.startswith("culm demo: it measures memory through /proc, which is not mounted")
