"""Ordinary blocking code cooperates: sockets, pipes, polls, sleeps, each beside a fiber that runs meanwhile."""

import array
import errno
import fcntl
import os
import pty
import select
import selectors
import socket
import ssl
import subprocess
import sys
import termios
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

import culm


def meanwhile(blocking, provide):
    """Run `blocking` on a fiber until it parks, then `provide`, then return what it got."""
    fiber = culm.spawn(blocking)
    while fiber.state == "ready":
        culm.yield_now()
    assert fiber.state == "parked", f"did not park: {fiber}"
    provide()
    return fiber.result(timeout=20)


@pytest.fixture
def server():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def test_recv(pair):
    left, right = pair
    assert meanwhile(lambda: left.recv(10), lambda: right.sendall(b"x")) == b"x"


def test_recv_into_and_recvfrom_and_recvmsg(pair):
    left, right = pair
    buffer = bytearray(4)
    assert meanwhile(lambda: left.recv_into(buffer), lambda: right.sendall(b"abcd")) == 4
    assert meanwhile(lambda: left.recvfrom(10)[0], lambda: right.sendall(b"y")) == b"y"
    assert meanwhile(lambda: left.recvmsg(10)[0], lambda: right.sendmsg([b"z", b"w"])) == b"zw"


def test_recv_waitall(pair):
    left, right = pair

    def provide():
        right.sendall(b"ab")
        culm.yield_now()
        right.sendall(b"cd")

    assert meanwhile(lambda: left.recv(4, socket.MSG_WAITALL), provide) == b"abcd"


def test_sendall_of_more_than_the_buffers_hold(pair):
    left, right = pair
    payload = os.urandom(3_000_000)
    sender = culm.spawn(left.sendall, payload)
    received = bytearray()
    while len(received) < len(payload):
        received += right.recv(65536)
    assert received == payload
    assert sender.result() is None


def test_send_on_a_blocking_socket_sends_all(pair):
    left, right = pair
    payload = bytes(2_000_000)
    sender = culm.spawn(left.send, payload)
    got = 0
    while got < len(payload):
        got += len(right.recv(1 << 20))
    assert sender.result() == len(payload)


def test_descriptors_travel(pair):
    left, right = pair
    read_end, write_end = os.pipe()
    fds = array.array("i", [write_end])

    def receive():
        _message, ancillary, *_ = left.recvmsg(1, socket.CMSG_SPACE(4))
        return array.array("i", ancillary[0][2][:4])[0]

    passed = meanwhile(receive, lambda: right.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)]))
    os.write(passed, b"through")
    assert os.read(read_end, 100) == b"through"
    for fd in (read_end, write_end, passed):
        os.close(fd)


def test_accept_and_connect(server):
    def connect():
        with socket.create_connection(server.getsockname()) as client:
            return client.recv(5)

    client = culm.spawn(connect)
    conn, _ = server.accept()
    conn.sendall(b"hello")
    conn.close()
    assert client.result() == b"hello"


def test_accept_parks_and_keeps_the_listener_blocking(server):
    client = socket.socket()
    conn, _ = meanwhile(server.accept, lambda: client.connect(server.getsockname()))
    assert server.getblocking()
    assert os.get_blocking(server.fileno())
    conn.close()
    client.close()


def test_connection_refused(server):
    address = server.getsockname()
    server.close()
    with pytest.raises(ConnectionRefusedError):
        culm.spawn(socket.create_connection, address).result()


def test_non_blocking_socket_raises_blocking_io_error(pair):
    left, _ = pair
    left.setblocking(False)
    with pytest.raises(BlockingIOError):
        culm.spawn(left.recv, 1).result()


def test_socket_timeout(pair):
    left, _ = pair
    left.settimeout(0.01)
    with pytest.raises(TimeoutError):
        culm.spawn(left.recv, 1).result()


def test_so_rcvtimeo(pair):
    left, _ = pair
    left.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, (0).to_bytes(8, "little") + (10_000).to_bytes(8, "little"))
    with pytest.raises(BlockingIOError):
        culm.spawn(left.recv, 1).result()


def test_end_of_stream(pair):
    left, right = pair
    assert meanwhile(lambda: left.recv(1), right.close) == b""


def test_broken_pipe(pair):
    left, right = pair
    right.close()
    with pytest.raises(BrokenPipeError):
        culm.spawn(left.sendall, b"x").result()


