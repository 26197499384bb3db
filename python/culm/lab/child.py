"""Runs one command as a child that cannot outlive the lab, and tells how it ended.

An experiment may crash, hang or eat memory; that is what it is for. So each gets a process group of its own, a time
limit and no core file, and the kernel is asked to kill it when the lab dies, even by SIGKILL.
Invariant: when `run_child` returns or raises, no process of the child's process group is alive.
"""

import contextlib
import ctypes
import os
import resource
import select
import signal
import subprocess
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

__all__ = ["Ended", "run_child"]

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG in <sys/prctl.h>
_OUTPUT_BYTES_MAX = 16 << 20
_POLL_SECONDS = 0.01
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Ended:
    """How a child ended and what it wrote."""

    status: int | None  # the exit status, None if a signal ended it
    signal: int | None  # the signal that ended it, None if it exited
    timed_out: bool  # if so, the signal came from us
    stdout: str
    stderr: str
    seconds: float


def run_child(command: Sequence[str], *, seconds_max: float) -> Ended:
    """Run the command to its end, or kill it after `seconds_max`. OSError if it cannot be started."""
    lab = os.getpid()
    started = time.monotonic()
    # The child writes into files in memory instead of pipes: nobody has to read them while it runs, and nobody waits
    # for the end of a grandchild that keeps them open.
    with _memory_file("stdout") as stdout, _memory_file("stderr") as stderr:
        with warnings.catch_warnings():
            # CPython 3.12 warns of forking when there are threads. What runs in the child takes no lock of Python, and
            # the lab itself starts no thread.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                preexec_fn=lambda: _bind_to(lab),
            )
        timed_out = True
        try:
            timed_out = not _wait_ended(child.pid, started + seconds_max)
        finally:
            # Until the child is reaped its number, which is also its group's, cannot be given to anybody else.
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        code = child.returncode
        return Ended(
            status=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            timed_out=timed_out,
            stdout=_content(stdout.fileno()),
            stderr=_content(stderr.fileno()),
            seconds=time.monotonic() - started,
        )


def _memory_file(name: str) -> BinaryIO:
    return open(os.memfd_create(f"culm-lab-{name}"), "w+b")


def _content(descriptor: int) -> str:
    return os.pread(descriptor, _OUTPUT_BYTES_MAX, 0).decode(errors="replace")


def _bind_to(lab: int) -> None:
    """Runs in the child before it becomes the command."""
    _LIBC.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != lab:
        os._exit(1)  # the lab died before the call above, so that the kernel will not kill this child
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # If memory runs out, the kernel kills an experiment first, not the lab or somebody else's program.
    with contextlib.suppress(OSError):
        score = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(score, b"1000")
        os.close(score)


def _wait_ended(pid: int, deadline: float) -> bool:
    """Wait until the child has ended, without reaping it. False when the deadline comes first."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:  # Linux before 5.3, or a sandbox
        return _poll_ended(pid, deadline)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
    finally:
        os.close(descriptor)


def _poll_ended(pid: int, deadline: float) -> bool:
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True
