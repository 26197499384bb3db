"""Arguments of wrong type or value, and fibers that are finished, foreign or ending, give clear errors."""

import math
import resource
import time
from pathlib import Path

import pytest

import culm
from culm import lowlevel


@pytest.mark.parametrize("make", [culm.spawn, lowlevel.Fiber])
class TestMaking:
    def test_needs_a_function(self, make):
        with pytest.raises(TypeError, match="first argument"):
            make()

    @pytest.mark.parametrize("bad", [None, 1, "name", [int]])
    def test_needs_a_callable(self, make, bad):
        with pytest.raises(TypeError, match="callable"):
            make(bad)

    @pytest.mark.parametrize("bad", [0, -1, 2**31, 2**64, 10**30])
    def test_stack_limit_out_of_range(self, make, bad):
        with pytest.raises(ValueError, match="stack_limit must be from 1 to"):
            make(int, stack_limit=bad)

    @pytest.mark.parametrize("bad", [1.5, "64K", True, [1]])
    def test_stack_limit_of_wrong_type(self, make, bad):
        with pytest.raises(TypeError, match="stack_limit must be an int"):
            make(int, stack_limit=bad)

    @pytest.mark.parametrize("bad", [1, b"name", object()])
    def test_name_of_wrong_type(self, make, bad):
        with pytest.raises(TypeError, match="name must be a str"):
            make(int, name=bad)


def test_stack_limit_is_rounded_up_to_a_class():
    limits = {1: 2**16, 2**16: 2**16, 2**16 + 1: 2**18, 300_000: 2**20, 2**20 + 1: 10 * 2**20, 11 * 2**20: 100 * 2**20}
    for asked, given in limits.items():
        fiber = lowlevel.Fiber(int, stack_limit=asked)
        assert fiber.stack.limit == given
        fiber.cancel()


@pytest.mark.parametrize("wait", [culm.sleep, lambda t: culm.spawn(int).join(t), lambda t: lowlevel.park(timeout=t)])
@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        (-1, ValueError, "negative"),
        (math.nan, ValueError, "NaN"),
        ("1", TypeError, "number"),
        ([], TypeError, "number"),
    ],
)
def test_times_of_wrong_kind(wait, bad, error, words):
    with pytest.raises(error, match=words):
        wait(bad)
    culm.yield_now()


@pytest.mark.parametrize("huge", [1e18, 1e300, math.inf, 2**62])
def test_huge_times_wait_for_ever(huge):
    fiber = culm.spawn(culm.sleep, huge)
    culm.yield_now()
    assert fiber.state == "parked"
    fiber.cancel()
    fiber.join()


def test_join_of_oneself_is_refused():
    def work():
        with pytest.raises(RuntimeError, match="own end"):
            culm.current().join()
        return True

    assert culm.spawn(work).result()


def test_join_of_the_main_fiber_is_refused():
    main = culm.current()
    with pytest.raises(RuntimeError, match="main fiber"):
        culm.spawn(main.join).result()


def test_start_twice_is_refused():
    fiber = culm.spawn(int)
    with pytest.raises(RuntimeError, match="already been started"):
        fiber.start()
    fiber.join()
    with pytest.raises(RuntimeError, match="already been started"):
        fiber.start()


def test_operations_on_a_finished_fiber():
    fiber = culm.spawn(lambda: 5)
    fiber.join()
    assert fiber.join()
    assert fiber.result() == 5
    assert fiber.exception() is None
    assert fiber.cancel() is False
    with pytest.raises(RuntimeError, match="finished"):
        lowlevel.unpark(fiber)
    assert fiber.frame is None
    assert fiber.waiting_for is None


@pytest.mark.parametrize("method", ["join", "result", "exception"])
def test_unknown_arguments_are_named(method):
    fiber = culm.spawn(int)
    with pytest.raises(TypeError, match="time_out"):
        getattr(fiber, method)(time_out=1)
    with pytest.raises(TypeError, match="at most one"):
        getattr(fiber, method)(1, timeout=1)
    fiber.join()


