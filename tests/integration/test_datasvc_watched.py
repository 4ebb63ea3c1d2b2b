"""The data service's metrics and health, asked over HTTP of the real command."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import subprocess
import threading
from pathlib import Path

import requests

from datasvc import watched
from datasvc.build import Snapshot
from tests.integration.test_datasvc import PROGRAM, WAIT
from tests.unit.datasvc.worlds import fill

CHANGED = re.compile(r"^phedex_datasvc_snapshot_timestamp_seconds (\S+)$", re.MULTILINE)
DOCUMENT = (Path(__file__).parents[2] / "docs/metrics.md").read_text()


def test_requests_are_counted_and_the_snapshot_is_told_of(tmp_path: Path) -> None:
    world = tmp_path / "world.db"
    with Snapshot(world, now=1_500_000_000.5) as snapshot:
        fill(snapshot)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [*PROGRAM, "serve", str(world), "--port", "0", "--metrics-port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            url, pages = child.stdout.readline().strip(), f"http://127.0.0.1:{port}"
            assert requests.get(f"{url}/json/prod/nodes", timeout=WAIT).status_code == 200
            assert requests.get(f"{url}/json/prod/invented", timeout=WAIT).status_code == 404
            assert requests.get(f"{pages}/healthz", timeout=WAIT).json()["parts"] == {"loop": "ok"}
            assert requests.get(f"{pages}/readyz", timeout=WAIT).json()["parts"] == {"snapshot": "ok"}
            told = requests.get(f"{pages}/metrics", timeout=WAIT).text
            assert 'phedex_datasvc_requests_total{call="nodes",status="200"} 1.0' in told
            assert 'phedex_datasvc_requests_total{call="unknown",status="404"} 1.0' in told
            assert [float(time) for time in CHANGED.findall(told)] == [watched.changed(world)]
            assert "phedex_rucio_" not in told
            world.unlink()
            assert requests.get(f"{pages}/readyz", timeout=WAIT).status_code == 503
            assert requests.get(f"{pages}/healthz", timeout=WAIT).status_code == 200
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait(WAIT)


def test_a_loop_that_stands_still_is_found() -> None:
    loop = asyncio.new_event_loop()
    try:
        patience, watched.TURN_WITHIN = watched.TURN_WITHIN, 0.01
        assert watched.alive(loop)["loop"]  # it was never started
        watched.TURN_WITHIN = patience
        threading.Timer(0, loop.run_forever).start()
        assert watched.alive(loop) == {"loop": ""}
    finally:
        watched.TURN_WITHIN = patience
        loop.call_soon_threadsafe(loop.stop)
        while loop.is_running():
            threading.Event().wait(0.01)
        loop.close()


def test_the_document_names_the_metrics() -> None:
    families = {family.name + ("_total" if family.type == "counter" else "") for family in watched.REGISTRY.collect()}
    ours = {name for name in families if name.startswith(watched.PREFIX)}
    assert ours == set(re.findall(r"^\| `(phedex_datasvc_\w+)`", DOCUMENT, re.MULTILINE))
