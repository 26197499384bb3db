"""culm.configure(): the settings of the process, read and changed in one call.

Invariant: either every given setting is valid and all are taken over, or none is.
"""

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from culm import _culm

_BUDGET_MAX = 1 << 62
_SECONDS_MAX = 1e9  # some thirty years
_END_PROCESS, _END_FIBER = "end_process", "end_fiber"

_change = threading.Lock()


class _Unset:
    """Stands for an argument that was not given. None cannot, because it is a valid setting."""

    def __repr__(self) -> str:
        return "unchanged"


_UNSET = _Unset()


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in force, for all threads of the process."""

    shrink_after: float | None  #: seconds a fiber must have been parked before its memory goes back; None: never
    shrink_budget: int  #: bytes all parked fibers may keep beyond what they need while their threads are busy
    pool_budget: int  #: bytes each thread's free stacks may keep
    react_to_pressure: bool  #: give everything back at once when memory is short
    on_overflow: str  #: "end_process" or "end_fiber": what ends when C code runs out of stack
    exact_peaks: bool  #: clean each stack when its fiber ends, so that no peak includes what an earlier fiber used


def configure(
    *,
    shrink_after: float | _Unset | None = _UNSET,
    shrink_budget: int | _Unset = _UNSET,
    pool_budget: int | _Unset = _UNSET,
    react_to_pressure: bool | _Unset = _UNSET,
    exact_peaks: bool | _Unset = _UNSET,
    on_overflow: str | _Unset = _UNSET,
) -> Settings:
    """Change the given settings and return all that are then in force. Without arguments: only return them.

    The settings hold for the whole process. A thread that already runs fibers follows the next time its scheduler
    looks at timers and descriptors; an idle one is woken to do so. May be called from any thread. Does not park.

    shrink_after: seconds, 1.0 by default. When a fiber has been parked for this long, culm looks once at how much of
        its stack is in memory. What the fiber does not need is given back when its thread has been idle for this long
        too, or sooner when a budget is exceeded. None: memory is given back only by culm.trim() and when memory is
        short. Less than 0.001 counts as 0.001.
    shrink_budget: bytes, 32 MiB by default, that the parked fibers of the process may keep beyond what they need while
        their threads are busy. 0: it is given back as soon as culm has looked at the fiber.
    pool_budget: bytes, 64 MiB by default, that the free stacks of each thread may keep for new fibers.
    react_to_pressure: True by default. Four times a second culm checks whether memory is short: whether the control
        group is nearly full, or the kernel says that somebody had to wait for memory (pressure stall information). If
        so, everything that parked fibers do not need is given back, however recently they were parked.
    exact_peaks: False by default. True measures each stack when its fiber ends and then cleans it, which costs some
        microseconds a fiber.

    on_overflow: what happens when C code that never returns to the interpreter has used up its fiber's stack. With
        "end_process", the default, a report is written and the process ends by SIGSEGV. With "end_fiber" a report is
        written and only that fiber ends, if that is possible: it must call something that culm.patch() covers while
        it is in the last half of the zone below its limit and holds no mutex. The fiber's outcome is then a
        StackOverflowError; what its C code held is lost, memory and locks too, and its finally blocks do not run.
        Threads other than the calling one follow at their next spawn().

    Raises TypeError for a wrong type and ValueError for a number out of range; nothing has changed then.
    """
    given = {
        "shrink_after": shrink_after,
        "shrink_budget": shrink_budget,
        "pool_budget": pool_budget,
        "react_to_pressure": react_to_pressure,
        "exact_peaks": exact_peaks,
        "on_overflow": on_overflow,
    }
    with _change:
        settings = _settings_in_force()
        checked = {name: _CHECKS[name](name, value) for name, value in given.items() if value is not _UNSET}
        wanted = replace(settings, **checked)
        if wanted != settings:
            _put_in_force(wanted)
        return wanted


def _put_in_force(wanted: Settings) -> None:
    # This one goes first because it can fail; then nothing has changed yet.
    _culm.set_overflow_ends_fibers(wanted.on_overflow == _END_FIBER)
    after = wanted.shrink_after
    _culm.set_shrink_settings(
        -1 if after is None else round(after * 1e9),
        wanted.shrink_budget,
        wanted.pool_budget,
        wanted.react_to_pressure,
        wanted.exact_peaks,
    )


def _settings_in_force() -> Settings:
    after_ns, shrink_budget, pool_budget, react_to_pressure, exact_peaks = _culm.shrink_settings()
    return Settings(
        shrink_after=None if after_ns < 0 else after_ns / 1e9,
        shrink_budget=shrink_budget,
        pool_budget=pool_budget,
        react_to_pressure=react_to_pressure,
        exact_peaks=exact_peaks,
        on_overflow=_END_FIBER if _culm.overflow_ends_fibers() else _END_PROCESS,
    )


def _seconds(name: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds or None, not {type(value).__name__}")
    if isinstance(value, float) and math.isnan(value):
        raise ValueError(f"{name} must be a number of seconds, not NaN; None means never")
    if value < 0 or value > _SECONDS_MAX:
        raise ValueError(f"{name} must be from 0 to {_SECONDS_MAX:g} seconds, got {_shown(value)}; None means never")
    return float(value)


def _bytes(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int of bytes, not {type(value).__name__}")
    if value < 0 or value > _BUDGET_MAX:
        raise ValueError(f"{name} must be from 0 to 2**62 bytes, got {_shown(value)}")
    return value


def _shown(value: int | float) -> str:
    """The number, unless it is so large that writing it down helps nobody."""
    if isinstance(value, int) and abs(value) >= 10**30:
        return "a number of more than 30 digits"
    return repr(value)


def _what_ends(name: str, value: object) -> str:
    known = f"{_END_PROCESS!r} or {_END_FIBER!r}"
    if not isinstance(value, str):
        raise TypeError(f"{name} must be {known}, not {type(value).__name__}")
    if value not in (_END_PROCESS, _END_FIBER):
        raise ValueError(f"{name} must be {known}, got {value[:40]!r}")
    return value


def _truth(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {type(value).__name__}")
    return value


_CHECKS: dict[str, Callable[[str, object], Any]] = {
    "shrink_after": _seconds,
    "shrink_budget": _bytes,
    "pool_budget": _bytes,
    "react_to_pressure": _truth,
    "exact_peaks": _truth,
    "on_overflow": _what_ends,
}
