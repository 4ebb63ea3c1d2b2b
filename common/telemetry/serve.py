"""Where are the metrics and the health of this process? /metrics, /healthz and /readyz on one small HTTP port.

Each answer has its own thread and a limit on its time, and only so many are given at once: whoever asks slowly, or not
to the end, holds up nobody. None of the answers asks a system anything.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from common.errors import UsageError
from common.telemetry.metrics import REGISTRY
from common.telemetry.redact import redact

log = logging.getLogger("phedex_rucio.telemetry")

LIMIT = 10.0  # seconds for one question and its answer
AT_ONCE = 20

# A part of the process, or a system, with what is wrong with it; "" where nothing is.
State = Callable[[], Mapping[str, str]]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], live: State, ready: State, registry: CollectorRegistry) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.pages: dict[str, Callable[[], tuple[int, str, bytes]]] = {
            "/metrics": lambda: (200, CONTENT_TYPE_LATEST, generate_latest(registry)),
            "/healthz": lambda: _words(live),
            "/readyz": lambda: _words(ready),
        }
        self._free = threading.BoundedSemaphore(AT_ONCE)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread answers, or nobody does: with so many at once this is no scrape but an accident."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The answer within the limit; then the connection is shut, wherever it is."""
        timer = threading.Timer(LIMIT, _shut, (request,))
        timer.daemon = True
        timer.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            timer.cancel()
            self._free.release()

    def handle_error(self, _request: Any, client_address: Any) -> None:
        """A client that went away is no error of ours."""
        log.debug("an answer was not taken", extra={"client": str(client_address[0])}, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "phedex-rucio"
    sys_version = ""

    def do_GET(self) -> None:
        """Answers one of the three pages."""
        page = self.server.pages.get(self.path.partition("?")[0])
        status, kind, body = page() if page else (404, "text/plain", b"/metrics /healthz /readyz\n")
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing: a probe every few seconds is no news."""


def _words(state: State) -> tuple[int, str, bytes]:
    parts = {name: redact(what) for name, what in state().items()}
    wrong = {name: what for name, what in parts.items() if what}
    said = {"status": "failing" if wrong else "ok", "parts": {name: what or "ok" for name, what in parts.items()}}
    return (503 if wrong else 200), "application/json", json.dumps(said, indent=2).encode() + b"\n"


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):  # closed meanwhile
        connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def serving(host: str, port: int, live: State, ready: State, registry: CollectorRegistry = REGISTRY) -> Iterator[int]:
    """The pages are served on this port (0: on none), which is the value of the block, and no more after it.

    Raises UsageError where the port cannot be had.
    """
    if not port:
        yield 0
        return
    try:
        server = _Server((host, port), live, ready, registry)
    except (OSError, OverflowError) as error:
        raise UsageError(f"main.metrics_port: {host}:{port} cannot be listened on: {error}") from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.5}, name="metrics", daemon=True)
    thread.start()
    log.info("metrics", extra={"url": f"http://{host}:{port}/metrics"})
    try:
        yield port
    finally:
        server.shutdown()
        server.server_close()
