"""Cancellation and closing reach into blocking calls: what is raised there, and what is not disturbed."""

import _thread
import errno
import os
import select
import sys
import threading
import time

import pytest

import culm


@pytest.mark.parametrize("call", ["recv", "read", "sleep", "poll"])
def test_cancel_in_a_call_does_not_interrupt_the_clean_up(pair, call):
    left, _ = pair
    poller = select.poll()
    poller.register(left, select.POLLIN)
    calls = {
        "recv": lambda: left.recv(1),
        "read": lambda: os.read(left.fileno(), 1),
        "sleep": lambda: time.sleep(3600),
        "poll": poller.poll,
    }
    log = []

    def clean_up():
        log.append(sys.exc_info()[0])

    def work():
        try:
            calls[call]()
        except Exception:
            log.append("cancel() looks like a failure of the call")
            raise
        finally:
            clean_up()

    fiber = culm.spawn(work, name="patient")
    culm.yield_now()
    fiber.cancel()
    with pytest.raises(culm.Cancelled, match="patient"):
        fiber.result()
    assert log == [culm.Cancelled]


def test_fiber_that_was_cancelled_once_may_fail_otherwise_later():
    def work():
        try:
            time.sleep(3600)
        except culm.Cancelled:
            pass
        for _ in range(1000):
            pass
        raise FileNotFoundError(errno.ENOENT, "not there")

    fiber = culm.spawn(work)
    culm.yield_now()
    fiber.cancel()
    assert isinstance(fiber.exception(), FileNotFoundError)


def test_an_ordinary_ecanceled_stays_an_oserror():
    error = OSError(errno.ECANCELED, "aborted")
    assert type(error) is OSError
    assert error.errno == errno.ECANCELED
    assert type(OSError(errno.ENOENT, "x")) is FileNotFoundError
    assert isinstance(OSError.__new__(ConnectionResetError, 1, "x"), ConnectionResetError)
    assert issubclass(type("Made", (OSError,), {}), OSError)
    with pytest.raises(FileNotFoundError):
        os.open(os.devnull + "-is-not-there", os.O_RDONLY)


def test_cancelled_is_not_raised_in_an_os_thread_that_the_fiber_has_just_started(pair):
    left, _ = pair
    began = []
    everybody = threading.Semaphore(0)

    def note(number):
        began.append(number)
        everybody.release()

    def work(number):
        _thread.start_new_thread(note, (number,))
        culm.current().cancel()
        left.recv(1)

    for number in range(100):
        fiber = culm.spawn(work, number)
        with pytest.raises(culm.Cancelled):
            fiber.result()
        assert everybody.acquire(timeout=10)
    assert began == list(range(100))
