"""What the machine may have set: a small RLIMIT_MEMLOCK, transparent huge pages everywhere."""

import os
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
