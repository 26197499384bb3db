"""Signals: Ctrl-C stops a program whose fibers all wait and one whose fiber computes; handlers run; sleeps go on."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import culm

HEADER = "import culm, os, signal, sys, threading, time, socket\nculm.patch()\n"


def interrupted(source, tmp_path, sig=signal.SIGINT):
    """Start the script, wait for its line 'ready', send the signal, return the finished process."""
    path = tmp_path / "script.py"
    path.write_text(HEADER + source)
    process = subprocess.Popen(
        [sys.executable, "-u", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    process.send_signal(sig)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


@pytest.mark.parametrize(
    "waits",
    [
        "fiber.join()",
        "fiber.result()",
        "culm.sleep(3600)",
        "time.sleep(3600)",
        "culm.lowlevel.park()",
        "threading.Event().wait()",
        "threading.Lock().acquire() or l.acquire()",
        "pair = socket.socketpair(); pair[0].recv(1)",
        "import select; select.select([], [], [])",
        "signal.pause()",
        "culm.run(time.sleep, 3600)",
    ],
)
def test_ctrl_c_stops_a_program_whose_fibers_all_wait(waits, tmp_path):
    waits = waits.replace("threading.Lock().acquire() or l.acquire()", "l = threading.Lock(); l.acquire(); l.acquire()")
    code, _, err = interrupted(
        f"""
import culm.lowlevel
fiber = culm.spawn(time.sleep, 3600)
culm.spawn(culm.sleep, 3600)
culm.yield_now()
culm.spawn(print, "ready")
{waits}
""".replace('culm.spawn(print, "ready")\nsignal.pause()', 'print("ready")\nsignal.pause()'),
        tmp_path,
    )
    assert "KeyboardInterrupt" in err
    assert code == -signal.SIGINT


@pytest.mark.parametrize("waits", ["fiber.join()", "time.sleep(3600)", "culm.lowlevel.park()"])
def test_ctrl_c_stops_a_program_whose_fiber_computes(waits, tmp_path):
    code, _, err = interrupted(
        f"""
import culm.lowlevel
def compute():
    print("ready")
    while True: pass
fiber = culm.spawn(compute)
{waits}
""",
        tmp_path,
    )
    assert "KeyboardInterrupt" in err
    assert code == -signal.SIGINT


def test_handler_runs_and_the_waits_go_on(tmp_path):
    code, out, err = interrupted(
        """
handled = []
signal.signal(signal.SIGUSR1, lambda *_: handled.append(True))
main = culm.current()
def sleep_on():
    try:
        time.sleep(3600)
    except culm.Cancelled:
        return "slept on until it was cancelled"
def look():
    print("ready")
    while not handled:
        culm.sleep(0.001)
    print(len(handled), main.waiting_for, sleeper.waiting_for)
    sleeper.cancel()
sleeper = culm.spawn(sleep_on)
culm.spawn(look)
print(sleeper.result())
""",
        tmp_path,
        signal.SIGUSR1,
    )
    assert (code, out.splitlines(), err) == (0, ["1 join sleep", "slept on until it was cancelled"], "")


def test_handler_runs_in_the_computing_fiber(tmp_path):
    code, out, err = interrupted(
        """
seen = []
signal.signal(signal.SIGUSR1, lambda *_: seen.append(culm.current().name))
def compute():
    print("ready")
    while not seen: pass
    return seen
print(culm.spawn(compute, name="busy").result())
""",
        tmp_path,
        signal.SIGUSR1,
    )
    assert (code, out, err) == (0, "['busy']\n", "")


def test_exception_of_a_handler_is_raised_in_the_waiting_main_fiber():
    class Alarm(Exception):
        pass

    def handler(*_):
        raise Alarm

    main = culm.current()

    def signal_main_when_it_waits(reason):
        while main.waiting_for != reason:
            time.sleep(0.001)
        signal.pthread_kill(main.ident, signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, handler)
    other = culm.spawn(time.sleep, 3600)
    try:
        for reason, wait in (("sleep", lambda: time.sleep(3600)), ("join", other.join)):
            thread = threading.Thread(target=signal_main_when_it_waits, args=(reason,))
            thread.start()
            with pytest.raises(Alarm):
                wait()
            thread.join()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert other.state == "parked"
    other.cancel()
    other.join()


def test_fiber_operations_inside_a_signal_handler():
    made = []
    before = signal.signal(signal.SIGUSR1, lambda *_: made.append(culm.spawn(lambda: "from a handler")))
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        while not made:
            culm.yield_now()
        assert made[0].result() == "from a handler"
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_signal_in_a_fiber_can_be_installed_and_sent_to_own_ident():
    def work():
        seen = []
        before = signal.signal(signal.SIGUSR2, lambda *_: seen.append(1))
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)
        while not seen:
            culm.yield_now()
        signal.signal(signal.SIGUSR2, before)
        return seen

    assert culm.spawn(work).result() == [1]


def test_signal_to_a_fiber_of_another_thread_or_an_ended_one_is_refused():
    idents, end = [], threading.Event()

    def on_thread():
        culm.spawn(lambda: (idents.append(threading.get_ident()), end.wait(10)))
        culm.spawn(lambda: idents.append(threading.get_ident())).join()
        end.wait(10)

    thread = threading.Thread(target=on_thread)
    thread.start()
    while len(idents) < 2:
        culm.yield_now()
    for ident in idents:
        with pytest.raises(ProcessLookupError):
            signal.pthread_kill(ident, signal.SIGUSR2)
    end.set()
    thread.join()
