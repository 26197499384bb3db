"""Trace and profile functions across switches, and switches inside them."""

import gc
import sys

from probe_support import DEBUG, VERSION, Fiber, Stop, park


def test_settrace_survives_switches():
    events = []

    def tracer(frame, event, arg):
        if frame.f_code.co_name == "traced":
            events.append(event)
        return tracer

    def traced():
        x = 1
        park()
        y = 2
        return x + y

    sys.settrace(tracer)
    try:
        fibers = [Fiber(traced) for _ in range(3)]
        for _ in range(2):
            for fiber in fibers:
                fiber.resume()
    finally:
        sys.settrace(None)
    assert (events.count("call"), events.count("return")) == (3, 3), events
    assert events.count("line") == 12


def test_settrace_set_and_removed_while_suspended():
    events = []

    def tracer(frame, event, arg):
        events.append(frame.f_code.co_name)
        return tracer

    def inner():
        return 1

    def body():
        park()
        inner()
        park()
        inner()

    fiber = Fiber(body)
    fiber.resume()
    sys.settrace(tracer)
    try:
        fiber.resume()
    finally:
        sys.settrace(None)
    assert "inner" in events
    count = len(events)
    fiber.resume()
    assert len(events) == count


def test_switch_inside_trace_and_profile_callbacks():
    for install in (sys.settrace, sys.setprofile):
        other_ran = []

        def other():
            while True:
                other_ran.append(len(traced))
                park()

        other_fiber = Fiber(other)
        traced = []

        def callback(frame, event, arg):
            if frame.f_code.co_name == "work":
                traced.append(event)
                other_fiber.resume()
            return callback

        def work():
            return sum([1, 2, 3])

        def body():
            work()
            park()
            work()

        fiber = Fiber(body)
        install(callback)
        try:
            fiber.resume()
            fiber.resume()
            other_fiber.throw(Stop())
        except Stop:
            pass
        finally:
            install(None)
        assert len(traced) >= 4
        assert len(other_ran) == len(traced)


def test_fiber_parked_inside_a_trace_callback_is_collected():
    if DEBUG and VERSION >= (3, 12):
        return  # a debug build asserts that all code it finds was instrumented again when tracing ended

    def tracer(frame, event, arg):
        if frame.f_code.co_name == "work" and event == "call":
            cycle = [frame]
            cycle.append(cycle)
            park()
        return None

    def work():
        pass

    def body():
        sys.settrace(tracer)
        try:
            work()
        finally:
            sys.settrace(None)

    fiber = Fiber(body)
    fiber.resume()
    sys.settrace(None)
    gc.collect()
    assert fiber.phase == "suspended"
    fiber.resume()
    assert fiber.phase == "finished"
