"""How is the service watched? Its own few metrics, and whether its loop turns and its snapshot can be read."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import threading
import time
from pathlib import Path

import uvicorn
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.errors import PhedexRucioError
from common.telemetry.serve import serving
from datasvc import store
from datasvc.calls.table import CALLS

TURN_WITHIN = 5.0  # seconds until a loop that was called counts as standing still
NO_ANSWER = "none"
UNKNOWN = "unknown"
PREFIX = "phedex_datasvc"

# Not the registry of workers and schedulers: their numbers would be here too, at zero, and spoil every average.
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
REQUESTS = Counter("requests", "Requests by call and status.", ["call", "status"], PREFIX, registry=REGISTRY)
SECONDS = Histogram("request_duration_seconds", "To the end of a reply.", ["call"], PREFIX, registry=REGISTRY)
CHANGED = Gauge("snapshot_timestamp_seconds", "When the snapshot was last changed.", (), PREFIX, registry=REGISTRY)


async def serve(server: uvicorn.Server, listening: socket.socket, snapshot: Path, address: tuple[str, int]) -> None:
    """Serves until it is told to stop, with the pages at this address. Raises UsageError for a port that is taken."""
    loop = asyncio.get_running_loop()
    CHANGED.set_function(lambda: changed(snapshot))
    with serving(*address, lambda: alive(loop), lambda: ready(snapshot), REGISTRY):
        await server.serve(sockets=[listening])


def measured(app: ASGIApp) -> ASGIApp:
    """The application; each request is counted by a call that there is, or as `unknown`.

    With its status once the reply is whole, just before the client has the last of it; with `none` if it never is.
    """

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        call, started, status, whole = _call(scope["path"]), time.monotonic(), NO_ANSWER, False

        async def told(message: Message) -> None:
            nonlocal status, whole
            if message["type"] == "http.response.start":
                status = str(message["status"])
            elif not message.get("more_body"):
                whole = True
                _count(call, status, started)
            await send(message)

        try:
            await app(scope, receive, told)
        finally:
            if not whole:
                _count(call, NO_ANSWER, started)

    return counted


def _count(call: str, status: str, started: float) -> None:
    REQUESTS.labels(call, status).inc()
    SECONDS.labels(call).observe(time.monotonic() - started)


def _call(path: str) -> str:
    """`/phedex/datasvc/FORMAT/INSTANCE/CALL`; nobody can make a label of his own."""
    call = "".join(path.lower().split("/")[5:6])
    return call if call in CALLS else UNKNOWN


def changed(snapshot: Path) -> float:
    """When this snapshot was last written to, in seconds since 1970: the file, or what is not yet merged into it."""
    files = (snapshot, snapshot.with_name(snapshot.name + "-wal"))
    return max((file.stat().st_mtime for file in files if file.exists()), default=0.0)


def alive(loop: asyncio.AbstractEventLoop) -> dict[str, str]:
    """What is wrong with the loop that answers requests, asked from another thread."""
    turned = threading.Event()
    loop.call_soon_threadsafe(turned.set)
    return {"loop": "" if turned.wait(TURN_WITHIN) else f"has not turned for {TURN_WITHIN:.0f} s"}


def ready(snapshot: Path) -> dict[str, str]:
    """What is wrong with the snapshot."""
    try:
        store.reader(snapshot).close()
    except (PhedexRucioError, sqlite3.Error) as error:
        return {"snapshot": str(error)}
    return {"snapshot": ""}
