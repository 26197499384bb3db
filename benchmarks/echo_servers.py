"""The servers of the echo workloads, one for each library. Each prints its port and serves until it is killed.

workloads.py starts one by name; measuring.py puts load on it and measures its CPU time.
Invariant: all of them answer with what they received, on as many connections as come, without delaying small messages.
"""

import contextlib
import socket
import threading


def answer(conn: socket.socket) -> None:
    """Serve one connection with blocking calls: as it is for culm and threads, and on gevent's sockets."""
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with conn, contextlib.suppress(ConnectionResetError):  # how the load ends
        while data := conn.recv(4096):
            conn.sendall(data)


def serve_culm() -> None:
    import culm

    def main() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=1024) as server:
            print(server.getsockname()[1], flush=True)
            while True:
                culm.spawn(answer, server.accept()[0])

    culm.run(main)


def serve_gevent() -> None:
    from gevent.server import StreamServer

    server = StreamServer(("127.0.0.1", 0), lambda conn, address: answer(conn), backlog=1024)
    server.start()
    print(server.server_port, flush=True)
    server.serve_forever()


def serve_uvloop() -> None:
    import asyncio

    import uvloop

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.write = transport.write  # type: ignore[attr-defined]

        def data_received(self, data: bytes) -> None:
            self.write(data)

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0, backlog=1024)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    uvloop.run(main())


def serve_threads() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()
