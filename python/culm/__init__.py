"""culm: green threads ("fibers") for Python, each on a real C stack of its own that grows on demand.

>>> import culm
>>> def greet(name):
...     culm.sleep(0.01)
...     return f"hello {name}"
>>> fibers = [culm.spawn(greet, name) for name in ("ann", "bob")]
>>> [fiber.result() for fiber in fibers]
['hello ann', 'hello bob']

Public names are defined in private modules and re-exported here once.
"""

from culm._configure import Settings, configure
from culm._culm import (
    Cancelled,
    Fiber,
    FiberExit,
    StackOverflowError,
    StackUse,
    current,
    fibers,
    sleep,
    spawn,
    trim,
    yield_now,
)
from culm._patch import patch
from culm._run import run
from culm._stacks import StackSite, stack_sites
from culm._statistics import Statistics, statistics

__version__ = "0.1.0"

__all__ = [
    "Cancelled",
    "Fiber",
    "FiberExit",
    "Settings",
    "StackOverflowError",
    "StackSite",
    "StackUse",
    "Statistics",
    "configure",
    "current",
    "fibers",
    "patch",
    "run",
    "sleep",
    "spawn",
    "stack_sites",
    "statistics",
    "trim",
    "yield_now",
]
