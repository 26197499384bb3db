"""spawn, join, result, cancel, state: the everyday life of a fiber."""

import gc
import threading
import traceback
import weakref

import pytest

import culm
from culm import lowlevel


def test_result_returns_what_the_function_returned():
    assert culm.spawn(lambda a, b=0: a + b, 2, b=3).result() == 5


def test_options_are_not_passed_to_the_function():
    seen = culm.spawn(lambda **kwargs: kwargs, name="n", stack_limit=65536, other=1).result()
    assert seen == {"other": 1}


def test_fibers_start_in_the_order_of_spawn_and_only_when_the_spawner_parks():
    order = []
    fibers = [culm.spawn(order.append, i) for i in range(10)]
    assert order == []
    for fiber in fibers:
        fiber.join()
    assert order == list(range(10))


def test_result_raises_what_the_function_raised_with_its_traceback():
    def fails():
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone") as caught:
        culm.spawn(fails).result()
    assert "fails" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]


def test_exception_returns_it_and_none_for_success():
    error = ValueError("x")

    def fails():
        raise error

    assert culm.spawn(fails).exception() is error
    assert culm.spawn(int).exception() is None


def test_untaken_exception_is_reported_with_the_fibers_name(unraisable):
    def fails():
        raise LookupError("nobody looks")

    fiber = culm.spawn(fails, name="careless")
    assert fiber.join() is True
    del fiber
    gc.collect()
    [(described, error)] = unraisable
    assert "careless" in described
    assert isinstance(error, LookupError)


def test_taken_exception_is_not_reported(unraisable):
    fiber = culm.spawn(lambda: 1 / 0)
    assert isinstance(fiber.exception(), ZeroDivisionError)
    del fiber
    gc.collect()
    assert unraisable == []


def test_join_times_out_and_leaves_the_fiber_running():
    fiber = culm.spawn(culm.sleep, 3600)
    assert fiber.join(0.001) is False
    assert fiber.state == "parked"
    assert fiber.cancel() is True
    assert fiber.join() is True


def test_result_times_out_with_timeout_error_naming_the_fiber():
    fiber = culm.spawn(culm.sleep, 3600, name="slow")
    with pytest.raises(TimeoutError, match="slow"):
        fiber.result(timeout=0.001)
    fiber.cancel()
    fiber.join()


def test_states_from_new_to_finished():
    states = []
    fiber = lowlevel.Fiber(lambda: states.append(fiber.state))
    states.append(fiber.state)
    fiber.start()
    states.append(fiber.state)
    fiber.join()
    states.append(fiber.state)
    assert states == ["new", "ready", "running", "finished"]


def test_name_defaults_to_the_functions_and_can_be_set():
    def work():
        pass

    fiber = culm.spawn(work)
    assert fiber.name.endswith("work")
    fiber.name = "other"
    assert fiber.name == "other"
    assert "other" in repr(fiber)
    fiber.join()


def test_current_is_the_running_fiber_and_main_outside():
    assert culm.current().is_main
    assert culm.current().name == "main"
    fiber = culm.spawn(culm.current)
    assert fiber.result() is fiber
    fiber = None  # the result refers to the fiber: a cycle
    gc.collect()


def test_fibers_lists_the_unfinished():
    fibers = [culm.spawn(culm.sleep, 3600) for _ in range(3)]
    culm.yield_now()
    assert sorted(f.id for f in culm.fibers()) == [f.id for f in fibers]
    for fiber in fibers:
        fiber.cancel()
        fiber.join()
    assert culm.fibers() == []


@pytest.mark.parametrize("started", [False, True])
def test_cancel_raises_cancelled_where_it_waits(started):
    log = []

    def work():
        try:
            culm.sleep(3600)
        except culm.Cancelled:
            log.append("cancelled")
            raise

    fiber = culm.spawn(work)
    if started:
        culm.yield_now()
    fiber.cancel()
    with pytest.raises(culm.Cancelled):
        fiber.result()
    assert log == (["cancelled"] if started else [])


def test_cancel_of_a_new_fiber_ends_it_unrun():
    fiber = lowlevel.Fiber(lambda: pytest.fail("must not run"))
    assert fiber.cancel() is True
    assert fiber.state == "finished"
    with pytest.raises(culm.Cancelled):
        fiber.result()


def test_cancel_of_a_finished_fiber_says_false():
    fiber = culm.spawn(int)
    fiber.join()
    assert fiber.cancel() is False
    assert fiber.result() == 0


def test_cancelled_can_be_caught_and_the_fiber_goes_on():
    def work():
        try:
            culm.sleep(3600)
        except culm.Cancelled:
            pass
        culm.sleep(0)
        return "went on"

    fiber = culm.spawn(work)
    culm.yield_now()
    fiber.cancel()
    assert fiber.result() == "went on"


def test_cancel_arrives_at_yield_now():
    def spin():
        while True:
            culm.yield_now()

    fiber = culm.spawn(spin)
    culm.yield_now()
    fiber.cancel()
    assert isinstance(fiber.exception(), culm.Cancelled)


def test_cancelled_passes_except_exception():
    assert not issubclass(culm.Cancelled, Exception)


def test_traceback_of_a_parked_fiber_shows_its_frames():
    def inner():
        culm.sleep(3600)

    def outer():
        inner()

    fiber = culm.spawn(outer)
    culm.yield_now()
    assert [frame.name for frame in fiber.traceback()] == ["outer", "inner"]
    assert fiber.frame is not None
    assert fiber.frame.f_code is inner.__code__
    fiber.cancel()
    fiber.join()
    assert list(fiber.traceback()) == []
    assert fiber.frame is None


