"""Where is the Rucio server's software, and what does an empty Rucio look like? Both are made once and kept."""

import fcntl
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import processes, rucio_config
from .postgres import Postgres, programs
from .processes import StackError

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
POLICY = rucio_config.POLICY
REQUIREMENTS = HERE / "rucio-requirements.txt"
WHAT = ["--no-deps", "--requirement", REQUIREMENTS]
BOOTSTRAP = HERE / "rucio_bootstrap.py"
TEMPLATE_DATABASE = "rucio_template"


def cache() -> Path:
    """The folder for what is slow to make; `PHEDEX_RUCIO_CACHE` or `.cache` of the repository."""
    folder = Path(os.environ.get("PHEDEX_RUCIO_CACHE") or REPOSITORY / ".cache")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def server_environment() -> Path:
    """The virtual environment with the pinned Rucio server; made at the first call and after a change of the pins.

    Apart from the client's, because the server caps `requests` and `urllib3` below what the client may use.
    """
    folder = cache() / f"rucio-server-{_digest(REQUIREMENTS.read_bytes(), sys.version.encode())}"
    with locked(folder):
        if not (folder / "complete").exists():
            _install(folder)
    return folder


def _install(folder: Path) -> None:
    try:
        _install_by_uv(folder)
    except StackError:  # it is not there, or does not reach an index that pip's own settings lead to
        _install_by_pip(folder)
    (folder / "complete").touch()


def _install_by_uv(folder: Path) -> None:
    """A tenth of pip's time."""
    uv: list[str | Path] = [sys.executable, "-m", "uv", "--quiet"]
    environment = processes.clean_environment() | {"UV_HTTP_TIMEOUT": "20"}
    processes.run([*uv, "venv", "--clear", "--python", sys.executable, folder], environment, cache())
    processes.run([*uv, "pip", "install", "--python", folder / "bin/python", *WHAT], environment, cache())


def _install_by_pip(folder: Path) -> None:
    processes.remove(folder)
    environment = processes.clean_environment()
    processes.run([sys.executable, "-m", "venv", folder], environment, cache())
    processes.run([folder / "bin/python", "-m", "pip", "install", "--quiet", *WHAT], environment, cache())


def empty_cluster() -> Path:
    """An archive of a PostgreSQL cluster whose database `rucio_template` is a new Rucio."""
    inputs = [REQUIREMENTS, BOOTSTRAP, HERE / "rucio_config.py", *sorted(POLICY.glob("*/*.py"))]
    version = str(programs()).encode()
    archive = cache() / f"rucio-cluster-{_digest(version, *(path.read_bytes() for path in inputs))}.tar"
    server = server_environment()
    with locked(archive):
        if not archive.exists():
            _build(archive, server)
    return archive


def _build(archive: Path, server: Path) -> None:
    folder = processes.scratch("template")
    postgres = Postgres(folder / "postgres")
    postgres.initialise()
    postgres.start()
    try:
        postgres.execute(f"CREATE DATABASE {TEMPLATE_DATABASE}")
        environment = rucio_config.write_server(folder, server, postgres.url(TEMPLATE_DATABASE))
        processes.run([server / "bin/python", BOOTSTRAP], environment, folder)
    finally:
        postgres.stop()
    postgres.save(archive)
    processes.remove(folder)


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """One process at a time: several test runs may want the same at once."""
    with target.with_name(target.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
