"""Asynchronous exceptions, signals and the identity of the main thread."""

import ctypes
import functools
import gc
import operator
import os
import signal
import sys
import threading

from probe_support import Fiber, Stop, finish, park, probe, spin


def test_raise_soon_travels_with_its_fiber():
    for exception in (Stop, Stop("instance")):

        def body():
            probe.raise_soon(exception)
            park()  # the evaluation loop may raise it before this call
            spin()

        def bystander():
            for _ in range(5):
                spin()
                park()
            return "unharmed"

        fiber, other = Fiber(body), Fiber(bystander)
        raised = None
        try:
            fiber.resume()
            other.resume()
            spin()
            fiber.resume()
        except Stop as error:
            raised = error
        assert raised is not None
        assert raised is exception or exception is Stop
        assert finish(other) == "unharmed"
        assert type(raised) is Stop


def test_raise_soon_is_taken_along_by_a_switch():
    """The exception is set and the fiber parks within one C call, so that it is certainly still pending."""
    log = []

    def body():
        try:
            list(map(operator.call, [functools.partial(probe.raise_soon, Stop("later")), park]))
            spin()
        except Stop as error:
            log.append(str(error))

    fiber = Fiber(body)
    fiber.resume()
    assert log == []
    spin()
    finish(Fiber(spin))
    gc.collect()
    assert log == []
    fiber.resume()
    assert log == ["later"]


def test_raise_soon_withdrawn():
    def body():
        list(map(operator.call, [functools.partial(probe.raise_soon, Stop), functools.partial(probe.raise_soon, None)]))
        spin()
        return "ended"

    assert Fiber(body).resume() == "ended"


def test_raise_soon_dropped_with_an_abandoned_fiber():
    def body():
        list(map(operator.call, [functools.partial(probe.raise_soon, Stop("x")), park]))

    fiber = Fiber(body)
    fiber.resume()
    fiber.abandon()
    raised = None
    try:
        spin()
        finish(Fiber(spin))
    except Stop as error:
        raised = error
    assert raised is None
    assert fiber.phase == "abandoned"


def test_foreign_asynchronous_exception_stays_with_the_thread():
    set_exception = ctypes.pythonapi.PyThreadState_SetAsyncExc
    set_exception.argtypes = [ctypes.c_ulong, ctypes.py_object]

    def body():
        park()
        return "ended"

    fiber = Fiber(body)
    fiber.resume()
    try:
        set_exception(threading.get_ident(), Stop)
        spin()
    except Stop:
        pass
    else:
        raise AssertionError("not raised in the flow that was running")
    assert fiber.resume() == "ended"


def test_main_thread_slot_follows_the_running_fiber():
    identity = threading.main_thread().ident
    assert probe.main_thread_identity() == identity
    seen = []

    def body():
        seen.append(probe.main_thread_identity())
        park()
        seen.append(probe.main_thread_identity())

    fiber = Fiber(body, identity=4711)
    fiber.resume()
    assert probe.main_thread_identity() == identity
    fiber.resume()
    assert seen == [4711, 4711]
    assert probe.main_thread_identity() == identity


def test_slot_is_left_alone_by_other_threads():
    identity = threading.main_thread().ident
    seen = []

    def body():
        park()
        seen.append("fiber")

    def thread():
        fiber = Fiber(body, identity=815)
        fiber.resume()
        fiber.resume()

    t = threading.Thread(target=thread)
    t.start()
    t.join()
    assert seen == ["fiber"]
    assert probe.main_thread_identity() == identity


def test_signal_handler_runs_in_the_running_fiber():
    log = []
    previous = signal.signal(signal.SIGUSR1, lambda *args: log.append("handled"))
    try:

        def body():
            park()
            os.kill(os.getpid(), signal.SIGUSR1)
            spin()
            return list(log)

        fiber = Fiber(body)
        fiber.resume()
        assert fiber.resume() == ["handled"]
        spin()
        assert probe.signal_tripped() is False
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_signal_tripped_sees_a_pending_signal():
    log = []
    previous = signal.signal(signal.SIGUSR1, lambda *args: log.append("handled"))
    try:
        # Tripped and looked at within one C call: the evaluation loop cannot run the handler in between.
        trip = functools.partial(ctypes.pythonapi.PyErr_SetInterruptEx, int(signal.SIGUSR1))
        before, _, after = list(map(operator.call, [probe.signal_tripped, trip, probe.signal_tripped]))
        spin()
        assert (before, after) == (False, True)
        assert log == ["handled"]
        assert probe.signal_tripped() is False
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_raise_soon_withdrawn_leaves_no_request_behind():
    # 3.11: with a request that nobody answers, a traced function would never begin.
    def traced():
        return "returned"

    def work():
        list(map(operator.call, [functools.partial(probe.raise_soon, Stop), functools.partial(probe.raise_soon, None)]))
        sys.settrace(lambda *_: None)
        try:
            return traced()
        finally:
            sys.settrace(None)

    assert Fiber(work).resume() == "returned"