def test_close_by_another_fiber(pair):
    left, _ = pair
    fiber = culm.spawn(left.recv, 1)
    culm.yield_now()
    os.close(left.detach())
    with pytest.raises(OSError) as caught:
        fiber.result()
    assert caught.value.errno == errno.EBADF


def test_close_by_another_fiber_after_the_data_has_come(pair):
    """When the waiter runs at last, its descriptor's number names another file, from which it must not read."""
    left, right = pair
    read_end, write_end = os.pipe()
    other_read, other_write = os.pipe()
    os.write(other_write, b"kept")

    def closes():
        left.recv(1)
        os.close(read_end)
        os.dup2(other_read, read_end)

    fibers = [culm.spawn(closes), culm.spawn(os.read, read_end, 1)]
    culm.yield_now()
    right.send(b"x")
    os.write(write_end, b"x")
    fibers[0].result()
    with pytest.raises(OSError, match="Bad file descriptor"):
        fibers[1].result()
    assert os.read(read_end, 10) == b"kept"
    for fd in (read_end, write_end, other_read, other_write):
        os.close(fd)


def test_cancel_reaches_into_recv(pair):
    left, right = pair
    fiber = culm.spawn(left.recv, 1)
    culm.yield_now()
    fiber.cancel()
    assert isinstance(fiber.exception(), culm.Cancelled)
    right.sendall(b"kept")
    assert left.recv(10) == b"kept"


def test_cancel_reaches_into_time_sleep_past_except_exception():
    def work():
        try:
            time.sleep(3600)
        except Exception:
            pass
        for _ in range(1000):
            pass
        return "missed it"

    fiber = culm.spawn(work)
    culm.yield_now()
    fiber.cancel()
    assert isinstance(fiber.exception(), culm.Cancelled)


def test_udp():
    left, right = (socket.socket(type=socket.SOCK_DGRAM) for _ in range(2))
    with left, right:
        left.bind(("127.0.0.1", 0))
        assert meanwhile(lambda: left.recvfrom(10)[0], lambda: right.sendto(b"d", left.getsockname())) == b"d"


def test_unix_stream_server(tmp_path):
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as client:
        listening.bind(str(tmp_path / "socket"))
        listening.listen()
        conn, _ = meanwhile(listening.accept, lambda: client.connect(str(tmp_path / "socket")))
        with conn:
            assert meanwhile(lambda: conn.recv(10), lambda: client.sendall(b"x")) == b"x"


def test_pipe_read_and_write():
    read_end, write_end = os.pipe()
    assert meanwhile(lambda: os.read(read_end, 10), lambda: os.write(write_end, b"x")) == b"x"
    payload = os.urandom(500_000)
    writer = culm.spawn(os.write, write_end, payload)
    received = b""
    while len(received) < len(payload):
        received += os.read(read_end, 65536)
    assert received == payload
    assert writer.result() == len(payload)
    os.close(read_end)
    os.close(write_end)


def test_buffered_pipe_file():
    read_end, write_end = os.pipe()
    with open(read_end) as lines, open(write_end, "w") as out:

        def provide():
            out.write("one\ntwo\n")
            out.flush()

        assert meanwhile(lines.readline, provide) == "one\n"
        assert lines.readline() == "two\n"


def test_tty():
    leader, follower = pty.openpty()
    assert meanwhile(lambda: os.read(follower, 100), lambda: os.write(leader, b"line\n")) == b"line\n"
    os.close(leader)
    os.close(follower)


@pytest.mark.skipif(not hasattr(os, "eventfd"), reason="needs os.eventfd")
def test_eventfd():
    fd = os.eventfd(0)
    assert meanwhile(lambda: os.eventfd_read(fd), lambda: os.eventfd_write(fd, 3)) == 3
    os.close(fd)


def test_regular_file_goes_straight_through(tmp_path):
    path = tmp_path / "file"

    def work():
        path.write_bytes(b"x" * 100_000)
        return len(path.read_bytes())

    switches = culm.statistics().interposed_parks
    assert culm.spawn(work).result() == 100_000
    assert culm.statistics().interposed_parks == switches


def test_time_sleep():
    long = culm.spawn(time.sleep, 3600)
    culm.yield_now()
    began = time.monotonic()
    culm.spawn(time.sleep, 0.01).result()
    assert time.monotonic() - began >= 0.01
    assert long.waiting_for == "sleep"
    long.cancel()
    long.join()


