"""An unmodified C driver: psycopg2 against a real PostgreSQL, hundreds of fibers on one OS thread."""

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import culm

psycopg2 = pytest.importorskip("psycopg2")


def find_server_program(name: str) -> str | None:
    candidates = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    return str(candidates[0]) if candidates else shutil.which(name)


class Server:
    """A PostgreSQL of its own in a temporary folder, on a Unix socket."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
        if self.as_user:
            shutil.chown(folder, "postgres", "postgres")
        self._call(find_server_program("initdb"), "-A", "trust", "-U", "postgres", "-N", "-D", f"{folder}/data")
        options = "-c listen_addresses='' -c max_connections=300 -c fsync=off"
        self._call(
            find_server_program("pg_ctl"),
            "-D",
            f"{folder}/data",
            "-w",
            "-l",
            f"{folder}/log",
            "-o",
            f"{options} -k {folder}",
            "start",
        )

    def _call(self, *command: str | None) -> None:
        subprocess.run([*self.as_user, *command], check=True, capture_output=True, cwd="/")  # type: ignore[list-item]

    def connect(self):
        return psycopg2.connect(host=self.folder, user="postgres", dbname="postgres")

    def pid(self) -> int:
        return int(Path(self.folder, "data", "postmaster.pid").read_text().split()[0])

    def stop(self) -> None:
        subprocess.run(
            [*self.as_user, find_server_program("pg_ctl"), "-D", f"{self.folder}/data", "-m", "immediate", "stop"],
            capture_output=True,
            cwd="/",
        )


@pytest.fixture
def server() -> Iterator[Server]:
    if find_server_program("initdb") is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt install postgresql)")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        server = Server(folder)
        yield server
        server.stop()


def test_two_hundred_fibers_query_at_once_on_one_thread(server):
    connections = [fiber.result() for fiber in [culm.spawn(server.connect) for _ in range(200)]]

    at_once = most = 0

    def query(connection):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        with connection.cursor() as cursor:
            for _ in range(3):
                cursor.execute("select pg_sleep(0.1)")
        at_once -= 1
        return threading.active_count()

    before = culm.statistics().interposed_parks
    fibers = [culm.spawn(query, connection) for connection in connections]
    assert [fiber.result() for fiber in fibers] == [1] * 200
    assert culm.statistics().interposed_parks - before >= 600
    assert most == 200
    for connection in connections:
        connection.close()


def test_a_killed_server_gives_each_fiber_the_drivers_error(server):
    connections = [server.connect() for _ in range(20)]

    def query(connection):
        with connection.cursor() as cursor:
            cursor.execute("select pg_sleep(60)")

    fibers = [culm.spawn(query, connection) for connection in connections]
    while any(fiber.state != "parked" for fiber in fibers):
        culm.yield_now()
    os.kill(server.pid(), signal.SIGQUIT)
    errors = [fiber.exception() for fiber in fibers]
    assert all(isinstance(error, psycopg2.OperationalError) for error in errors), errors
    for connection in connections:
        connection.close()


def test_cancel_of_a_query_leaves_the_others_alone(server):
    connections = [server.connect() for _ in range(2)]

    def query(connection, seconds):
        with connection.cursor() as cursor:
            cursor.execute(f"select pg_sleep({seconds})")
        return "done"

    doomed = culm.spawn(query, connections[0], 60)
    other = culm.spawn(query, connections[1], 0.05)
    culm.yield_now()
    doomed.cancel()
    assert doomed.exception() is not None
    assert other.result() == "done"
    for connection in connections:
        connection.close()
