"""A TCP proxy that delays, freezes and cuts what goes through it, unknown to the client and the server."""

import select
import socket
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

CHUNK = 64 * 1024


class Proxy:
    """Listens on a port of its own and passes every connection on to `host:port`; a context manager.

    `delay` is in seconds and may be changed at any time: each request waits that long before the server sees it. A
    request begins when the client sends after the server has answered (or at first), which is true of HTTP without
    pipelining; of AMQP it delays only what follows an answer.
    """

    def __init__(self, port: int, host: str = "127.0.0.1", delay: float = 0.0) -> None:
        self.delay = delay
        self.requests = 0
        self.connections = 0
        self._target = (host, port)
        self._flowing = threading.Event()
        self._flowing.set()
        self._refusing = False
        self._lock = threading.Lock()
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def freeze(self) -> None:
        """Connections stay open, new ones are accepted, and nothing goes through, until `thaw`."""
        self._flowing.clear()

    def thaw(self) -> None:
        """What was held goes through, and what follows."""
        self._flowing.set()

    def cut(self) -> None:
        """Every open connection is reset on both sides; new ones work."""
        with self._lock:
            pairs = list(self._pairs.items())
        for pair in pairs:
            for end in pair:
                _reset(end)

    def refuse(self) -> None:
        """As `cut`, and every new connection is reset at once too, until `allow`."""
        self._refusing = True
        self.cut()

    def allow(self) -> None:
        """New connections go through again."""
        self._refusing = False

    def close(self) -> None:
        """The port is free, no connection and no thread is left."""
        self.refuse()
        self.thaw()
        with suppress(OSError):  # wakes up accept()
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in list(self._threads):
            thread.join(timeout=10)

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._target, timeout=30)
        except OSError:
            _reset(client)
            client.close()
            return
        server.settimeout(None)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with client, server:
            with self._lock:
                self._pairs[client] = server
                self.connections += 1
            if self._refusing:  # only now: `refuse` sees the pair, or we see that it refuses
                self.cut()
            with suppress(OSError):
                self._pass_on(client, server)
            _reset(client)
            _reset(server)
            with self._lock:
                del self._pairs[client]

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        """Bytes go both ways until one side ends."""
        answered = True
        while True:
            readable, _, _ = select.select([client, server], [], [])
            self._flowing.wait()
            for source in readable:
                data = source.recv(CHUNK)
                if not data:
                    return
                if source is client and answered:
                    self.requests += 1
                    time.sleep(self.delay)
                answered = source is server
                (server if source is client else client).sendall(data)


def _reset(end: socket.socket) -> None:
    """Whoever reads or writes this connection, here or at its other end, is told that it has ended."""
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
