"""fork(): the child has the forking fiber only, a reactor of its own, and the parent goes on undisturbed."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time

import pytest

import culm
from culm import lowlevel

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def in_child(function):
    """Fork here; run function in the child; return what it wrote."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(read_end)
            os.write(write_end, repr(function()).encode())
            status = 0
        except BaseException as error:
            os.write(write_end, repr(error).encode())
        finally:
            os._exit(status)
    os.close(write_end)
    with open(read_end, "rb") as pipe:
        out = pipe.read()
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), out.decode()


def test_child_of_the_main_fiber_has_no_other_fiber_and_can_make_new_ones():
    log = []
    others = [culm.spawn(lambda: (culm.sleep(0.01), log.append("parent only"))) for _ in range(3)]
    culm.yield_now()

    def child():
        left = len(culm.fibers())
        fresh = [culm.spawn(lambda i=i: (time.sleep(0.002), i)[1]) for i in range(3)]
        results = [fiber.result() for fiber in fresh]
        time.sleep(0.02)
        return left, results, log, [fiber.state for fiber in others]

    assert in_child(child) == (0, repr((0, [0, 1, 2], [], ["finished"] * 3)))
    for fiber in others:
        fiber.join()
    assert log == ["parent only"] * 3


def test_fork_inside_a_fiber():
    neighbour = culm.spawn(culm.sleep, 0.02)

    def child():
        return culm.spawn(lambda: (culm.sleep(0.001), "grandchild fiber")[1]).result(), len(culm.fibers())

    code, out = culm.spawn(in_child, child).result()
    assert (code, out) == (0, repr(("grandchild fiber", 1)))
    neighbour.join()


def test_waiting_for_a_lost_fiber_is_refused_in_the_child():
    fiber = culm.spawn(culm.sleep, 0.05)
    culm.yield_now()
    _code, out = in_child(lambda: fiber.join())
    assert "parent process only" in out
    fiber.join()


def test_child_ends_when_its_forking_fiber_ends(run_script):
    done = run_script("""
import culm, os, sys, time
culm.patch()
def work():
    if os.fork() == 0:
        time.sleep(0.01)
        print("child")
        sys.exit(7)
    pid, status = os.wait()
    print("parent", os.waitstatus_to_exitcode(status))
culm.spawn(work).join()
print("end")
""")
    assert (done.returncode, done.stdout, done.stderr) == (0, "child\nparent 7\nend\n", "")


def test_fibers_can_be_kept(run_script):
    done = run_script("""
import culm, os
from culm import lowlevel
culm.patch()
lowlevel.keep_fibers_after_fork(True)
read_end, write_end = os.pipe()
fiber = culm.spawn(lambda: (culm.sleep(0.01), os.write(write_end, b"x"))[1])
culm.yield_now()
pid = os.fork()
fiber.join()
if pid == 0:
    os._exit(0)
os.waitpid(pid, 0)
print(os.read(read_end, 10))
""")
    assert (done.stdout, done.stderr) == ("b'xx'\n", "")


def test_sockets_work_on_both_sides_after_fork():
    import socket

    left, right = socket.socketpair()
    reader = culm.spawn(left.recv, 10)
    culm.yield_now()
    code, out = in_child(lambda: right.send(b"from child"))
    assert (code, out) == (0, "10")
    assert reader.result() == b"from child"
    left.close()
    right.close()


def test_subprocess_and_multiprocessing_in_fibers():
    def run(i):
        return subprocess.run([sys.executable, "-S", "-c", f"print({i})"], capture_output=True).stdout

    fibers = [culm.spawn(run, i) for i in range(4)]
    assert [fiber.result() for fiber in fibers] == [b"%d\n" % i for i in range(4)]

    def by_process():
        context = multiprocessing.get_context("fork")
        channel = context.Pipe()
        process = context.Process(target=lambda: channel[1].send("from a process"))
        process.start()
        received = channel[0].recv()
        process.join()
        return received, process.exitcode

    assert culm.spawn(by_process).result() == ("from a process", 0)


def test_fork_while_many_are_parked():
    fibers = [culm.spawn(lowlevel.park, stack_limit=65536) for _ in range(2000)]
    culm.yield_now()
    assert in_child(lambda: len(culm.fibers())) == (0, "0")
    for fiber in fibers:
        lowlevel.unpark(fiber)
    for fiber in fibers:
        fiber.join()


def test_fibers_of_other_threads_are_lost_in_the_child():
    fibers = []
    ready, done = threading.Event(), threading.Event()

    def on_thread():
        fibers.extend([culm.current(), culm.spawn(lowlevel.park)])
        culm.yield_now()
        ready.set()
        done.wait()

    thread = threading.Thread(target=on_thread)
    thread.start()
    ready.wait()

    def child():
        with pytest.raises(RuntimeError, match="parent process only"):
            fibers[1].join()
        return [fiber.state for fiber in fibers], fibers[1].cancel()

    assert in_child(child) == (0, repr((["finished"] * 2, False)))
    assert fibers[1].state == "parked"
    done.set()
    thread.join()
