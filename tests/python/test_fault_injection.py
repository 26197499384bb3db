"""The n-th system call of the extension fails, for every n until nothing fails; and the machine's real limits.

Each run lives through a whole program in a child process: fibers of every class, deep recursion, a thread, fork, trim.
Whatever is refused is an OSError that says what to do; fibers that were made end well; descriptors and mappings do not
pile up; and the same program succeeds right afterwards.
"""

import errno
import json
import os
import sys

import pytest

# Forks one child for each n. Prints a JSON list: how many calls there were, and what went wrong.
SCENARIO = """
import ctypes, errno, gc, json, os, sys, threading
from pathlib import Path
import culm
from culm import lowlevel

shim = ctypes.CDLL(None)
LIMITS = [64 << 10, 256 << 10, 1 << 20, 10 << 20, 100 << 20, 1 << 30]

class Wrong(Exception):
    pass

def check(error):
    if error.errno not in (INJECTED, errno.ENOMEM) or "; " not in str(error):
        raise Wrong(f"an error that does not say what to do: {error!r}")

def deep(depth):
    return 0 if depth == 0 else sorted([0], key=lambda _: deep(depth - 1))[0]

def live(depth):
    culm.yield_now()
    deep(depth)
    culm.sleep(0)
    return depth

def run_fibers():
    refused, fibers = 0, []
    for limit in LIMITS:
        for _ in range(2):
            try:
                fibers.append((culm.spawn(live, 5, stack_limit=limit)))
            except OSError as error:
                check(error)
                refused += 1
    for _ in range(2):
        culm.yield_now()
    try:
        culm.trim()
        for fiber in fibers:
            fiber.stack
    except OSError as error:
        check(error)
        refused += 1
    for fiber in fibers:
        if fiber.result() != 5:
            raise Wrong("a fiber that was made ended badly")
    if culm.fibers():
        raise Wrong("fibers are left")
    return refused

def scenario():
    refused = 0
    try:
        refused += run_fibers()
    except OSError as error:  # no scheduler could be made
        check(error)
        refused += 1
    seen = []
    def on_thread():
        try:
            seen.append(run_fibers())
        except OSError as error:
            check(error)
            seen.append(1)
    thread = threading.Thread(target=on_thread)
    thread.start()
    thread.join()
    if not seen:
        raise Wrong("the thread")
    child = os.fork()
    if child == 0:
        try:
            run_fibers()
        except OSError as error:
            check(error)
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        raise Wrong("the child of fork")
    return refused + seen[0]

def counts():
    gc.collect()
    return len(os.listdir("/proc/self/fd")), len(Path("/proc/self/maps").read_text().splitlines())

def one(nth):
    shim.fail_nth(ctypes.c_long(nth), INJECTED)
    refused = scenario()
    pending = shim.failure_pending()
    shim.fail_nth(ctypes.c_long(0), 0)
    if pending and refused:
        raise Wrong("something was refused that did not fail")
    if scenario() or scenario():
        raise Wrong("refused again")
    # The interpreter's heap and the C library take a mapping now and then; a leak takes one each time.
    for _ in range(5):
        before = counts()
        scenario()
        after = counts()
        if after[0] == before[0] and after[1] <= before[1]:
            break
    else:
        raise Wrong(f"descriptors, mappings: {before}, then {after}, and more each time")
    return 100 if pending else 0

INJECTED = int(sys.argv[1])
problems = []
for nth in range(1, 3000):
    child = os.fork()
    if child == 0:
        try:
            os._exit(one(nth))
        except BaseException as error:
            print(nth, repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 100:
        break
    if code != 0:
        problems.append([nth, code])
print(json.dumps([nth, problems]))
"""


@pytest.fixture(scope="session")
def shim(compile_library) -> str:
    return compile_library("preload/fail_nth.c")


@pytest.mark.parametrize("error", [errno.ENOMEM, errno.EAGAIN, errno.EINVAL], ids=lambda error: errno.errorcode[error])
def test_each_call_fails_in_turn(run_script, shim, error):
    done = run_script_preloaded(run_script, shim, SCENARIO, str(error))
    assert done.returncode == 0, done.stderr
    calls, problems = json.loads(done.stdout)
    assert problems == [], done.stderr
    assert 20 < calls < 2999


def run_script_preloaded(run_script, shim, source, argument):
    arguments = f"import sys; sys.argv[1:] = ['{argument}']"
    return run_script(arguments + source, timeout=115, env=os.environ | {"LD_PRELOAD": shim})


