"""The demo's job in plain blocking style: an echo server, its clients, and a deep recursion.

Nothing here knows of fibers. `spawn` is given by the caller and starts either a fiber or an OS thread; everything else
is what a newcomer would write with `socket` and `threading`. All clients go through the same stations, and the course
looks at the process while everybody stands still.
Invariant: every client passes or gives up every station once, so that nobody waits for a client that failed.
"""

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from culm.cli.machine import ProcessReading, read_process

__all__ = ["Course", "Crew", "Dive", "Figures", "descend"]

MESSAGE = b"." * 64
# Each pair of addresses has some 28,000 ports, and a closed connection keeps its port for a minute.
_SOURCE_ADDRESSES = 8
_STATION_TIMEOUT_SECONDS = 90.0


class Joinable(Protocol):
    """A fiber or a thread."""

    def join(self) -> object:
        """Wait until it has ended."""


@dataclass(frozen=True)
class Crew:
    """What differs between fibers and threads: how one is started, and what can be asked about all of them."""

    spawn: Callable[..., Joinable]
    switches: Callable[[], int]  # so far, in this process
    give_memory_back: Callable[[], object]
    stack_bytes: Callable[[], float | None]  # resident bytes of the average stack


@dataclass(frozen=True)
class Figures:
    """What was measured. Bytes are for each fiber or thread, page tables included."""

    clients: int
    flows: int  # fibers or threads alive at once
    divers: int
    requests_per_second: float
    switches_per_second: float
    rest_bytes: float
    rest_stack_bytes: float | None
    peak_bytes: float | None
    after_bytes: float
    after_stack_bytes: float | None
    os_threads: int
    mappings: int
    failures: list[str]

    def as_dict(self) -> dict[str, Any]:
        """The same as a plain dictionary, for JSON."""
        return asdict(self)


class Station:
    """Where everybody stops until the course lets them go on."""

    def __init__(self, expected: int) -> None:
        self._lock = threading.Lock()
        self._expected = expected
        self._arrived = 0
        self._complete = threading.Event()
        self._open = threading.Event()

    @property
    def arrived(self) -> int:
        """How many have come so far."""
        return self._arrived

    def check_in(self) -> None:
        """Be counted without stopping."""
        with self._lock:
            self._arrived += 1
            if self._arrived == self._expected:
                self._complete.set()

    def stop(self) -> None:
        """Be counted, and wait until the station opens."""
        self.check_in()
        self._open.wait()

    def wait_until_complete(self) -> None:
        """Wait for the last one."""
        if self._expected and not self._complete.wait(_STATION_TIMEOUT_SECONDS):
            raise TimeoutError(f"{self._expected - self._arrived} of {self._expected} did not arrive in time")

    def open(self) -> None:
        """Let everybody go on."""
        self._open.set()


class Course:
    """One run of the job: clients, server and the stations between its parts."""

    def __init__(self, *, clients: int, divers: int, levels: int, seconds: float, crew: Crew) -> None:
        self.clients = clients
        self.divers = min(divers, clients)
        self.levels = levels
        self.seconds = seconds
        self.crew = crew
        self.connected = Station(clients)
        self.exchanged = Station(clients)
        self.at_bottom = Station(self.divers)
        self.surfaced = Station(clients)
        self.requests = [0] * clients
        self.failures: list[str] = []
        self._ends_at = 0.0

    def run(self) -> Figures:
        """Go through the whole course and return what was measured."""
        before = read_process()
        with socket.create_server(("127.0.0.1", 0), backlog=4096) as server:
            acceptor = self.crew.spawn(self._serve, server)
            flows = [self.crew.spawn(self._attend, number, server.getsockname()) for number in range(self.clients)]
            self.connected.wait_until_complete()
            acceptor.join()
            # What was used to open the connections. An idle scheduler gives it back by itself, but later.
            self.crew.give_memory_back()
            rest = read_process()
            rest_stack_bytes = self.crew.stack_bytes()
            seconds, switches = self._exchange()
            peak = self._dive()
            after, after_stack_bytes = self._surface()
            for flow in flows:
                flow.join()
        alive = 2 * self.clients  # a client and its handler on the server's side
        return Figures(
            clients=self.clients,
            flows=alive,
            divers=self.divers,
            requests_per_second=sum(self.requests) / seconds,
            switches_per_second=switches / seconds,
            rest_bytes=_grown_bytes(before, rest) / alive,
            rest_stack_bytes=rest_stack_bytes,
            peak_bytes=_grown_bytes(rest, peak) / self.divers + _grown_bytes(before, rest) / alive,
            after_bytes=_grown_bytes(before, after) / alive,
            after_stack_bytes=after_stack_bytes,
            os_threads=rest.os_threads,
            mappings=rest.mappings,
            failures=self.failures,
        )

    def _exchange(self) -> tuple[float, int]:
        started_at, switches = time.monotonic(), self.crew.switches()
        self._ends_at = started_at + self.seconds
        self.connected.open()
        self.exchanged.wait_until_complete()
        return time.monotonic() - started_at, self.crew.switches() - switches

    def _dive(self) -> ProcessReading:
        self.exchanged.open()
        self.at_bottom.wait_until_complete()
        return read_process()

    def _surface(self) -> tuple[ProcessReading, float | None]:
        self.at_bottom.open()
        self.surfaced.wait_until_complete()
        self.crew.give_memory_back()
        after = read_process(), self.crew.stack_bytes()
        self.surfaced.open()
        return after

    def _serve(self, server: socket.socket) -> None:
        for _ in range(self.clients):
            connection, _ = server.accept()
            self.crew.spawn(_echo, connection)

    def _attend(self, number: int, address: tuple[str, int]) -> None:
        stations = [self.connected, self.exchanged, self.surfaced]
        if number < self.divers:
            stations.insert(2, self.at_bottom)
        try:
            source = f"127.0.0.{2 + number % _SOURCE_ADDRESSES}"
            with socket.create_connection(address, source_address=(source, 0)) as connection:
                stations.pop(0).stop()
                while time.monotonic() < self._ends_at:
                    connection.sendall(MESSAGE)
                    _receive_exactly(connection, len(MESSAGE))
                    self.requests[number] += 1
                stations.pop(0).stop()
                if number < self.divers:
                    descend(Dive(self.levels, stations.pop(0).stop))
                stations.pop(0).stop()
        except (OSError, RecursionError) as error:
            self.failures.append(f"client {number}: {type(error).__name__}: {error}")
            for station in stations:
                station.check_in()


class Dive:
    """How much deeper to recurse, and what to do at the bottom."""

    def __init__(self, levels: int, at_bottom: Callable[[], object]) -> None:
        self.levels_left = levels
        self.at_bottom = at_bottom


def descend(dive: Dive) -> int:
    """Recurse through C and Python by turns: sort a list whose key sorts a list, and so on; then call `at_bottom`.

    Each level takes about 5 KB of C stack, most of it in list.sort, and hardly anything on the heap.
    """
    if dive.levels_left == 0:
        dive.at_bottom()
    else:
        dive.levels_left -= 1
        sorted((dive,), key=descend)
    return 0


def _echo(connection: socket.socket) -> None:
    with connection:
        while received := connection.recv(4096):
            connection.sendall(received)


def _receive_exactly(connection: socket.socket, count: int) -> None:
    while count:
        received = connection.recv(count)
        if not received:
            raise ConnectionError("the server closed the connection")
        count -= len(received)


def _grown_bytes(earlier: ProcessReading, later: ProcessReading) -> int:
    return max(0, later.resident_bytes - earlier.resident_bytes)
