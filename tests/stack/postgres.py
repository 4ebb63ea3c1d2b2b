"""A PostgreSQL cluster of our own: made, started, stopped, killed."""

import os
import pwd
import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from . import processes
from .processes import ServerMissing

# Only speed: nothing here has to survive a power cut. A crash of the processes alone loses nothing with these.
SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "listen_addresses": "",
    "max_connections": "300",
    "shared_buffers": "128MB",
}


def programs() -> Path:
    """The folder with `postgres` and `initdb`, the newest version first. ServerMissing if there is none."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    on_path = shutil.which("postgres")
    for folder in [*versions, *([Path(on_path).resolve().parent] if on_path else [])]:
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return folder
    raise ServerMissing("PostgreSQL's server is not installed: apt-get install postgresql")


def unprivileged_user() -> str | None:
    """Whom to run PostgreSQL as: it refuses root. None when we are not root ourselves."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@dataclass
class Postgres:
    """One cluster in `folder`, reached by its unix socket there only; `rucio` is its superuser, without password."""

    folder: Path
    process: processes.Process | None = None
    user: str | None = field(default_factory=unprivileged_user)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> Path:
        return self.folder / "postgres.log"

    def url(self, database: str) -> str:
        """The address for SQLAlchemy."""
        return f"postgresql+psycopg://rucio@/{database}?host={self.folder}"

    def prepare(self) -> None:
        """The folder exists and belongs to the user that PostgreSQL runs as."""
        self.folder.mkdir(exist_ok=True)
        if self.user:
            shutil.chown(self.folder, self.user, pwd.getpwnam(self.user).pw_gid)

    def initialise(self) -> None:
        """An empty cluster is there."""
        self.prepare()
        options = ["--username=rucio", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
        self.run([programs() / "initdb", "--pgdata", self.data, *options])

    def restore(self, archive: Path) -> None:
        """The cluster is the one that `save` has put in the archive."""
        self.prepare()
        processes.run(["tar", "--extract", "--file", archive, "--directory", self.folder], os.environ, self.folder)
        if self.user:
            processes.run(["chown", "--recursive", self.user, self.data], os.environ, self.folder)

    def save(self, archive: Path) -> None:
        """The stopped cluster is in the archive, which appears whole or not at all."""
        part = archive.with_suffix(".part")
        processes.run(["tar", "--create", "--file", part, "--directory", self.folder, "data"], os.environ, self.folder)
        part.chmod(0o644)
        part.rename(archive)

    def run(self, command: list[str | Path]) -> str:
        return processes.run(command, processes.clean_environment(), self.folder, self.user)

    def start(self) -> None:
        """It answers queries. Also after `kill`: it recovers first."""
        options = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        command: list[str | Path] = [programs() / "postgres", "-D", self.data, "-k", self.folder, *options]
        self.process = processes.spawn(command, self.log, processes.clean_environment(), self.folder, self.user)
        processes.wait_until(self._answers, "PostgreSQL does not start", 180, self.process, self.log)

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """Ended in order; open connections are cut."""
        processes.stop(self.process, signal.SIGINT)

    def kill(self) -> None:
        """Ended at once with all its children, as in a crash: the next start recovers."""
        processes.stop(self.process, signal.SIGQUIT)

    def execute(self, statement: str, database: str = "postgres", parameters: Any = None) -> list[tuple[Any, ...]]:
        """The rows that the statement gives (none if it gives none), in a transaction of its own."""
        with psycopg.connect(
            host=str(self.folder), user="rucio", dbname=database, autocommit=True, connect_timeout=5
        ) as connection:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []
