"""How is the service started: in this process, or as a child of a test?"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from datasvc.app import ROOT, application

STOP_WITHIN = 10.0  # seconds a child may take after SIGTERM before it is killed


def serve(snapshot: Path, host: str = "127.0.0.1", port: int = 0, faults: Path | None = None) -> None:
    """Serves until SIGTERM or SIGINT. Port 0 takes a free one; the service's URL is printed once it can be asked.

    Raises UsageError for a snapshot that cannot be read, OSError for a port that is taken.
    """
    app = application(snapshot, faults)
    listening = socket.create_server((host, port), backlog=512)
    print(f"http://{host}:{listening.getsockname()[1]}{ROOT}", flush=True)  # callers wait for this line
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2, lifespan="off")
    uvicorn.Server(config).run(sockets=[listening])


@contextmanager
def running(snapshot: Path, faults: Path | None = None) -> Iterator[str]:
    """The URL (`http://127.0.0.1:PORT/phedex/datasvc`) of a service in a child process, which ends with the block."""
    with subprocess.Popen(command(snapshot, faults), stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            url = child.stdout.readline().strip()
            if not url:
                raise RuntimeError(f"the data service of {snapshot} ended at once, code {child.wait()}: see its stderr")
            yield url
        finally:
            _stop(child)


def command(snapshot: Path, faults: Path | None = None) -> list[str]:
    """The command line of a child that serves this snapshot on a free loopback port."""
    return [sys.executable, "-m", "datasvc.serve", str(snapshot), *([str(faults)] if faults else [])]


def _stop(child: subprocess.Popen[str]) -> None:
    child.terminate()
    try:
        child.wait(STOP_WITHIN)
    except subprocess.TimeoutExpired:
        child.kill()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), faults=Path(sys.argv[2]) if len(sys.argv) > 2 else None)
