"""The end of a thread and of the interpreter: suspended fibers are unwound, untaken exceptions are reported."""

import _thread
import gc
import os
import threading
import weakref
from pathlib import Path

import pytest

import culm
from culm import lowlevel

HEADER = "import culm, gc, os, sys, threading, time\nfrom culm import lowlevel\n"


def ended(done, out, err=""):
    assert (done.returncode, done.stdout, done.stderr) == (0, out, err)


@pytest.mark.parametrize("keep", ["fiber = ", ""])
@pytest.mark.parametrize("waits", ["culm.sleep(3600)", "lowlevel.park()", "threading.Event().wait()"])
@pytest.mark.parametrize("patched", ["culm.patch()", ""])
def test_interpreter_exit_unwinds_suspended_fibers(run_script, waits, keep, patched):
    if "Event" in waits and not patched:
        pytest.skip("an unpatched Event.wait blocks the thread by design")
    done = run_script(
        HEADER
        + f"""
{patched}
def work():
    try:
        {waits}
    finally:
        print("finally")
{keep}culm.spawn(work)
culm.yield_now()
print("end of main")
"""
    )
    assert sorted(done.stdout.splitlines()) == ["end of main", "finally"]
    assert (done.returncode, done.stderr) == (0, "")


def test_never_started_fibers_do_not_run_at_exit(run_script):
    ended(run_script(HEADER + "fiber = lowlevel.Fiber(print, 'no')\nculm.spawn(print, 'no')\nprint('end')\n"), "end\n")


def test_untaken_exception_is_reported_at_exit(run_script):
    done = run_script(HEADER + "f = culm.spawn(lambda: 1 / 0, name='careless')\nculm.yield_now()\n")
    assert done.returncode == 0
    assert "careless" in done.stderr
    assert "ZeroDivisionError" in done.stderr


def test_fiber_that_refuses_to_end_does_not_hold_the_exit_up(run_script):
    ended(
        run_script(
            HEADER
            + """
def stubborn():
    while True:
        try:
            culm.sleep(3600)
        except BaseException:
            pass
culm.spawn(stubborn)
culm.yield_now()
print("end")
"""
        ),
        "end\n",
    )


def test_sys_exit_in_main_with_fibers_parked(run_script):
    done = run_script(HEADER + "culm.patch()\nculm.spawn(time.sleep, 3600)\nculm.yield_now()\nsys.exit(5)\n")
    assert (done.returncode, done.stderr) == (5, "")


def test_exit_from_within_a_fiber_with_os_exit(run_script):
    done = run_script(HEADER + "culm.patch()\nculm.spawn(os._exit, 6).join()\n")
    assert (done.returncode, done.stderr) == (6, "")


def test_thread_end_unwinds_its_fibers():
    log = []

    def work():
        try:
            culm.sleep(3600)
        finally:
            log.append(threading.get_native_id())

    def on_thread():
        culm.spawn(work)
        culm.spawn(work)
        culm.yield_now()
        log.append("thread ends")

    thread = threading.Thread(target=on_thread)
    thread.start()
    native = thread.native_id
    thread.join()
    assert log == ["thread ends", native, native]


def test_clean_up_that_waits_is_waited_for(run_script):
    ended(
        run_script(
            HEADER
            + """
culm.patch()
def work(name):
    try:
        culm.sleep(3600)
    finally:
        culm.sleep(0.01)
        time.sleep(0.01)
        print(name, "cleaned up")
def on_thread():
    culm.spawn(work, "thread")
    culm.yield_now()
thread = threading.Thread(target=on_thread)
thread.start()
thread.join()
culm.spawn(work, "main")
culm.yield_now()
"""
        ),
        "thread cleaned up\nmain cleaned up\n",
    )


def test_daemon_threads_inside_fibers_at_exit(run_script):
    ended(
        run_script(
            HEADER
            + """
culm.patch()
def on_thread(started):
    def spin():
        while True:
            time.sleep(0.001)
            sum(range(1000))
    fibers = [culm.spawn(spin) for _ in range(10)]
    started.set()
    fibers[0].join()
events = [threading.Event() for _ in range(8)]
for event in events:
    threading.Thread(target=on_thread, args=(event,), daemon=True).start()
for event in events:
    event.wait()
print("end")
"""
        ),
        "end\n",
    )


def test_objects_dying_during_finalization_that_hold_fibers(run_script):
    ended(
        run_script(
            HEADER
            + """
class Holder:
    def __init__(self):
        self.fiber = culm.spawn(lowlevel.park)
    def __del__(self):
        self.fiber = None
holders = [Holder() for _ in range(5)]
cycle = [holders]; cycle.append(cycle)
culm.yield_now()
print("end")
"""
        ),
        "end\n",
    )


def test_atexit_handlers_may_use_fibers(run_script):
    ended(
        run_script("""
import atexit
def last():
    import culm
    print(culm.spawn(lambda: (culm.sleep(0.001), "ran")[1]).result())
atexit.register(last)
import culm
culm.patch()
print("end")
"""),
        "end\nran\n",
    )


