"""Reads what Linux says about this process and this machine: memory, limits, mappings.

Everything here reads /proc, /sys and rlimits; a file that is not there gives None, since containers hide some of them.
"""

import os
import resource
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "ProcessReading",
    "available_memory_bytes",
    "cgroup_memory_limit_bytes",
    "count_mappings",
    "has_proc",
    "meminfo_bytes",
    "memory_bytes",
    "open_descriptors",
    "raise_descriptor_limit",
    "read_integer",
    "read_process",
    "read_text",
]


@dataclass(frozen=True)
class ProcessReading:
    """What one process occupies, at one moment."""

    resident_bytes: int  # pages in memory, page tables included
    os_threads: int
    mappings: int


def has_proc() -> bool:
    """Whether /proc is mounted; a chroot may lack it."""
    return Path("/proc/self/status").exists()


def read_process() -> ProcessReading:
    """Read it for this process. Needs /proc."""
    status = _read_fields(Path("/proc/self/status"))
    return ProcessReading(
        resident_bytes=(status["VmRSS"] + status["VmPTE"]) * 1024,
        os_threads=status["Threads"],
        mappings=count_mappings() or 0,
    )


def count_mappings() -> int | None:
    """Lines of /proc/self/maps."""
    try:
        with open("/proc/self/maps", "rb") as maps:
            return sum(1 for _ in maps)
    except OSError:
        return None


def read_text(path: str) -> str | None:
    """The content of a small file without its last newline, or None if it cannot be read."""
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def read_integer(path: str) -> int | None:
    """The number in a small file, or None if there is none."""
    text = read_text(path)
    return int(text) if text is not None and text.lstrip("-").isdigit() else None


def meminfo_bytes(field: str) -> int | None:
    """A field of /proc/meminfo, in bytes."""
    kilobytes = _read_fields(Path("/proc/meminfo")).get(field)
    return None if kilobytes is None else kilobytes * 1024


def memory_bytes() -> int:
    """The memory of the machine."""
    return meminfo_bytes("MemTotal") or _sysconf_bytes("SC_PHYS_PAGES")


def available_memory_bytes() -> int:
    """What this process can still take: the smaller of the machine's and the cgroup's remainder."""
    machine = meminfo_bytes("MemAvailable") or _sysconf_bytes("SC_AVPHYS_PAGES")
    limit = cgroup_memory_limit_bytes()
    if limit is None:
        return machine
    return min(machine, max(0, limit - (_cgroup_memory_used_bytes() or 0)))


def _sysconf_bytes(pages_name: str) -> int:
    """A number of pages that the kernel tells without /proc, in bytes. Free memory does not count caches."""
    return os.sysconf(pages_name) * resource.getpagesize()


def cgroup_memory_limit_bytes() -> int | None:
    """The memory limit of this process's control group; None when there is none below the machine's memory."""
    total = memory_bytes()
    limits = [limit for limit in map(read_integer, _cgroup_files("memory.max", "memory.limit_in_bytes")) if limit]
    if not limits or min(limits) >= total:
        return None
    return min(limits)


def _cgroup_memory_used_bytes() -> int | None:
    used = [value for value in map(read_integer, _cgroup_files("memory.current", "memory.usage_in_bytes")) if value]
    return min(used) if used else None


def _cgroup_files(unified_name: str, legacy_name: str) -> list[str]:
    """The files that may hold a value for our control group, version 2 and version 1."""
    files = [f"/sys/fs/cgroup/{unified_name}", f"/sys/fs/cgroup/memory/{legacy_name}"]
    for line in (read_text("/proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            files.append(f"/sys/fs/cgroup{path}/{unified_name}")
        elif "memory" in controllers.split(","):
            files.append(f"/sys/fs/cgroup/memory{path}/{legacy_name}")
    return files


def raise_descriptor_limit(wanted: int) -> int:
    """Raise the limit on open files to `wanted` if that is allowed; returns the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return soft
    # Raising the hard limit too needs a privilege; the soft one may always go up to the hard one.
    for limits in ((wanted, max(hard, wanted)), (min(wanted, hard), hard)):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        except (OSError, ValueError):
            continue
        break
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def open_descriptors() -> int:
    """How many descriptors this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def _read_fields(path: Path) -> dict[str, int]:
    """The numeric fields of a file made of lines `Name:  number [kB]`."""
    fields = {}
    for line in (read_text(str(path)) or "").splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            fields[name] = int(words[0])
    return fields
