"""The command as a person runs it: a subprocess with an environment, its output and its exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.stack.processes import setpriv

LIMIT = 120.0  # seconds after which a command hangs
PROGRAM = [*setpriv(None), sys.executable, "-m", "phedex_rucio.main"]  # it ends with us, whatever ends us


def run(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The command has ended."""
    return subprocess.run(
        [*PROGRAM, *arguments], env=os.environ | (env or {}), capture_output=True, text=True, timeout=LIMIT, check=False
    )


@contextmanager
def started(*arguments: str, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """The command runs, its output in pipes; it is killed at the end if it still does."""
    with subprocess.Popen(
        [*PROGRAM, *arguments],
        env=os.environ | (env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def until(process: subprocess.Popen[str], text: str) -> str:
    """What the process wrote to stderr up to a line with this text; fails where it ends before."""
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"ended with {process.wait()} before it said {text!r}: {seen}")


def ended(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    """The exit code after this signal, and what was still written to stderr."""
    process.send_signal(number)
    _, errors = process.communicate(timeout=LIMIT)
    return process.returncode, errors


@contextmanager
def worker(env: Mapping[str, str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A worker that is ready; at the end it is told to stop, and did so in order."""
    with started("worker", *arguments, env=env) as process:
        until(process, 'event="worker ready"')
        yield process
        code, errors = ended(process, signal.SIGTERM)
        assert code == 0, errors