MANY_MAPPINGS = """
import mmap, sys
import culm
from culm import lowlevel

def wait():
    lowlevel.park()
    return "went on"

def fill():
    held = []
    try:
        while True:  # neighbours with another access do not merge
            access = mmap.PROT_READ if len(held) % 2 else mmap.PROT_READ | mmap.PROT_WRITE
            held.append(mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=access))
    except OSError:
        pass
    for _ in range(20):  # for the interpreter
        held.pop().close()
    return held

early = culm.spawn(wait)
culm.yield_now()
held = fill()
made, refused = [], None
for _ in range(3000):
    try:
        made.append(culm.spawn(wait, stack_limit=1 << 30))
    except OSError as error:
        refused = error
        break
culm.yield_now()
for fiber in [early, *made]:
    lowlevel.unpark(fiber)
assert all(fiber.result() == "went on" for fiber in [early, *made])
if refused is not None:
    print(refused)
held.clear()
assert culm.spawn(lambda: 1, stack_limit=1 << 30).result() == 1
"""


def test_mappings_exhausted_is_an_oserror_and_harms_nobody(run_script):
    done = run_script(MANY_MAPPINGS, timeout=110)
    assert (done.returncode, done.stderr) == (0, "")
    if done.stdout:
        assert "; " in done.stdout
        assert "Cannot allocate memory" in done.stdout


@pytest.mark.parametrize("limit", [64 * 1024, 8 * 2**20])
def test_small_rlimit_stack_does_not_bind_fibers(run_script, limit):
    done = run_script(
        f"""
import resource
resource.setrlimit(resource.RLIMIT_STACK, ({limit}, resource.getrlimit(resource.RLIMIT_STACK)[1]))
import culm
def deep(n):
    return 0 if n == 0 else sorted([0], key=lambda _: deep(n - 1))[0]
print(culm.spawn(deep, 200).result())
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


@pytest.mark.parametrize("room_mib", [8, 64, 600, 6000])
def test_small_rlimit_as_is_an_oserror_with_advice_at_any_size(run_script, room_mib):
    done = run_script(
        f"""
import resource, culm
from culm import lowlevel
from pathlib import Path
culm.spawn(lambda: None, stack_limit=65536).join()
mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
room = mapped + {room_mib} * 2**20
resource.setrlimit(resource.RLIMIT_AS, (room, room))
made, refused = [], []
for limit in (65536, 1 << 20, 10 << 20, 1 << 30):
    for _ in range(7_000):
        try:
            made.append(culm.spawn(lowlevel.park, stack_limit=limit))
        except OSError as error:
            refused.append(str(error))
            break
culm.yield_now()
for fiber in made:
    lowlevel.unpark(fiber)
for fiber in made:
    fiber.join()
assert culm.spawn(lambda: 1, stack_limit=65536).result() == 1
print(refused[-1])
"""
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "could not reserve address space for stacks" in done.stdout
    assert "ulimit -v" in done.stdout


def test_address_space_exhausted_is_an_oserror_with_advice(run_script):
    done = run_script(
        """
import os, culm
from culm import lowlevel
made, refused = [], None
for _ in range(400_000):  # of 1 GB each: more than 128 TB
    try:
        made.append(culm.spawn(lowlevel.park, stack_limit=1 << 30))
    except OSError as error:
        refused = error
        break
print(len(made) > 10_000, refused)
small = culm.spawn(lambda: 1, stack_limit=65536)
assert small.state == "ready"
print(end="", flush=True)
os._exit(0)  # without unwinding the others, which never ran
""",
        timeout=110,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("True ")
    assert (
        "could not reserve address space for stacks: Cannot allocate memory; use a smaller stack limit" in done.stdout
    )


@pytest.mark.parametrize("limit", [1, 4095, 4097, 65535, 65537, 12345678, 2**30 - 1])
def test_limit_that_is_no_class_is_rounded_up(limit):
    import culm

    fiber = culm.spawn(lambda: culm.current().stack.limit, stack_limit=limit)
    assert limit <= fiber.result() <= max(16 * limit, 65536)


@pytest.mark.parametrize("limit", [0, -1, -(2**63), 2**30 + 1, 2**47, 2**64, 2**80])
def test_limit_out_of_range_says_what_to_ask_for(limit):
    import culm

    with pytest.raises(ValueError, match=r"between 1 byte and 1 GB|stack_limit"):
        culm.spawn(print, stack_limit=limit)


if sys.platform != "linux":
    pytest.skip("the limits of Linux", allow_module_level=True)
