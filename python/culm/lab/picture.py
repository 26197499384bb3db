"""Watches a real fiber's stack while it grows and shrinks: a Python fiber that recurses in steps and parks after each.

Another fiber looks at it while it is parked: where its stack pointer is, and which pages of its stack are in memory,
as the kernel says (`culm.lowlevel.resident_pages`). Runs in a child like every experiment: `python -m
culm.lab.picture` prints JSON. Invariant: no sample is computed from what ought to be; each is what the kernel said at
that moment.
"""

import json
import sys
from typing import Any

import culm
from culm import lowlevel
from culm.lab.child import run_child

__all__ = ["draw_fiber"]

_SECONDS_MAX = 20.0
_LEVELS = 160  # about 5 KB of stack each, so 800 KB in all
_LEVELS_DOWN = 16  # between two samples on the way down
_LEVELS_UP = 32  # and up
_SECOND_LEVELS = 64


def draw_fiber() -> dict[str, Any]:
    """Run the picture in a child. Returns its samples, or under "failure" the reason why there are none."""
    ended = run_child([sys.executable, "-P", "-m", "culm.lab.picture"], seconds_max=_SECONDS_MAX)
    if ended.timed_out:
        return {"failure": f"it took longer than {_SECONDS_MAX:g} s"}
    if ended.status != 0:
        reason = ended.stderr.strip().splitlines()[-1:] or [f"signal {ended.signal}, exit status {ended.status}"]
        return {"failure": reason[0]}
    try:
        drawn: dict[str, Any] = json.loads(ended.stdout)
    except ValueError:
        return {"failure": "its output is no JSON"}
    return drawn


class _Dive:
    """A recursion that parks every few levels, down and up."""

    def __init__(self, levels: int) -> None:
        self.level = 0
        self.levels = levels
        self.doing = ""

    def run(self) -> None:
        self.level = 0
        _descend(self)


def _descend(dive: _Dive) -> int:
    """Recurse through C and Python by turns: sort a list whose key sorts a list, and so on. All of it takes C stack."""
    dive.level += 1
    if dive.level % _LEVELS_DOWN == 0:
        dive.doing = "recurses"
        lowlevel.park()
    if dive.level < dive.levels:
        sorted((dive,), key=_descend)
    if dive.level % _LEVELS_UP == 0:
        dive.doing = "returns"
        lowlevel.park()
    dive.level -= 1
    return 0


class _Album:
    """The samples of one fiber."""

    def __init__(self, fiber: culm.Fiber[None]) -> None:
        self.fiber = fiber
        self.samples: list[dict[str, Any]] = []

    def take(self, doing: str) -> None:
        use = self.fiber.stack
        self.samples.append(
            {
                "doing": doing,
                "used_bytes": use.used,
                "resident_bytes": use.resident,
                "resident_pages": [list(run) for run in lowlevel.resident_pages(self.fiber)],
            }
        )

    def trim(self) -> None:
        culm.trim()
        self.take("trimmed")


def _life(dive: _Dive) -> None:
    dive.doing = "has started"
    lowlevel.park()
    dive.run()
    dive.doing = "is back at the base"
    lowlevel.park()
    dive.levels = _SECOND_LEVELS
    dive.run()
    dive.doing = "is back at the base"
    lowlevel.park()


def _watch() -> dict[str, Any]:
    dive = _Dive(_LEVELS)
    fiber = culm.spawn(_life, dive, name="diver")
    album = _Album(fiber)
    trimmed_half_way = False
    while _runs_until_parked(fiber):
        album.take(dive.doing)
        half_way_up = dive.doing == "returns" and 0 < dive.level <= dive.levels // 2
        if half_way_up and not trimmed_half_way:
            trimmed_half_way = True
            album.trim()
        if dive.doing == "is back at the base":
            album.trim()
        lowlevel.unpark(fiber)
    fiber.result()
    return {"limit_bytes": album.fiber.stack.limit, "page_bytes": _page_bytes(), "samples": album.samples}


def _runs_until_parked(fiber: culm.Fiber[None]) -> bool:
    """Let the fiber run until it parks. False when it has ended."""
    while fiber.state not in ("parked", "finished"):
        culm.yield_now()
    return fiber.state == "parked"


def _page_bytes() -> int:
    from culm._culm import kernel_features

    return int(kernel_features()["page_bytes"])


if __name__ == "__main__":
    sys.setrecursionlimit(10 * _LEVELS)
    json.dump(culm.run(_watch), sys.stdout)
