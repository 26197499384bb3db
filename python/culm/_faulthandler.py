"""Makes sure that culm's handler of stack overflows is asked before the one of faulthandler.

Of two handlers of one signal the one that was installed last is asked first. If faulthandler were enabled after culm,
it would report each overflow as the end of the process although the fiber goes on; when it is disabled, it puts back
what was there before it, and culm's handler would be gone. So both functions are wrapped: culm's handler is taken away
before the call and put back after it.
"""

import faulthandler
import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from culm import _culm

P = ParamSpec("P")
R = TypeVar("R")


def stay_above_faulthandler() -> None:
    """Wrap faulthandler.enable() and disable() so that culm's handler stays in front of theirs. Idempotent."""
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
