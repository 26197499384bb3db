"""Keeps the handler of stack overflows above the one of faulthandler.

Enabled later, faulthandler would report each overflow as the end of the process although the fiber goes on; disabled
later, it would take the handler of overflows away with its own.
"""

import faulthandler
import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from culm import _culm

P = ParamSpec("P")
R = TypeVar("R")


def stay_above_faulthandler() -> None:
    """Have faulthandler.enable() and disable() work beneath culm's handler. Idempotent."""
    for name in ("enable", "disable"):
        function = getattr(faulthandler, name)
        if not hasattr(function, "_culm_beneath"):
            setattr(faulthandler, name, _beneath(function))


def _beneath(function: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        was_above = _culm.remove_fault_handler()
        try:
            return function(*args, **kwargs)
        finally:
            if was_above:
                _culm.install_fault_handler()

    call._culm_beneath = True  # type: ignore[attr-defined]
    return call
