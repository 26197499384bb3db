"""park, unpark, switch, wait_readable and wait_writable; what cannot be woken is unwound."""

import gc
import os
import socket
import sys
import threading
import weakref

import pytest

import culm
from culm import lowlevel


def test_park_returns_the_value_of_unpark():
    fiber = culm.spawn(lowlevel.park)
    culm.yield_now()
    lowlevel.unpark(fiber, "hello")
    assert fiber.result() == "hello"


def test_unpark_before_park_is_not_lost():
    def work():
        culm.yield_now()
        return lowlevel.park()

    fiber = culm.spawn(work)
    culm.yield_now()
    lowlevel.unpark(fiber, 7)
    assert fiber.result() == 7


def test_second_value_on_its_way_is_refused():
    fiber = culm.spawn(lowlevel.park)
    culm.yield_now()
    lowlevel.unpark(fiber, 1)
    with pytest.raises(RuntimeError, match="on its way"):
        lowlevel.unpark(fiber, 2)
    assert fiber.result() == 1


def test_park_times_out():
    def work():
        with pytest.raises(TimeoutError):
            lowlevel.park(timeout=0.001)
        return "on time"

    assert culm.spawn(work).result() == "on time"


def test_unpark_does_not_end_another_wait():
    fiber = culm.spawn(lambda: (culm.sleep(0.005), lowlevel.park())[1])
    culm.yield_now()
    lowlevel.unpark(fiber, "kept")
    culm.yield_now()
    assert fiber.state == "parked"
    assert fiber.result() == "kept"


def test_unpark_from_another_thread():
    fiber = culm.spawn(lowlevel.park)
    culm.yield_now()
    thread = threading.Thread(target=lowlevel.unpark, args=(fiber, "across"))
    thread.start()
    assert fiber.result() == "across"
    thread.join()


def test_switch_ping_pong_carries_values():
    main = culm.current()

    def echo():
        value = lowlevel.switch(main, "ready")
        while value is not None:
            value = lowlevel.switch(main, value * 2)
        lowlevel.unpark(main, "bye")

    fiber = lowlevel.Fiber(echo)
    assert lowlevel.switch(fiber) == "ready"
    assert [lowlevel.switch(fiber, i) for i in (1, 2, 3)] == [2, 4, 6]
    assert lowlevel.switch(fiber) == "bye"
    assert fiber.join()


def test_switch_passes_the_run_queue():
    order = []
    main = culm.current()
    waiting = culm.spawn(order.append, "queued")
    direct = lowlevel.Fiber(lambda: (order.append("direct"), lowlevel.switch(main)))
    lowlevel.switch(direct)
    assert order == ["direct"]
    waiting.join()
    assert order == ["direct", "queued"]
    lowlevel.unpark(direct)
    direct.join()


def test_ring_of_fibers_under_nested_c_calls():
    main = culm.current()
    count = 0

    def nested(depth):
        if depth:
            return sorted([0], key=lambda _: nested(depth - 1) or 0)
        nonlocal count
        for _ in range(100):
            count += 1
            lowlevel.switch(other[culm.current()])
        return [0]

    fibers = [lowlevel.Fiber(nested, 20) for _ in range(2)]
    other = {fibers[0]: fibers[1], fibers[1]: fibers[0]}
    lowlevel.Fiber(lowlevel.switch, fibers[0]).start()
    while count < 200:
        culm.yield_now()
    for fiber in fibers:
        if fiber.state != "finished":
            lowlevel.unpark(fiber)
    for fiber in fibers:
        fiber.join()
    assert main is culm.current()


@pytest.mark.parametrize("bad", [None, 1, "fiber", object()])
def test_switch_and_unpark_need_a_fiber(bad):
    with pytest.raises(TypeError, match="Fiber"):
        lowlevel.switch(bad)
    with pytest.raises(TypeError, match="Fiber"):
        lowlevel.unpark(bad)


def test_switch_refuses_what_cannot_be_continued():
    finished = culm.spawn(int)
    finished.join()
    sleeping = culm.spawn(culm.sleep, 3600)
    culm.yield_now()
    with pytest.raises(RuntimeError, match="finished"):
        lowlevel.switch(finished)
    with pytest.raises(RuntimeError, match="cannot switch"):
        lowlevel.switch(sleeping)
    with pytest.raises(RuntimeError, match="itself"):
        lowlevel.switch(culm.current())
    with pytest.raises(TypeError, match="not started"):
        lowlevel.switch(lowlevel.Fiber(int), "value")
    sleeping.cancel()
    sleeping.join()


def test_switch_to_another_threads_fiber_is_refused():
    fiber = culm.spawn(lowlevel.park)
    culm.yield_now()
    caught = []

    def on_thread():
        try:
            lowlevel.switch(fiber)
        except RuntimeError as error:
            caught.append(str(error))

    thread = threading.Thread(target=on_thread)
    thread.start()
    thread.join()
    assert "another OS thread" in caught[0]
    lowlevel.unpark(fiber)
    fiber.join()


def test_cancel_ends_park_and_switch():
    main = culm.current()
    parked = culm.spawn(lowlevel.park)
    switched = lowlevel.Fiber(lambda: lowlevel.switch(main))
    culm.yield_now()
    lowlevel.switch(switched)
    for fiber in (parked, switched):
        fiber.cancel()
        assert isinstance(fiber.exception(), culm.Cancelled)


