"""The demo's job on OS threads, in a process of its own, for comparison.

Run as `python -m culm.cli.demo.threads CLIENTS DIVERS LEVELS SECONDS`; prints its figures as JSON. A process of its
own, so that neither side inherits the other's memory, limits or patched calls.
"""

import json
import resource
import subprocess
import sys
import threading
from typing import Any

from culm.cli.demo.course import Course, Crew, Figures
from culm.cli.machine import raise_descriptor_limit

__all__ = ["run_on_threads"]

_STACK_BYTES = 10 << 20  # the same limit as a fiber's
_TIMEOUT_SECONDS = 120


def run_on_threads(*, clients: int, divers: int, levels: int, seconds: float) -> Figures | str:
    """Measure in a child process; a text says why it was not possible."""
    command = [sys.executable, "-m", __name__, *map(str, (clients, divers, levels, seconds))]
    try:
        finished = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"did not end within {_TIMEOUT_SECONDS} seconds"
    if finished.returncode != 0:
        lines = finished.stderr.strip().splitlines()
        return lines[-1] if lines else f"exit status {finished.returncode}"
    figures: dict[str, Any] = json.loads(finished.stdout)
    return Figures(**figures)


def _spawn(function: Any, *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


def _switches() -> int:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_nvcsw + usage.ru_nivcsw


def _main(arguments: list[str]) -> int:
    clients, divers, levels = map(int, arguments[:3])
    raise_descriptor_limit(2 * clients + 64)
    sys.setrecursionlimit(max(sys.getrecursionlimit(), 10 * levels))
    threading.stack_size(_STACK_BYTES)
    crew = Crew(spawn=_spawn, switches=_switches, give_memory_back=lambda: None, stack_bytes=lambda: None)
    course = Course(clients=clients, divers=divers, levels=levels, seconds=float(arguments[3]), crew=crew)
    print(json.dumps(course.run().as_dict()))
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