def test_stack_overflow_in_c_code_is_reported_with_the_fibers_name(run_script):
    # libc compiles nested groups by recursion, and the interpreter has no say in it.
    done = run_script(
        HEADER
        + """
import ctypes
libc = ctypes.CDLL(None)
compiled = ctypes.create_string_buffer(256)
pattern = b"(" * 50_000 + b")" * 50_000
culm.spawn(lambda: libc.regcomp(compiled, pattern, 1), name="runaway", stack_limit=65536).join()
"""
    )
    assert done.returncode == -11, (done.returncode, done.stderr)
    assert "runaway" in done.stderr
    assert "65536" in done.stderr
    assert "stack_limit" in done.stderr


def test_thread_end_gives_descriptors_back_though_fibers_were_never_started():
    kept = []

    def on_thread():
        kept.append(lowlevel.Fiber(print, "never"))

    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        thread = threading.Thread(target=on_thread)
        thread.start()
        thread.join()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert [fiber.state for fiber in kept] == ["new"] * 3
    # None of them had a place on the thread that has gone: any thread may start them.
    kept[0].start()
    assert kept[0].result() is None
    kept.clear()


def test_thread_end_waits_for_a_clean_up_that_was_under_way():
    log = []

    def abandoned():
        try:
            lowlevel.park()
        finally:
            culm.sleep(0.001)
            log.append("cleaned up")

    def on_thread():
        culm.spawn(abandoned)
        culm.yield_now()
        log.append("thread ends")

    thread = threading.Thread(target=on_thread)
    thread.start()
    thread.join()
    assert log == ["thread ends", "cleaned up"]


def test_thread_end_gives_clean_ups_their_time_though_the_process_gets_no_processor(run_script, compile_library):
    done = run_script(
        HEADER
        + """
import ctypes
jump_clock = ctypes.CDLL(None).jump_clock

def starved():
    try:
        lowlevel.park()
    finally:
        culm.sleep(0.001)
        jump_clock(3600)  # as if nothing of this process had run for an hour

def abandoned():
    try:
        lowlevel.park()
    finally:
        for _ in range(3):
            culm.sleep(0.001)
        print("cleaned up")

def on_thread():
    culm.spawn(starved)
    culm.spawn(abandoned)
    culm.yield_now()

began = time.monotonic()
thread = threading.Thread(target=on_thread)
thread.start()
thread.join()
print("the clock has jumped:", time.monotonic() - began > 3600)
""",
        env=os.environ | {"LD_PRELOAD": compile_library("preload/jump_clock.c")},
    )
    ended(done, "cleaned up\nthe clock has jumped: True\n")


def test_a_fiber_collected_on_another_thread_as_its_own_ends_is_told_once():
    may_end, cleaning_up, collected = threading.Event(), threading.Event(), threading.Event()
    log = []

    class KeepsBusy:
        """Is finalized before the fiber, in the same collection, and lets the fiber's thread end meanwhile."""

        fiber = None

        def __del__(self):
            may_end.set()
            assert cleaning_up.wait(10)

    def abandoned():
        try:
            lowlevel.park()
        finally:
            cleaning_up.set()
            while not collected.is_set():
                culm.sleep(0.001)
            log.append("cleaned up")

    def on_thread():
        garbage = KeepsBusy()
        garbage.fiber = culm.spawn(abandoned)
        garbage.cycle = garbage
        del garbage
        culm.yield_now()
        is_garbage.set()
        may_end.wait(10)

    is_garbage = threading.Event()
    gc.collect()
    gc.disable()
    try:
        thread = threading.Thread(target=on_thread)
        thread.start()
        is_garbage.wait(10)
        gc.collect()
        collected.set()
        thread.join()
    finally:
        gc.enable()
    assert log == ["cleaned up"]


def test_cancel_that_arrives_as_the_thread_ends_keeps_no_fiber_alive():
    references, answers = [], []

    def is_cancelled_in_its_last_moment():
        fiber = culm.current()
        references.append(weakref.ref(fiber))
        try:
            lowlevel.park()
        finally:
            _thread.start_new_thread(lambda: answers.append(fiber.cancel()), ())
            while not answers:  # must not wait in culm, which would make this thread carry out the request
                pass

    def on_thread():
        culm.spawn(is_cancelled_in_its_last_moment)
        culm.yield_now()

    thread = threading.Thread(target=on_thread)
    thread.start()
    thread.join()
    gc.collect()
    assert answers == [True]
    assert [reference() for reference in references] == [None]


SIGNALLED_AT_EXIT = (
    HEADER
    + """
import signal

began, handled = threading.Event(), []

def handler(*_):
    handled.append(True)
    if RAISES:
        raise KeyboardInterrupt

def work():
    try:
        lowlevel.park()
    finally:
        began.set()
        while not handled or RAISES:
            culm.sleep(0.001)
        print("cleaned up")

def send():
    began.wait()
    os.kill(os.getpid(), signal.SIGUSR1)

culm.patch()
signal.signal(signal.SIGUSR1, handler)
threading.Thread(target=send, daemon=True).start()
fiber = culm.spawn(work)
culm.yield_now()
"""
)


def test_a_signal_during_the_clean_ups_at_exit_is_handled_and_they_go_on(run_script):
    done = run_script("RAISES = False\n" + SIGNALLED_AT_EXIT)
    assert (done.stdout, done.stderr, done.returncode) == ("cleaned up\n", "", 0)


def test_a_handler_that_raises_ends_the_waiting_for_clean_ups_at_exit(run_script):
    done = run_script("RAISES = True\n" + SIGNALLED_AT_EXIT)
    assert (done.stdout, done.returncode) == ("", 0)
    assert "KeyboardInterrupt" in done.stderr
