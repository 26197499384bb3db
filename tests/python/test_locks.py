"""The interpreter's own locks treat fibers like threads: a fiber that waits parks, and none enters another's lock."""

import functools
import importlib
import io
import logging
import os
import queue
import random
import sys
import threading
import time

import pytest

import culm


def test_lock_blocks_only_the_fibers_that_want_it():
    lock = threading.Lock()
    log = []

    def holder():
        with lock:
            log.append("held")
            culm.sleep(0.005)
            log.append("released")

    def wants():
        with lock:
            log.append("got it")

    fibers = [culm.spawn(holder), culm.spawn(wants), culm.spawn(log.append, "free")]
    for fiber in fibers:
        fiber.join()
    assert log == ["held", "free", "released", "got it"]


def test_lock_acquire_times_out():
    lock = threading.Lock()
    lock.acquire()
    assert culm.spawn(lock.acquire, timeout=0.005).result() is False
    assert culm.spawn(lock.acquire, False).result() is False
    lock.release()


def test_lock_is_handed_between_fibers_and_threads():
    lock = threading.Lock()
    lock.acquire()
    waiting = culm.spawn(lock.acquire)
    culm.yield_now()
    thread = threading.Thread(target=lock.release)
    thread.start()
    assert waiting.result(timeout=10) is True
    thread.join()


def test_rlock_is_not_reentered_by_another_fiber():
    lock = threading.RLock()
    inside = []

    def work(name):
        with lock, lock:
            inside.append(name)
            culm.sleep(0.001)
            assert inside == [name]
            inside.pop()
        return True

    assert all(fiber.result() for fiber in [culm.spawn(work, name) for name in "abcd"])


def test_rlock_release_by_another_fiber_is_refused():
    lock = threading.RLock()
    lock.acquire()
    with pytest.raises(RuntimeError):
        culm.spawn(lock.release).result()
    lock.release()


def test_condition_event_semaphore_barrier():
    condition = threading.Condition()
    ready = []

    def consumer():
        with condition:
            condition.wait_for(lambda: ready, timeout=10)
            return ready.pop()

    consumers = [culm.spawn(consumer) for _ in range(3)]
    culm.yield_now()
    for i in range(3):
        with condition:
            ready.append(i)
            condition.notify()
    assert sorted(fiber.result() for fiber in consumers) == [0, 1, 2]

    event = threading.Event()
    waiters = [culm.spawn(event.wait, 10) for _ in range(3)]
    culm.yield_now()
    event.set()
    assert all(fiber.result() for fiber in waiters)
    assert culm.spawn(threading.Event().wait, 0.001).result() is False

    semaphore = threading.BoundedSemaphore(2)
    inside, most = 0, 0

    def limited():
        nonlocal inside, most
        with semaphore:
            inside += 1
            most = max(most, inside)
            culm.sleep(0.001)
            inside -= 1

    for fiber in [culm.spawn(limited) for _ in range(6)]:
        fiber.join()
    assert most == 2

    barrier = threading.Barrier(4)
    assert sorted(f.result() for f in [culm.spawn(barrier.wait) for _ in range(4)]) == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", [queue.Queue, queue.LifoQueue, queue.PriorityQueue, queue.SimpleQueue])
def test_queues_between_fibers(kind):
    channel = kind()
    consumer = culm.spawn(lambda: sum(channel.get() for _ in range(100)))
    producers = [culm.spawn(lambda i=i: [channel.put(i * 10 + j) for j in range(10)]) for i in range(10)]
    for producer in producers:
        producer.join()
    assert consumer.result() == sum(range(100))


def test_bounded_queue_parks_the_producer():
    channel = queue.Queue(maxsize=1)
    producer = culm.spawn(lambda: [channel.put(i) for i in range(5)])
    assert [channel.get() for _ in range(5)] == list(range(5))
    producer.join()
    with pytest.raises(queue.Empty):
        culm.spawn(channel.get, timeout=0.001).result()


def test_queue_between_fibers_and_threads():
    channel = queue.Queue()
    back = queue.Queue()

    def on_thread():
        while (item := channel.get()) is not None:
            back.put(item * 2)

    thread = threading.Thread(target=on_thread)
    thread.start()
    fibers = [culm.spawn(lambda i=i: (channel.put(i), back.get())[1]) for i in range(50)]
    assert sorted(fiber.result() for fiber in fibers) == [i * 2 for i in range(50)]
    channel.put(None)
    thread.join()


def test_buffered_reader_is_not_reentrant_for_another_fiber():
    read_end, write_end = os.pipe()
    reader = io.BufferedReader(io.FileIO(read_end))
    fibers = [culm.spawn(reader.read, 3) for _ in range(2)]
    culm.yield_now()
    os.write(write_end, b"abcdef")
    assert sorted(fiber.result() for fiber in fibers) == [b"abc", b"def"]
    os.close(write_end)
    reader.close()


def test_buffered_writer_waits_for_another_fiber():
    read_end, write_end = os.pipe()
    writer = io.BufferedWriter(io.FileIO(write_end, "w"), 100)
    fibers = [culm.spawn(lambda c=c: (writer.write(c * 100_000), writer.flush())) for c in (b"a", b"b")]
    received = b""
    while len(received) < 200_000:
        received += os.read(read_end, 65536)
    for fiber in fibers:
        fiber.join()
    assert received in (b"a" * 100_000 + b"b" * 100_000, b"b" * 100_000 + b"a" * 100_000)
    os.close(read_end)
    writer.close()


