"""What the tests of the interpreter layer share. The probe module is found in the directory CULM_INTERPRETER_PROBE."""

import os
import sys

sys.path.insert(0, os.environ.get("CULM_INTERPRETER_PROBE", ""))
try:
    import _interpreter_probe as probe
except ModuleNotFoundError:
    import pytest

    pytest.skip("CULM_INTERPRETER_PROBE does not name the directory of _interpreter_probe", allow_module_level=True)

Fiber, ProbeExit, park = probe.Fiber, probe.ProbeExit, probe.park
VERSION = sys.version_info[:2]
DEBUG = hasattr(sys, "gettotalrefcount")
MB = 1 << 20


def finish(fiber, value=None):
    """Resumes until it ends; returns its result."""
    while True:
        result = fiber.resume(value)
        if fiber.phase == "finished":
            return result


class Stop(Exception):
    pass


def spin():
    for _ in range(1000):
        pass
