"""How is the service started: in this process, or as a child of a test?"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from datasvc.app import ROOT, application

STOP_WITHIN = 10.0  # seconds a child may take after SIGTERM before it is killed


def serve(
    snapshot: Path, host: str = "127.0.0.1", port: int = 0, faults: Path | None = None, metrics_port: int = 0
) -> None:
    """Serves until SIGTERM or SIGINT. Port 0 takes a free one; the service's URL is printed once it can be asked.

    Metrics and health are on the same host at `metrics_port`, if that is not 0.
    Raises UsageError for a snapshot that cannot be read or a metrics port that is taken, OSError for a port that is.
    """
    app = application(snapshot, faults)
    listening = socket.create_server((host, port), backlog=512)
    # Connections inherit it. asyncio sets it only on sockets that name their protocol, and these do not: without it the
    # second packet of each reply waits for the delayed acknowledgement of the first, 40 ms (seen).
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    print(f"http://{host}:{listening.getsockname()[1]}{ROOT}", flush=True)  # callers wait for this line
    if not metrics_port:
        _server(app).run(sockets=[listening])
        return
    from datasvc import watched  # noqa: PLC0415 -- a third of the start, which tests need not wait for

    asyncio.run(watched.serve(_server(watched.measured(app)), listening, snapshot, (host, metrics_port)))


def _server(app: ASGIApp) -> uvicorn.Server:
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2, lifespan="off")
    return uvicorn.Server(config)


@contextmanager
def running(snapshot: Path, faults: Path | None = None) -> Iterator[str]:
    """The URL (`http://127.0.0.1:PORT/phedex/datasvc`) of a service in a child process, which ends with the block.

    Or with this process, however that ends: nobody then holds the other end of the child's stdin.
    """
    with subprocess.Popen(command(snapshot, faults), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            url = child.stdout.readline().strip()
            if not url:
                raise RuntimeError(f"the data service of {snapshot} ended at once, code {child.wait()}: see its stderr")
            yield url
        finally:
            _stop(child)


def command(snapshot: Path, faults: Path | None = None) -> list[str]:
    """The command line of a child that serves this snapshot on a free loopback port until its stdin ends."""
    return [sys.executable, "-m", "datasvc.serve", str(snapshot), *([str(faults)] if faults else [])]


def _stop(child: subprocess.Popen[str]) -> None:
    child.terminate()
    try:
        child.wait(STOP_WITHIN)
    except subprocess.TimeoutExpired:
        child.kill()


def _end_with_stdin() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    serve(Path(sys.argv[1]), faults=Path(sys.argv[2]) if len(sys.argv) > 2 else None)
