"""Examines the machine: what the kernel and the limits offer to stacks, how many fibers would fit, what to change.

Costs follow from how Linux keeps memory: a parked fiber touches one page of its stack, and the stack's addresses need
page tables. The counts are therefore estimates of what is physically possible, not promises about a program.
"""

import os
import platform
import resource
import sysconfig
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

from culm import _culm
from culm.cli.machine import (
    available_memory_bytes,
    cgroup_memory_limit_bytes,
    count_mappings,
    has_proc,
    meminfo_bytes,
    memory_bytes,
    read_integer,
    read_text,
)

__all__ = ["Capacity", "Diagnosis", "capacity_of", "examine"]

# What a fiber has off its stack: the control block and the Python object. An estimate, rounded up.
_FIBER_RECORD_BYTES = 512
# A process can have 128 TB on x86-64 and more on aarch64; fragments and other mappings leave about half for stacks.
_ADDRESS_SPACE_BYTES = 64 << 40
# What is charged for a stack of the strategy used under strict overcommit before it grows.
_OPEN_AT_FIRST_BYTES = 64 << 10
_NO_LIMIT = resource.RLIM_INFINITY


@dataclass(frozen=True)
class Capacity:
    """How many fibers of one stack class would fit, and what sets the bound."""

    stack_class: str
    limit_bytes: int
    idle_bytes: int
    fibers: int
    bound: str  # memory, address space, mappings or overcommit