def test_unreachable_parked_fiber_is_unwound_and_its_finally_runs():
    log = []

    def work():
        try:
            lowlevel.park()
        finally:
            log.append("finally")

    culm.spawn(work)
    culm.yield_now()
    assert log == ["finally"]


def test_unreachable_cycle_of_parked_fibers_is_unwound_by_the_collector():
    log = []

    def work(friends):
        try:
            lowlevel.park()
        finally:
            log.append("finally")

    friends = []
    friends.extend(culm.spawn(work, friends) for _ in range(3))
    culm.yield_now()
    assert log == []
    dead = weakref.ref(friends[0])
    del friends
    gc.collect()
    assert log == ["finally"] * 3
    gc.collect()
    assert dead() is None


def test_finalizers_of_fibers_run_while_a_fiber_is_unwound_for_another_thread():
    """A fiber is dropped elsewhere, and its clean-up drops and collects others: all clean-ups run, on the owner."""
    ran_on = []

    def clean_up_by(*drop):
        try:
            lowlevel.park()
        finally:
            ran_on.append(threading.get_native_id())
            for what in drop:
                what()

    def make_cycle():
        holder = [culm.spawn(clean_up_by)]
        holder.append(holder)

    outer = [culm.spawn(clean_up_by, make_cycle, culm.yield_now, gc.collect)]
    outer.append(weakref.ref(outer[0]))
    culm.yield_now()

    def drop_elsewhere():
        del outer[0]
        gc.collect()

    thread = threading.Thread(target=drop_elsewhere)
    thread.start()
    while len(ran_on) < 2:
        culm.yield_now()
    thread.join()
    assert ran_on == [threading.get_native_id()] * 2


def test_locals_of_an_unreachable_fiber_are_freed():
    class Thing:
        pass

    refs = []

    def work():
        thing = Thing()
        refs.append(weakref.ref(thing))
        lowlevel.park()

    for _ in range(10):
        culm.spawn(work)
    culm.yield_now()
    gc.collect()
    assert len(refs) == 10
    assert all(ref() is None for ref in refs)


def test_fiber_that_parks_again_while_unwound_lives_on():
    log = []

    def work():
        try:
            lowlevel.park()
        finally:
            culm.sleep(0.001)
            log.append("slept in finally")

    culm.spawn(work)
    while not log:
        culm.yield_now()
    assert log == ["slept in finally"]


def test_parked_fiber_held_only_by_its_waker_is_kept():
    waiting = []

    def work():
        waiting.append(culm.current())
        return lowlevel.park()

    result = []
    culm.spawn(lambda: result.append(work()))
    culm.yield_now()
    gc.collect()
    lowlevel.unpark(waiting.pop(), "kept")
    culm.yield_now()
    assert result == ["kept"]


def test_wait_readable_and_writable():
    left, right = socket.socketpair()
    with left, right:
        lowlevel.wait_writable(left)
        fiber = culm.spawn(lowlevel.wait_readable, left)
        culm.yield_now()
        assert fiber.waiting_for == f"fd {left.fileno()}"
        right.send(b"x")
        assert fiber.result() is None


def test_wait_readable_times_out():
    left, right = socket.socketpair()
    with left, right, pytest.raises(TimeoutError):
        lowlevel.wait_readable(left, timeout=0.001)


def test_wait_readable_on_a_bad_descriptor():
    read_end, write_end = os.pipe()
    os.close(read_end)
    os.close(write_end)
    with pytest.raises(OSError, match="Bad file descriptor"):
        lowlevel.wait_readable(read_end)
    with pytest.raises((TypeError, ValueError)):
        lowlevel.wait_readable("no descriptor")


def test_wait_readable_of_a_regular_file_returns_at_once():
    with open(__file__) as file:
        assert lowlevel.wait_readable(file) is None


def test_close_by_another_fiber_wakes_the_waiter_with_ebadf():
    left, right = socket.socketpair()
    fiber = culm.spawn(lowlevel.wait_readable, left)
    culm.yield_now()
    left.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        fiber.result()
    right.close()


def test_close_by_another_os_thread_wakes_the_waiter_with_ebadf():
    left, right = socket.socketpair()
    fiber = culm.spawn(lowlevel.wait_readable, left)
    culm.yield_now()
    assert fiber.waiting_for == f"fd {left.fileno()}"
    threading.Thread(target=left.close).start()
    with pytest.raises(OSError, match="Bad file descriptor"):
        fiber.result()
    right.close()


def test_switch_of_a_cancelled_fiber_leaves_the_target_alone_and_its_own_references_right():
    main = culm.current()

    def target_body():
        return lowlevel.park()

    target = culm.spawn(target_body)
    culm.yield_now()

    def work():
        culm.current().cancel()
        with pytest.raises(culm.Cancelled):
            lowlevel.switch(target, "lost")
        references = sys.getrefcount(culm.current())
        culm.sleep(0.001)  # parked with nobody else to hold it
        gc.collect()
        return references == sys.getrefcount(culm.current())

    assert culm.spawn(work).result()
    assert target.state == "parked"
    lowlevel.unpark(target, "kept")
    assert target.result() == "kept"
    assert main is culm.current()


def test_switch_with_a_permit_comes_back_and_keeps_its_reference():
    def work():
        lowlevel.unpark(culm.current(), "permit")
        assert lowlevel.switch(lowlevel.Fiber(int)) == "permit"
        culm.sleep(0.001)
        gc.collect()
        return "alive"

    fiber = culm.spawn(work)
    assert fiber.result() == "alive"
