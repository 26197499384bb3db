"""Trace, profile and monitoring functions while fibers switch, and what code that was parked meanwhile tells them."""

import sys

import pytest

import culm
from culm import lowlevel

IS_DEBUG_BUILD = hasattr(sys, "gettotalrefcount")
# On 3.12 suspended code cannot be rewritten. It is traced from its next call on.
rewrites_parked_code = pytest.mark.skipif(sys.version_info < (3, 13), reason="parked code follows from 3.13 on")
if IS_DEBUG_BUILD and sys.version_info[:2] == (3, 12):
    pytest.skip("a debug build of 3.12 asserts that parked code follows", allow_module_level=True)


@pytest.fixture(autouse=True)
def no_tracing_afterwards():
    yield
    sys.settrace(None)
    sys.setprofile(None)


def both(*functions):
    """Run the functions on fibers side by side and return their results."""
    return [fiber.result() for fiber in [culm.spawn(function) for function in functions]]


def park_in(function):
    """A fiber that has begun `function` and is parked."""
    fiber = lowlevel.Fiber(function)
    fiber.start()
    while fiber.state != "parked":
        culm.yield_now()
    return fiber


def make_waiter():
    """A function with code of its own, which nothing has traced before."""
    names = {"lowlevel": lowlevel, "culm": culm}
    source = """
def inner():
    lowlevel.park()
    return 1

def waiter():
    try:
        value = inner()
    except culm.Cancelled:
        value = 2
    return value + 40
"""
    exec(compile(source, "waiter.py", "exec"), names)
    return names["waiter"]


def test_settrace_survives_switches():
    events = []

    def trace(frame, event, argument):
        if frame.f_code.co_name == "traced":
            events.append((frame.f_locals["name"], event))
        return trace

    def traced(name):
        culm.yield_now()
        return name

    sys.settrace(trace)
    try:
        both(lambda: traced("a"), lambda: traced("b"))
    finally:
        sys.settrace(None)
    assert {event for name, event in events if name == "a"} == {"call", "line", "return"}
    assert len(events) == 8


def test_switch_inside_a_trace_function():
    seen = []

    def trace(frame, event, argument):
        if frame.f_code.co_name == "traced":
            culm.yield_now()
            seen.append(event)
        return None

    def traced():
        return 1

    def work():
        sys.settrace(trace)
        try:
            return traced() + traced()
        finally:
            sys.settrace(None)

    assert both(work, lambda: sum(1 for _ in range(3) if not culm.yield_now())) == [2, 3]
    assert seen.count("call") >= 1


@pytest.mark.parametrize("turn_on", [sys.settrace, sys.setprofile])
def test_an_exception_in_code_that_was_parked_when_tracing_began(turn_on):
    def work():
        fiber = park_in(make_waiter())
        turn_on(lambda frame, event, argument: None)
        fiber.cancel()
        return fiber.result()

    assert culm.spawn(work).result() == 42


def test_an_exception_in_code_that_was_parked_when_tracing_ended():
    def work():
        sys.settrace(lambda frame, event, argument: None)
        fiber = park_in(make_waiter())
        sys.settrace(None)
        fiber.cancel()
        return fiber.result()

    assert culm.spawn(work).result() == 42


def test_the_flow_that_started_the_fibers_is_brought_up_to_date_too():
    def turn_on():
        sys.settrace(lambda frame, event, argument: None)
        raise LookupError

    with pytest.raises(LookupError):
        culm.spawn(turn_on).result()


@rewrites_parked_code
def test_a_debugger_follows_a_fiber_that_was_parked_when_it_came():
    lines = []

    def trace(frame, event, argument):
        lines.append((frame.f_code.co_name, event, frame.f_lineno))
        return trace

    def work():
        fiber = park_in(make_waiter())
        for frame in (fiber.frame, fiber.frame.f_back):
            frame.f_trace = trace
        sys.settrace(lambda frame, event, argument: None)
        lowlevel.unpark(fiber)
        return fiber.result()

    assert culm.spawn(work).result() == 41
    assert lines == [
        ("inner", "line", 4),
        ("inner", "return", 4),
        ("waiter", "line", 11),
        ("waiter", "return", 11),
    ]


@rewrites_parked_code
def test_a_monitoring_tool_sees_code_that_was_parked_when_it_came():
    monitoring = sys.monitoring
    tool = monitoring.PROFILER_ID
    seen = []

    def see(code, line):
        if code.co_filename == "waiter.py":
            seen.append(line)

    def work():
        fiber = park_in(make_waiter())
        monitoring.set_events(tool, monitoring.events.LINE)
        lowlevel.unpark(fiber)
        return fiber.result()

    monitoring.use_tool_id(tool, "a test")
    try:
        monitoring.register_callback(tool, monitoring.events.LINE, see)
        assert culm.spawn(work).result() == 41
    finally:
        monitoring.set_events(tool, 0)
        monitoring.free_tool_id(tool)
    assert seen == [4, 11]


@rewrites_parked_code
def test_opcodes_that_a_debugger_traces_stay_traced():
    events = []

    def trace(frame, event, argument):
        events.append(event)
        return trace

    def work():
        fiber = park_in(make_waiter())
        frame = fiber.frame
        frame.f_trace = trace
        frame.f_trace_opcodes = True
        sys.settrace(lambda frame, event, argument: None)
        lowlevel.unpark(fiber)
        return fiber.result()

    assert culm.spawn(work).result() == 41
    assert events.count("opcode") >= 2


def test_a_thousand_parked_fibers_and_a_trace_function_that_comes_and_goes():
    def work():
        fibers = [park_in(make_waiter()) for _ in range(1000)]
        for position, fiber in enumerate(fibers):
            sys.settrace((lambda frame, event, argument: None) if position % 2 else None)
            if position % 3:
                fiber.cancel()
            else:
                lowlevel.unpark(fiber)
            culm.yield_now()
        return [fiber.result() for fiber in fibers]

    assert culm.spawn(work).result() == [42 if position % 3 else 41 for position in range(1000)]