@dataclass(frozen=True)
class Diagnosis:
    """All that `culm doctor` has to say."""

    versions: dict[str, str]
    kernel: dict[str, Any]
    limits: dict[str, int | None]
    capacities: list[Capacity]
    advice: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The same as plain dictionaries, for JSON."""
        return asdict(self)


def examine() -> Diagnosis:
    """Look at this machine and this interpreter."""
    kernel = {
        **_culm.kernel_features(),
        "release": platform.release(),
        "memory_pressure": _culm.pressure_sources(),
        "transparent_huge_pages": _chosen(read_text("/sys/kernel/mm/transparent_hugepage/enabled")),
    }
    limits = _limits()
    capacities = [capacity_of(stack_class, kernel, limits) for stack_class in _culm.stack_classes()]
    return Diagnosis(_versions(), kernel, limits, capacities, _advice(kernel, limits))


def _versions() -> dict[str, str]:
    build = ["debug"] if sysconfig.get_config_var("Py_DEBUG") else []
    return {
        "culm": version("culm"),
        "python": " ".join([platform.python_implementation(), platform.python_version(), *build]),
        # The extension module refuses to be imported by an interpreter whose minor version it was not built for.
        "interpreter_support": "supported",
        "context_switch": _culm.context_implementation(),
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()),
    }


def _limits() -> dict[str, int | None]:
    descriptors_soft, descriptors_hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return {
        "descriptors": _finite(descriptors_soft),
        "descriptors_hard": _finite(descriptors_hard),
        "memory_bytes": memory_bytes(),
        "memory_available_bytes": available_memory_bytes(),
        "cgroup_memory_bytes": cgroup_memory_limit_bytes(),
        "address_space_bytes": _finite(resource.getrlimit(resource.RLIMIT_AS)[0]),
        "commit_limit_bytes": meminfo_bytes("CommitLimit"),
        "committed_bytes": meminfo_bytes("Committed_AS"),
        "mappings_in_use": count_mappings(),
        "os_threads": read_integer("/proc/sys/kernel/threads-max"),
        "processors": len(os.sched_getaffinity(0)),
    }


def capacity_of(stack_class: dict[str, Any], kernel: dict[str, Any], limits: dict[str, int | None]) -> Capacity:
    """How many parked fibers of this class would fit: the tightest of the bounds that apply."""
    page = kernel["page_bytes"]
    stride = stack_class["stride_bytes"]
    idle = page + _page_table_bytes(stride, page) + _FIBER_RECORD_BYTES
    address_space = min(limits["address_space_bytes"] or _ADDRESS_SPACE_BYTES, _ADDRESS_SPACE_BYTES)
    bounds = {
        "memory": (limits["memory_available_bytes"] or 0) // idle,
        "address space": address_space // stride,
    }
    if kernel["guard"] == "mprotect":
        # Each guard of this kind splits a mapping in two.
        bounds["mappings"] = max(0, kernel["mappings_max"] - (limits["mappings_in_use"] or 0)) // 2
    if kernel["overcommit_mode"] == 2:
        free = max(0, (limits["commit_limit_bytes"] or 0) - (limits["committed_bytes"] or 0))
        bounds["overcommit"] = free // min(stack_class["limit_bytes"], _OPEN_AT_FIRST_BYTES)
        # Each stack takes two mappings, and half of all mappings are left to the rest of the program.
        bounds["mappings"] = kernel["mappings_max"] // 4
    bound = min(bounds, key=lambda name: bounds[name])
    return Capacity(stack_class["name"], stack_class["limit_bytes"], idle, bounds[bound], bound)


def _page_table_bytes(stride: int, page: int) -> int:
    """The page tables of one stack of which only the page at its base was ever touched."""
    table_covers = page // 8 * page  # one table is one page of 8-byte entries
    lowest_level = page if stride >= table_covers else 8 * stride // page
    next_level = -(-8 * stride // table_covers)
    return lowest_level + next_level


def _advice(kernel: dict[str, Any], limits: dict[str, int | None]) -> list[str]:
    advice = []
    if not has_proc():
        advice.append(
            "/proc is not mounted: the mappings in use, vm.max_map_count and vm.overcommit_memory cannot be read here, "
            "and the values Linux begins with are assumed. Fibers work without it. Mount it: mount -t proc proc /proc"
        )
    if kernel["guard"] == "mprotect":
        advice.append(
            f"Guards use two mappings per stack, and vm.max_map_count is {kernel['mappings_max']}. "
            "Linux 6.13 or newer guards stacks without mappings; until then: sysctl -w vm.max_map_count=1048576"
        )
    if kernel["overcommit_mode"] == 2:
        advice.append(
            "vm.overcommit_memory is 2: every reserved byte counts against CommitLimit, so fibers get 'fault-handler' "
            "stacks, which are charged as they grow, instead of the arena's, whose whole limit would be charged. "
            f"Each takes two mappings, so at most {kernel['mappings_max'] // 4} fit, and a system call that writes "
            "into such a stack where nothing has been yet can fail with EFAULT. "
            "To use the arena nevertheless: spawn(strategy='arena'), or sysctl -w vm.overcommit_memory=0"
        )
    descriptors, descriptors_hard = limits["descriptors"], limits["descriptors_hard"]
    if descriptors is not None and descriptors < 65536:
        raising = (
            "ulimit -n 65536"
            if descriptors_hard is None or descriptors_hard >= 65536
            else "as root, LimitNOFILE=1048576 in the service, or nofile in /etc/security/limits.conf"
        )
        advice.append(f"At most {descriptors} files and sockets can be open at once. To raise it: {raising}")
    if limits["address_space_bytes"] is not None:
        advice.append(
            "The address space is limited, but stacks reserve more addresses than they use. To lift the limit: "
            "ulimit -v unlimited"
        )
    if sysconfig.get_config_var("Py_DEBUG"):
        advice.append("This is a debug build of the interpreter: fine for finding mistakes, slow for anything else.")
    if _culm.context_implementation() == "ucontext":
        advice.append(
            "The context switch is the portable one (ucontext), which calls the kernel twice for each switch. On "
            "x86-64 and aarch64 build culm without CULM_CONTEXT=ucontext to get the one in assembly."
        )
    return advice


def _chosen(text: str | None) -> str | None:
    """The bracketed word of a sysfs choice such as `always [madvise] never`."""
    return None if text is None else text.partition("[")[2].partition("]")[0] or text


def _finite(limit: int) -> int | None:
    return None if limit == _NO_LIMIT else limit
