"""culm.configure(on_overflow="end_fiber"): C code that never returns uses up its stack, and only its fiber ends."""

import signal
from typing import Any

import pytest

import culm

HEADER = """
import ctypes, sys, threading
import culm
culm.patch()
culm.configure(on_overflow="end_fiber")
deeper = ctypes.{loader}({library!r}).sleep_for_ever_deeper
def greedy(with_mutex=0):
    deeper(with_mutex)
"""


@pytest.fixture
def run_ended(run_script: Any, dive_library: str) -> Any:
    """Runs a script in which `greedy` never returns, and `deeper` neither."""

    def run(source: str, loader: str = "CDLL", **options: Any) -> Any:
        return run_script(HEADER.format(library=dive_library, loader=loader) + source, **options)

    return run


@pytest.mark.parametrize("limit", [64 * 2**10, 256 * 2**10, 10 * 2**20])
@pytest.mark.parametrize("loader", ["CDLL", "PyDLL"])
def test_only_the_fiber_that_ran_out_ends(run_ended: Any, loader: str, limit: int) -> None:
    ended = run_ended(
        f"""
def neighbour():
    for _ in range(50):
        culm.sleep(0)
    return "unharmed"
others = [culm.spawn(neighbour) for _ in range(5)]
fiber = culm.spawn(greedy, stack_limit={limit}, name="greedy")
error = fiber.exception()
print(type(error).__name__, isinstance(error, RecursionError), fiber.state, fiber in culm.fibers())
print(error)
print([other.result() for other in others], culm.spawn(neighbour, stack_limit={limit}).result())
""",
        loader,
    )
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[0] == "StackOverflowError True finished False"
    assert lines[1].startswith(f"fiber 'greedy' ran out of stack: limit {limit} bytes; spawn it with a larger")
    assert lines[2] == f"{['unharmed'] * 5} unharmed"
    report = ended.stderr.splitlines()
    assert report[0].startswith(f"culm: greedy ran out of stack: limit {limit} bytes")
    assert "in an interposed call" in report[0]
    assert report[1] == "Python frames, innermost first:"
    assert "in greedy" in report[2]
    if limit > 256 * 2**10:
        heading = report.index("C frames, innermost first:")
        assert any("dive.so" in line for line in report[heading:])


def test_hundreds_of_them_one_after_the_other_and_all_at_once(run_ended: Any) -> None:
    ended = run_ended("""
for _ in range(100):
    assert type(culm.spawn(greedy, stack_limit=65536).exception()) is culm.StackOverflowError
fibers = [culm.spawn(greedy, stack_limit=65536) for _ in range(200)]
assert {type(fiber.exception()) for fiber in fibers} == {culm.StackOverflowError}
print(len(culm.fibers()), culm.statistics().fibers)
""")
    assert (ended.returncode, ended.stdout) == (0, "0 0\n"), ended.stderr[-2000:]


def test_what_nobody_takes_is_reported(run_ended: Any) -> None:
    ended = run_ended("""
sys.unraisablehook = lambda what: print(type(what.exc_value).__name__, what.object.name)
fiber = culm.spawn(greedy, name="greedy", stack_limit=65536)
while fiber.state != "finished":
    culm.yield_now()
del fiber
""")
    assert (ended.returncode, ended.stdout) == (0, "StackOverflowError greedy\n"), ended.stderr[-2000:]


def test_a_thread_on_a_fiber_can_be_joined(run_ended: Any) -> None:
    ended = run_ended("""
culm.patch(threads=True)
threads = [threading.Thread(target=greedy, daemon=daemon) for daemon in (False, True)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print([thread.is_alive() for thread in threads])
""")
    assert (ended.returncode, ended.stdout) == (0, "[False, False]\n"), ended.stderr[-2000:]


def test_on_another_os_thread(run_ended: Any) -> None:
    ended = run_ended("""
outcomes = []
def work():
    outcomes.extend(type(culm.spawn(greedy, stack_limit=65536).exception()).__name__ for _ in range(3))
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(outcomes)
""")
    assert (ended.returncode, ended.stdout) == (0, f"{['StackOverflowError'] * 3}\n"), ended.stderr[-2000:]


@pytest.mark.parametrize("arguments", ["1", "0"], ids=["with a mutex held", "not configured"])
def test_the_process_ends_where_the_fiber_cannot(run_ended: Any, arguments: str) -> None:
    ended = run_ended(f"""
if not {arguments}: culm.configure(on_overflow="end_process")
culm.spawn(greedy, {arguments}, stack_limit=262144, name="greedy").join()
""")
    assert ended.returncode == -signal.SIGSEGV
    assert ended.stderr.startswith("culm: greedy ran out of stack: limit 262144 bytes")
    assert "fault at" in ended.stderr.splitlines()[0]


def test_python_code_gets_its_exception_as_ever(run_ended: Any) -> None:
    ended = run_ended("""
import time
def recurse(depth=0):
    time.sleep(0)
    return recurse(depth + 1)
sys.setrecursionlimit(10**6)
def caught():
    try:
        recurse()
    except RecursionError:
        return "caught"
print(culm.spawn(caught, stack_limit=262144).result())
""")
    assert (ended.returncode, ended.stdout) == (0, "caught\n"), ended.stderr[-2000:]


def test_who_ends_them_may_be_cancelled(run_ended: Any) -> None:
    ended = run_ended("""
fiber = culm.spawn(greedy, stack_limit=65536, name="greedy")
while len(culm.fibers()) < 2:
    culm.yield_now()
for other in culm.fibers():
    other.cancel()
culm.yield_now()
print(fiber.state, fiber.stack.limit, "greedy" in repr(fiber))
print(type(culm.spawn(greedy, stack_limit=65536).exception()).__name__, type(fiber.exception()).__name__)
print(fiber.state, fiber.stack, fiber.traceback())
""")
    assert ended.returncode == 0, ended.stderr[-2000:]
    lines = ended.stdout.splitlines()
    assert lines[:2] == ["parked 65536 True", "StackOverflowError StackOverflowError"]
    assert lines[2].startswith("finished")


def test_exit_with_one_on_its_way(run_ended: Any) -> None:
    ended = run_ended("""
fiber = culm.spawn(greedy, stack_limit=65536)
culm.yield_now()
print(fiber.state)
""")
    assert ended.returncode == 0, ended.stderr[-2000:]


def test_settings_are_checked_and_kept() -> None:
    assert culm.configure().on_overflow == "end_process"
    try:
        assert culm.configure(on_overflow="end_fiber").on_overflow == "end_fiber"
        assert culm.configure(shrink_after=1.0).on_overflow == "end_fiber"
    finally:
        culm.configure(on_overflow="end_process")
    for wrong in (None, True, 1, b"end_fiber"):
        with pytest.raises(TypeError, match="'end_process' or 'end_fiber'"):
            culm.configure(on_overflow=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'end_process' or 'end_fiber', got 'abort'"):
        culm.configure(on_overflow="abort")
    assert culm.configure().on_overflow == "end_process"
