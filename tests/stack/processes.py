"""How is a server process started, awaited and ended, so that none outlives us?"""

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

SCRATCH_PREFIX = "phedex-rucio-stack-"
_RANDOM = random.SystemRandom()  # Hypothesis seeds the other one alike in every test run
# Tests later point TMPDIR elsewhere, for their children too: these find the first one here, for a socket's path has at
# most 107 characters and folders within folders would be longer.
SCRATCH_BASE = Path(os.environ.setdefault("STACK_SCRATCH_BASE", tempfile.gettempdir()))


class StackError(RuntimeError):
    """A server of the test stack could not be installed, started or used; the message says which and why."""


class ServerMissing(StackError):
    """This machine lacks a program that the stack needs; the message says which package brings it."""


class NotHere(ServerMissing):
    """Something beyond the usual that not every machine can have, so it is no failure even in CI."""


Process = subprocess.Popen[bytes]


def spawn(
    command: Sequence[str | Path], log: Path, env: Mapping[str, str], cwd: Path, user: str | None = None
) -> Process:
    """The command runs in a session of its own (Ctrl-C does not reach it), its output appended to `log`.

    The kernel kills it when the thread that started it ends, even if we are killed: start servers from a thread that
    lives as long as they do. `user` is the account to run as; it needs root.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            [*setpriv(user), *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
        )


def run(
    command: Sequence[str | Path], env: Mapping[str, str], cwd: Path, user: str | None = None, given: str = ""
) -> str:
    """The command's output; `given` is its input. StackError with that output if it fails."""
    done = subprocess.run(
        [*setpriv(user), *map(str, command)],
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(env),
        cwd=cwd,
        check=False,
        text=True,
    )
    if done.returncode:
        raise StackError(f"{' '.join(map(str, command))} ended with {done.returncode}: {done.stdout[-4000:]}")
    return done.stdout


def setpriv(user: str | None) -> list[str]:
    """The prefix of a command that dies with its parent, and runs as `user` if one is given."""
    identity = [f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--clear-groups"] if user else []
    return ["setpriv", "--pdeathsig=KILL", *identity, "--"]


def stop(process: Process | None, sig: signal.Signals = signal.SIGTERM, timeout: float = 20) -> None:
    """The process has ended: by `sig`, or killed when it has not followed it after `timeout` seconds."""
    if process is None or process.poll() is not None:
        return
    process.send_signal(signal.SIGCONT)
    process.send_signal(sig)
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_until(
    ready: Callable[[], bool], what: str, timeout: float, process: Process | None = None, log: Path | None = None
) -> None:
    """`ready()` has been true. StackError at the timeout, or at once when the process has ended, with the log's end."""
    deadline = time.monotonic() + timeout
    while not ready():
        if process is not None and process.poll() is not None:
            raise StackError(f"{what}: the process ended with {process.returncode}. {tail(log)}")
        if time.monotonic() > deadline:
            raise StackError(f"{what}: not within {timeout:g} s. {tail(log)}")
        time.sleep(0.02)


def tail(log: Path | None, size: int = 3000) -> str:
    """The end of a log file for an error message."""
    if log is None or not log.exists():
        return ""
    return f"End of {log}:\n{log.read_text(errors='replace')[-size:]}"


def free_ports(count: int) -> int:
    """The first of `count` neighbouring ports of 127.0.0.1 that were free just now, below Linux's ephemeral range.

    Somebody else may take one in the meantime: who uses it tries again with others.
    """
    while True:
        first = _RANDOM.randrange(15000, 32000 - count)
        if all(_is_free(port) for port in range(first, first + count)):
            return first


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def scratch(name: str) -> Path:
    """A new folder for one server's data and logs. What killed runs left behind is removed on the way."""
    for left in SCRATCH_BASE.glob(f"{SCRATCH_PREFIX}*"):
        if not Path("/proc", left.name.removeprefix(SCRATCH_PREFIX).split("-")[0]).exists():
            remove(left)
    folder = Path(tempfile.mkdtemp(prefix=f"{SCRATCH_PREFIX}{os.getpid()}-{name}-", dir=SCRATCH_BASE))
    folder.chmod(0o755)  # PostgreSQL runs as another user and must get to its folder inside
    return folder


def private_tmp() -> Path:
    """A new folder is TMPDIR for us and our children: Rucio's client keeps its tokens there, whatever the server."""
    folder = scratch("tmp")
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    return folder


def remove(folder: Path) -> None:
    """The folder is gone, or what other users own in it is left."""
    shutil.rmtree(folder, ignore_errors=True)


def clean_environment() -> dict[str, str]:
    """Our environment without what would send a server or client elsewhere."""
    unwanted = ("RUCIO_", "RABBITMQ_", "PG", "AMQP_URL", "PHEDEX_", "PYTHON", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