def test_fiber_cannot_be_subclassed_or_deleted_from():
    with pytest.raises(TypeError):
        type("Sub", (culm.Fiber,), {})
    fiber = lowlevel.Fiber(int)
    with pytest.raises(TypeError):
        del fiber.name
    with pytest.raises(AttributeError):
        fiber.state = "finished"
    fiber.cancel()


def test_patch_in_a_fiber_is_refused():
    with pytest.raises(RuntimeError, match="main fiber"):
        culm.spawn(culm.patch).result()


def test_a_fiber_that_was_made_on_a_thread_that_has_ended_belongs_to_nobody():
    import threading

    made = []
    thread = threading.Thread(target=lambda: made.extend([lowlevel.Fiber(int), lowlevel.Fiber(int)]))
    thread.start()
    task = Path(f"/proc/self/task/{thread.native_id}")
    thread.join()
    while task.exists():  # join() returns a moment before the OS thread is gone
        time.sleep(0.001)
    first, second = made
    assert (first.state, first.ident, first.id < second.id) == ("new", None, True)
    first.start()
    assert first.result() == 0
    assert second.cancel() is True
    with pytest.raises(culm.Cancelled):
        second.result()
    with pytest.raises(RuntimeError, match="already been started"):
        first.start()


def test_spawn_without_address_space_is_an_oserror_and_harms_nobody(run_script):
    done = run_script("""
import resource, culm
survivor = culm.spawn(lambda: (culm.sleep(0.01), "alive")[1])
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + (3 << 30), resource.RLIM_INFINITY))
fibers = []
try:
    while len(fibers) < 100_000:
        fibers.append(culm.spawn(culm.sleep, 3600, stack_limit=100 << 20))
except OSError as error:
    message = str(error)
    print(type(error).__name__, error.errno, "could not" in message and ";" in message)
print(survivor.result(), 0 < len(fibers) < 100_000)
for fiber in fibers:
    fiber.cancel()
for fiber in fibers:
    fiber.join()
before = len(open("/proc/self/maps").readlines())
again = [culm.spawn(culm.sleep, 0, stack_limit=100 << 20) for _ in range(len(fibers))]
for fiber in again:
    fiber.join()
print("again", len(again) == len(fibers))
""")
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["OSError 12 True", "alive True", "again True"]


def test_sub_interpreter_is_refused_with_a_reason(run_script):
    done = run_script("""
try:
    import _interpreters as interpreters
    ident = interpreters.create()
    result = interpreters.exec(ident, "import culm")
    print(getattr(result, "formatted", result) or result)
except ModuleNotFoundError:
    import _xxsubinterpreters as interpreters
    ident = interpreters.create()
    try:
        interpreters.run_string(ident, "import culm")
    except Exception as error:
        print(error)
""")
    assert "ImportError" in done.stdout, (done.stdout, done.stderr)
    assert "interpreter" in done.stdout


def test_fd_limit_reached_in_accept_is_the_usual_error():
    import socket

    server = socket.create_server(("127.0.0.1", 0), backlog=16)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []

    def accept():
        try:
            while True:
                held.append(server.accept()[0])
        except OSError as error:
            return error

    acceptor = culm.spawn(accept)
    clients = [socket.socket() for _ in range(4)]
    try:
        culm.yield_now()
        next_fd = max(client.fileno() for client in clients) + 2
        resource.setrlimit(resource.RLIMIT_NOFILE, (next_fd, hard))
        for client in clients:
            client.connect(server.getsockname())
        error = acceptor.result(timeout=10)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    import errno

    assert error.errno == errno.EMFILE
    # The connection that could not be taken is still there.
    while len(held) < len(clients):
        held.append(server.accept()[0])
    for sock in [server, *clients, *held]:
        sock.close()


def test_peer_reset_is_the_usual_error():
    import socket
    import struct

    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    conn, _ = server.accept()
    reader = culm.spawn(conn.recv, 100)
    culm.yield_now()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    assert isinstance(reader.exception(), ConnectionResetError)
    conn.close()
    server.close()