def test_import_of_one_module_by_two_fibers(tmp_path, monkeypatch):
    (tmp_path / "slow_to_import.py").write_text("import culm\nculm.yield_now()\nvalue = object()\n")
    monkeypatch.syspath_prepend(tmp_path)
    fibers = [culm.spawn(importlib.import_module, "slow_to_import") for _ in range(3)]
    modules = [fiber.result() for fiber in fibers]
    assert len({id(module.value) for module in modules}) == 1
    del sys.modules["slow_to_import"]


def test_circular_imports_in_two_fibers_do_not_deadlock(tmp_path, monkeypatch):
    (tmp_path / "circle_a.py").write_text("import culm\nculm.yield_now()\nimport circle_b\n")
    (tmp_path / "circle_b.py").write_text("import culm\nculm.yield_now()\nimport circle_a\n")
    monkeypatch.syspath_prepend(tmp_path)
    fibers = [culm.spawn(importlib.import_module, name) for name in ("circle_a", "circle_b")]
    assert [fiber.result(timeout=20).__name__ for fiber in fibers] == ["circle_a", "circle_b"]
    for name in ("circle_a", "circle_b"):
        del sys.modules[name]


def test_logging_handler_that_parks():
    class Slow(logging.Handler):
        def emit(self, record):
            time.sleep(0.001)
            lines.append(record.getMessage())
            time.sleep(0.001)

    lines = []
    logger = logging.Logger("slow")
    logger.addHandler(Slow())
    fibers = [culm.spawn(logger.warning, "line %d", i) for i in range(5)]
    for fiber in fibers:
        fiber.result()
    assert sorted(lines) == [f"line {i}" for i in range(5)]


def test_functools_cached_property_and_lru_cache_with_a_parking_function():
    class Thing:
        @functools.cached_property
        def value(self):
            culm.sleep(0.001)
            return object()

    @functools.lru_cache
    def compute(n):
        culm.sleep(0.001)
        return n * 2

    thing = Thing()
    values = [fiber.result() for fiber in [culm.spawn(lambda: thing.value) for _ in range(3)]]
    assert thing.value in values
    # Before 3.12 a lock made the others wait for the first one's value; from then on each computes its own.
    assert len(set(map(id, values))) == (1 if sys.version_info < (3, 12) else 3)
    assert [f.result() for f in [culm.spawn(compute, 2) for _ in range(3)]] == [4] * 3


def test_fibers_and_threads_compete_for_one_lock(rng):
    lock = threading.Lock()
    total = 0

    def add(n):
        nonlocal total
        for _ in range(n):
            with lock:
                before = total
                if rng.random() < 0.05:
                    time.sleep(0)
                total = before + 1

    threads = [threading.Thread(target=add, args=(200,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    fibers = [culm.spawn(add, 50) for _ in range(20)]
    for fiber in fibers:
        fiber.join()
    for thread in threads:
        thread.join()
    assert total == 3 * 200 + 20 * 50


def test_cancelled_waiters_on_several_threads_leave_the_lock_usable(rng):
    """Whether or not Cancelled can be raised inside acquire(), it never leaves the lock locked."""
    lock = threading.Lock()

    def work(generator):
        for _ in range(30):
            try:
                if lock.acquire(timeout=generator.choice([0.001, 10])):
                    lock.release()
                with lock:
                    culm.yield_now()
            except culm.Cancelled:
                pass

    def on_thread():
        fibers = [culm.spawn(work, random.Random(rng.random())) for _ in range(5)]
        for _ in range(60):
            rng.choice(fibers).cancel()
            culm.yield_now()
        for fiber in fibers:
            fiber.join()

    threads = [threading.Thread(target=on_thread) for _ in range(3)]
    for thread in threads:
        thread.start()
    on_thread()
    for thread in threads:
        thread.join()
    assert not lock.locked()


# A wait for a lock is ended by a pending call, and 3.11 makes those on the main thread only.
interrupts_locks_of_threads = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="only on the main thread before 3.12"
)


def wait_for_an_event():
    threading.Event().wait(60)


def wait_for_a_lock():
    lock = threading.Lock()
    lock.acquire()
    with lock:
        pass


def wait_for_an_item():
    queue.SimpleQueue().get()


def run_on_a_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


@interrupts_locks_of_threads
@pytest.mark.parametrize("wait", [wait_for_an_event, wait_for_a_lock, wait_for_an_item])
def test_a_wait_on_a_thread_where_nobody_else_runs_is_cancelled(wait):
    outcomes = []

    def on_thread():
        fiber = culm.spawn(wait)
        while fiber.waiting_for is None:
            culm.yield_now()
        fiber.cancel()
        outcomes.append((fiber.join(30), type(fiber.exception())))

    run_on_a_thread(on_thread)
    assert outcomes == [(True, culm.Cancelled)]


@interrupts_locks_of_threads
@pytest.mark.parametrize("wait", [wait_for_an_event, wait_for_a_lock, wait_for_an_item])
def test_a_wait_is_unwound_when_its_thread_ends(wait):
    seen = []

    def waits():
        try:
            wait()
        finally:
            seen.append(type(sys.exc_info()[1]))

    def on_thread():
        fiber = culm.spawn(waits)
        while fiber.waiting_for is None:
            culm.yield_now()

    run_on_a_thread(on_thread)
    assert seen == [culm.FiberExit]


def test_who_waits_for_a_fiber_that_does_not_end_with_its_thread_is_told():
    fibers = []

    def stubborn():
        while True:
            try:
                culm.sleep(3600)
            except BaseException:
                pass

    def on_thread():
        fibers.append(culm.spawn(stubborn))
        culm.yield_now()

    run_on_a_thread(on_thread)
    assert fibers[0].join(30)
    with pytest.raises(RuntimeError, match="did not end when its thread did"):
        fibers[0].result()
