"""faulthandler and the handler of stack overflows do not get in each other's way."""

import signal
from typing import Any

import pytest

ENABLED = {
    "before": "import faulthandler; faulthandler.enable(); import culm; culm.patch()",
    "after": "import culm, faulthandler; culm.patch(); culm.yield_now(); faulthandler.enable()",
    "twice": "import culm, faulthandler; culm.patch(); culm.yield_now(); faulthandler.enable(); faulthandler.enable()",
    "in between": "import culm, faulthandler; culm.patch(); faulthandler.enable(); culm.yield_now()",
    "and disabled": "import faulthandler; faulthandler.enable(); import culm; culm.patch(); culm.yield_now(); "
    "faulthandler.disable()",
}
OVERFLOWS = """
import ctypes
function = ctypes.PyDLL({library!r}).dive
function.restype = ctypes.py_object
function.argtypes = [ctypes.c_long, ctypes.c_void_p, ctypes.py_object]
call = ctypes.cast(ctypes.pythonapi.PyObject_CallNoArgs, ctypes.c_void_p)
def greedy():
    function(65536 - culm.current().stack.used + 2048, call, lambda: None)
for _ in range(3):
    print(isinstance(culm.spawn(greedy, stack_limit=65536).exception(), RecursionError), flush=True)
"""


@pytest.mark.parametrize("enabled", ENABLED)
def test_an_overflow_is_an_exception_and_no_fatal_error(run_script: Any, dive_library: str, enabled: str) -> None:
    ended = run_script(ENABLED[enabled] + OVERFLOWS.format(library=dive_library))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "True\n" * 3


@pytest.mark.parametrize("enabled", ENABLED)
def test_any_other_fault_is_reported_as_ever(run_script: Any, dive_library: str, enabled: str) -> None:
    overflows = OVERFLOWS.format(library=dive_library)
    ended = run_script(f"{ENABLED[enabled]}{overflows}import ctypes; ctypes.string_at(8)")
    assert ended.returncode == -signal.SIGSEGV
    assert ended.stdout == "True\n" * 3
    assert ("Fatal Python error: Segmentation fault" in ended.stderr) == (enabled != "and disabled")
