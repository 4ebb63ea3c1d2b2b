"""A log that cannot be written costs its lines, not the work."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.broker.roots import send
from common.broker.topology import declare
from tests.acceptance.command import LIMIT
from tests.integration.messaging import all_events, blocks, closed, publishing, settings
from tests.stack.processes import free_ports

COMMANDS = 200
SMALL = 64 * 1024  # bytes: less than the lines of so many commands at DEBUG


@pytest.fixture
def full_device(tmp_path: Path) -> Iterator[Path]:
    """A folder on a device of its own that is full after SMALL bytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here (that needs root and the right to mount): {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def worker(url: str, errors: int, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A worker whose stderr is this descriptor."""
    command = [sys.executable, "-m", "tests.acceptance.idle_worker", url, str(port)]
    with subprocess.Popen(command, stderr=errors, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def handled(url: str, errors: int) -> tuple[int, float]:
    """The exit code of a worker that has handled COMMANDS commands, and how many log lines it says it lost."""
    main, port = settings(url), free_ports(1)
    declare(main)
    with publishing(main) as publisher, worker(url, errors, port) as process:
        send(publisher, [blocks(number) for number in range(COMMANDS)])
        all_events(main, lambda found: len(closed(found)) >= COMMANDS, LIMIT)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
            text = page.read().decode()
        process.send_signal(signal.SIGTERM)
        code = process.wait(LIMIT)
    lost = re.search(r"^phedex_rucio_log_lines_lost_total (\S+)$", text, re.MULTILINE)
    assert lost is not None
    return code, float(lost[1])


def test_a_full_device(amqp_url: str, full_device: Path) -> None:
    log = full_device / "log"
    with log.open("wb") as errors:
        code, lost = handled(amqp_url, errors.fileno())
    assert (code, lost > 0) == (0, True)
    assert log.stat().st_size <= SMALL
    assert b"event=handled" in log.read_bytes()


def test_a_pipe_that_nobody_reads_any_more(amqp_url: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        code, lost = handled(amqp_url, writing)
    finally:
        os.close(writing)
    assert (code, lost >= COMMANDS) == (0, True)
