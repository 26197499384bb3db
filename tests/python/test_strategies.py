"""spawn(strategy=...): Python on stacks that are allocated in other ways, and what happens under strict overcommit.

What changes the whole process (the overcommit mode, a warning that is given once) runs in a process of its own.
"""

import faulthandler
import gc
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import culm

CARRIERS = ["arena", "mmap", "fault-handler", "malloc"]
OTHERS = ["bare-mmap", "fault-thread", "growsdown", "one-block", "userfaultfd", "copying", "fixed-small", "split"]


@pytest.fixture(autouse=True)
def culm_is_asked_first():
    # pytest enables faulthandler after culm has installed its handler. It would print a traceback at the first growth
    # of a stack by a fault, before culm is asked. A program enables it first.
    was_enabled = faulthandler.is_enabled()
    faulthandler.disable()
    yield
    if was_enabled:
        faulthandler.enable(sys.__stderr__)


def deep(depth: int) -> int:
    # min() with a key goes through C at each level, so the C stack deepens with every version.
    return 0 if depth == 0 else min([depth], key=lambda _: deep(depth - 1))


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("strategy", CARRIERS)
def test_python_runs_deep_blocks_and_is_collected(strategy):
    culm.patch()
    left, right = socket.socketpair()
    with left, right:

        def read() -> bytes:
            assert culm.current().strategy == strategy
            assert deep(60) == 60
            return right.recv(100)

        reader = culm.spawn(read, strategy=strategy, stack_limit=1 << 20)
        culm.yield_now()
        left.sendall(b"x" * 100)
        assert reader.result(timeout=10) == b"x" * 100
    gc.collect()


@pytest.mark.parametrize("strategy", CARRIERS)
def test_many_fibers_one_after_the_other_and_at_once(strategy):
    fibers = [culm.spawn(deep, 20, strategy=strategy) for _ in range(300)]
    assert [fiber.result() for fiber in fibers] == [20] * 300
    for _ in range(300):
        culm.spawn(os.getpid, strategy=strategy).join()


@pytest.mark.parametrize("strategy", ["mmap", "fault-handler", "malloc"])
def test_endless_recursion_is_an_exception_there_too(strategy):
    fiber = culm.spawn(deep, 10**9, strategy=strategy)
    assert isinstance(fiber.exception(), RecursionError)


def test_a_fiber_is_made_with_a_strategy_and_shows_it():
    fiber = culm.Fiber(os.getpid, strategy="mmap")
    assert fiber.strategy == "mmap"
    fiber.start()
    assert fiber.result() == os.getpid()
    assert culm.Fiber(os.getpid, strategy=None).strategy == "arena"


# Whatever runs the tests may have a thread of its own in this process.
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_in_a_fiber_of_the_fault_handler_strategy():
    def fork_and_recurse() -> int:
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if deep(80) == 80 else 1)
            finally:
                os._exit(2)
        assert deep(80) == 80
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert culm.spawn(fork_and_recurse, strategy="fault-handler").result() == 0


def test_an_unknown_strategy_is_answered_with_those_there_are():
    with pytest.raises(
        ValueError, match=r"unknown stack strategy 'heap': use one of arena, mmap, fault-handler, malloc"
    ):
        culm.spawn(os.getpid, strategy="heap")
    with pytest.raises(ValueError, match=r"unknown stack strategy ''"):
        culm.spawn(os.getpid, strategy="")


@pytest.mark.parametrize("strategy", OTHERS)
def test_a_strategy_that_cannot_carry_python_is_refused(strategy):
    with pytest.raises(ValueError, match=r"cannot safely carry Python.*use one of arena, mmap"):
        culm.spawn(os.getpid, strategy=strategy)


def test_the_lab_lists_those_and_no_others():
    program = Path(culm.__file__).parent / "lab" / "bin" / "culm-stack-probe"
    if not program.exists():
        pytest.skip("built without the lab")
    answer = subprocess.run([program, "strategies"], capture_output=True, text=True, timeout=60, check=True)
    listed = {each["id"]: each["declares"]["carries_python"] for each in json.loads(answer.stdout)["strategies"]}
    assert [name for name, carries in listed.items() if carries] == CARRIERS
    assert {name for name, carries in listed.items() if not carries} == set(OTHERS)


@pytest.mark.parametrize("strategy", [1, b"arena", ["arena"]])
def test_a_strategy_is_a_string(strategy):
    with pytest.raises(TypeError, match="strategy must be a str or None, not"):
        culm.spawn(os.getpid, strategy=strategy)


STRICT = """
import os, warnings
from culm import _culm
import culm
_culm.override_overcommit_mode(2)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    fibers = [culm.spawn(os.getpid) for _ in range(3)]
    chosen = culm.spawn(os.getpid, strategy="arena", stack_limit=65536)
results = {fiber.result() == os.getpid() for fiber in [*fibers, chosen]}
print([fiber.strategy for fiber in fibers], chosen.strategy, results)
for one in caught:
    print(one.category.__name__, one.message)
"""


def test_under_strict_overcommit_fibers_get_a_strategy_that_works_and_it_is_said_once():
    ended = run_python(STRICT)
    assert ended.returncode == 0, ended.stderr
    first, *rest = ended.stdout.splitlines()
    assert first == "['fault-handler', 'fault-handler', 'fault-handler'] arena {True}"
    assert len(rest) == 1
    assert rest[0].startswith("RuntimeWarning vm.overcommit_memory is 2")
    assert "culm doctor" in rest[0]


def test_where_warnings_are_errors_the_spawn_fails_and_the_next_works():
    ended = run_python(
        "import os, warnings, culm; from culm import _culm\n"
        "_culm.override_overcommit_mode(2)\n"
        "warnings.simplefilter('error')\n"
        "try: culm.spawn(os.getpid)\n"
        "except RuntimeWarning: print(culm.spawn(os.getpid).result() == os.getpid())\n"
    )
    assert (ended.stdout, ended.returncode) == ("True\n", 0), ended.stderr