def test_select_poll_epoll_selectors(pair):
    left, right = pair

    def by_poll():
        poll = select.poll()
        poll.register(left, select.POLLIN)
        return poll.poll() == [(left.fileno(), select.POLLIN)]

    def by_epoll():
        with select.epoll() as epoll:
            epoll.register(left, select.EPOLLIN)
            return epoll.poll() == [(left.fileno(), select.EPOLLIN)]

    def by_selectors():
        with selectors.DefaultSelector() as selector:
            selector.register(left, selectors.EVENT_READ)
            return len(selector.select()) == 1

    for waits in (lambda: select.select([left], [], []) == ([left], [], []), by_poll, by_epoll, by_selectors):
        assert meanwhile(waits, lambda: right.sendall(b"x"))
        assert left.recv(1) == b"x"


def test_polls_time_out(pair):
    left, _ = pair
    assert culm.spawn(select.select, [left], [], [], 0.005).result() == ([], [], [])
    poll = select.poll()
    poll.register(left, select.POLLIN)
    assert culm.spawn(poll.poll, 5).result() == []
    with select.epoll() as epoll:
        epoll.register(left, select.EPOLLIN)
        assert culm.spawn(epoll.poll, 0.005).result() == []


def test_subprocess_communicate():
    def work():
        return subprocess.run([sys.executable, "-c", "print(input()[::-1])"], input=b"abc", capture_output=True).stdout

    assert culm.spawn(work).result() == b"cba\n"


def test_many_fibers_share_one_descriptor(pair):
    left, right = pair
    fibers = [culm.spawn(left.recv, 1) for _ in range(10)]
    culm.yield_now()
    right.sendall(b"0123456789")
    assert sorted(fiber.result() for fiber in fibers) == sorted(bytes([c]) for c in b"0123456789")


def test_a_thread_without_fibers_blocks_for_real(pair):
    left, right = pair
    go, got = [], []

    def on_thread():
        while not go:  # start() has returned by then: it parks the main fiber, which is not to be counted
            pass
        got.append(left.recv(5, socket.MSG_WAITALL))

    thread = threading.Thread(target=on_thread)
    thread.start()
    parks = culm.statistics().interposed_parks  # of all threads
    go.append(True)
    right.sendall(b"pl")
    while fcntl.ioctl(left, termios.FIONREAD, bytes(4)) != bytes(4):
        culm.yield_now()  # until the thread has taken the beginning, and so waits for the rest
    right.sendall(b"ain")
    while not got:
        culm.yield_now()
    assert (got, culm.statistics().interposed_parks) == ([b"plain"], parks)
    thread.join()


class AnswersAllTogether(BaseHTTPRequestHandler):
    everybody = threading.Barrier(50, timeout=60)

    def do_GET(self):
        self.everybody.wait()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.path.encode())

    def log_message(self, *args):
        pass


def test_http_server_and_clients_in_one_thread():
    class Server(HTTPServer):
        request_queue_size = 128

        def process_request(self, request, client_address):
            culm.spawn(self.handle_one, request, client_address)

        def handle_one(self, request, client_address):
            self.finish_request(request, client_address)
            self.shutdown_request(request)

    server = Server(("127.0.0.1", 0), AnswersAllTogether)
    serving = culm.spawn(server.serve_forever)

    def get(i):
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/{i}") as response:
            return response.read()

    fibers = [culm.spawn(get, i) for i in range(50)]
    assert [fiber.result() for fiber in fibers] == [f"/{i}".encode() for i in range(50)]
    culm.spawn(server.shutdown).join()
    serving.join()
    server.server_close()


def test_ssl_handshake_and_echo_between_fibers(tmp_path):
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=localhost",
            "-days",
            "2",
            "-keyout",
            tmp_path / "key",
            "-out",
            tmp_path / "cert",
        ],
        check=True,
        capture_output=True,
    )
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    client_context = ssl.create_default_context(cafile=tmp_path / "cert")
    client_context.check_hostname = False
    listening = socket.create_server(("127.0.0.1", 0))

    def serve():
        conn, _ = listening.accept()
        with server_context.wrap_socket(conn, server_side=True) as tls:
            while data := tls.recv(1000):
                tls.sendall(data)

    def client():
        with client_context.wrap_socket(socket.create_connection(listening.getsockname())) as tls:
            tls.sendall(b"x" * 100)
            received = b""
            while len(received) < 100:
                received += tls.recv(1000)
            return received

    serving = culm.spawn(serve)
    assert culm.spawn(client).result() == b"x" * 100
    serving.join()
    listening.close()