def test_traceback_crosses_c_callbacks():
    def key(_):
        culm.sleep(3600)

    fiber = culm.spawn(lambda: sorted([1, 2], key=key))
    culm.yield_now()
    assert [frame.name for frame in fiber.traceback()][-1] == "key"
    fiber.cancel()
    fiber.join()


def test_stack_tells_limit_use_and_residency():
    fiber = culm.spawn(culm.sleep, 3600, stack_limit=256 * 1024)
    culm.yield_now()
    use = fiber.stack
    assert use.limit == 256 * 1024
    assert 0 < use.used <= use.resident <= use.peak <= use.limit
    assert use.resident % 4096 == 0
    fiber.cancel()
    fiber.join()
    assert fiber.stack.used == 0
    assert fiber.stack.resident == 0


def test_stack_peak_outlives_a_trim():
    def deep(n):
        return sorted([0], key=lambda _: deep(n - 1) if n else 0)

    def work():
        deep(40)
        culm.sleep(3600)

    fiber = culm.spawn(work)
    culm.yield_now()
    before = fiber.stack
    assert before.resident > 100_000
    culm.trim()
    after = fiber.stack
    assert after.resident < before.resident // 4
    assert after.peak == before.peak
    fiber.cancel()
    fiber.join()


def test_waiting_for_names_the_reason():
    fibers = {
        "sleep": culm.spawn(culm.sleep, 3600),
        "unpark": culm.spawn(lowlevel.park),
    }
    fibers["join"] = culm.spawn(fibers["sleep"].join)
    culm.yield_now()
    assert {reason: fiber.waiting_for for reason, fiber in fibers.items()} == {r: r for r in fibers}
    for fiber in fibers.values():
        fiber.cancel()
        fiber.join()


def test_a_finished_fiber_keeps_only_its_outcome():
    class Thing:
        pass

    thing = Thing()
    gone = weakref.ref(thing)
    fiber = culm.spawn(lambda value: 1, thing)
    fiber.join()
    del thing
    assert gone() is None
    assert fiber.result() == 1


def test_join_from_another_thread_waits_for_the_end():
    fiber = culm.spawn(lowlevel.park)
    joining, outcome = [], []

    def on_thread():
        joining.append(culm.current())
        outcome.append(fiber.join())

    thread = threading.Thread(target=on_thread)
    thread.start()
    while thread.is_alive() and (not joining or joining[0].state != "parked"):
        culm.yield_now()
    assert (fiber.state, outcome) == ("parked", [])
    lowlevel.unpark(fiber)
    thread.join()
    assert (fiber.state, outcome) == ("finished", [True])


def test_join_from_another_thread_times_out():
    fiber = culm.spawn(culm.sleep, 3600)
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(fiber.join(0.01)))
    thread.start()
    thread.join()
    assert outcome == [False]
    fiber.cancel()
    fiber.join()


def test_cancel_from_another_thread_reaches_the_fiber():
    fiber = culm.spawn(culm.sleep, 3600)
    culm.yield_now()
    assert fiber.waiting_for == "sleep"
    thread = threading.Thread(target=fiber.cancel)
    thread.start()
    assert isinstance(fiber.exception(), culm.Cancelled)
    thread.join()


def test_each_thread_has_its_own_scheduler():
    everybody = threading.Barrier(4, timeout=60)
    seen = {}

    def where_i_run():
        lowlevel.park()
        return threading.get_native_id()

    def on_thread():
        fibers = [culm.spawn(where_i_run) for _ in range(10)]
        culm.yield_now()
        everybody.wait()  # the fibers of all four threads are parked now
        listed, counted = culm.fibers(), culm.statistics().fibers
        for fiber in fibers:
            lowlevel.unpark(fiber)
        ran_on = {fiber.result() for fiber in fibers}
        seen[threading.get_native_id()] = (listed == fibers, counted, ran_on)

    threads = [threading.Thread(target=on_thread) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {thread.native_id: (True, 10, {thread.native_id}) for thread in threads}
    assert len(seen) == 4


def test_run_returns_the_result_and_cancels_what_is_left():
    seen = []

    def forgotten():
        try:
            culm.sleep(3600)
        finally:
            seen.append("cleaned up")

    def main(x, *, y):
        culm.spawn(forgotten)
        culm.yield_now()
        return x + y

    assert culm.run(main, 1, y=2) == 3
    assert seen == ["cleaned up"]


def test_run_inside_a_fiber_is_refused():
    with pytest.raises(RuntimeError, match="outermost"):
        culm.spawn(culm.run, int).result()


def test_ten_thousand_fibers_sleep_together():
    asleep = most = 0

    def sleeper():
        nonlocal asleep, most
        asleep += 1
        most = max(most, asleep)
        culm.sleep(0.01)
        asleep -= 1

    for fiber in [culm.spawn(sleeper) for _ in range(10_000)]:
        fiber.join()
    # A fiber that wakes queues behind those that have not begun yet, so all sleep at once, however slow the machine is.
    assert (most, asleep) == (10_000, 0)


def test_statistics_count():
    before = culm.statistics()
    culm.spawn(int).join()
    after = culm.statistics()
    assert after.spawned - before.spawned == 1
    assert after.finished - before.finished == 1
    assert after.switches > before.switches
