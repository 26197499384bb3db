"""A thousand threads fetch from a slow local server at once; nothing here has heard of culm.

    python examples/slow_requests.py 1000        a thousand OS threads (two thousand, with the server's)
    culm run examples/slow_requests.py 1000      the same program on fibers, on one OS thread

Prints how long it took and how many OS threads there were. Each request takes the server one second.
"""

import queue
import socket
import sys
import threading
import time
import urllib.request
from pathlib import Path

DELAY_SECONDS = 1.0


def answer(connection: socket.socket) -> None:
    with connection:
        connection.recv(65536)
        time.sleep(DELAY_SECONDS)
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")


def serve(listening: socket.socket) -> None:
    while True:
        connection, _ = listening.accept()
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


def main(count: int) -> None:
    listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
    threading.Thread(target=serve, args=(listening,), daemon=True).start()
    results: queue.Queue[bytes] = queue.Queue()

    def fetch() -> None:
        with urllib.request.urlopen(url) as response:
            results.put(response.read())

    start = time.monotonic()
    threads = [threading.Thread(target=fetch) for _ in range(count)]
    for thread in threads:
        thread.start()
    os_threads = len(list(Path("/proc/self/task").iterdir()))
    for thread in threads:
        thread.join()
    assert all(results.get() == b"ok" for _ in range(count))
    elapsed = time.monotonic() - start
    print(f"{count} requests of {DELAY_SECONDS:.0f} s in {elapsed:.2f} s with {os_threads} OS thread(s)")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
