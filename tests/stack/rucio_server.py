"""A real Rucio of our own: start it, stop it, break it, empty it, look into it."""

import getpass
import json
import os
import signal
import subprocess
import tempfile
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from . import processes, rucio_config, rucio_install
from .postgres import Postgres
from .processes import Process, StackError
from .rucio_config import PASSWORD, ROOT_ACCOUNT, SERVICE_ACCOUNT

if TYPE_CHECKING:
    from rucio.client import Client

DATABASE = "rucio"
HERE = Path(__file__).parent


@dataclass
class RucioServer:
    """One Rucio: PostgreSQL, gunicorn with two workers, and its daemons as far as they are asked for."""

    folder: Path
    server: Path
    postgres: Postgres
    environment: dict[str, str]
    port: int
    process: Process | None = None
    daemons: dict[str, Process] = field(default_factory=dict)
    runner: subprocess.Popen[str] | None = None
    runner_lock: Lock = field(default_factory=Lock)
    clients: "list[Client]" = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "gunicorn.log"

    # --- start and stop ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """The server answers `/ping`. On the same port as before, so that clients find it again."""
        command: list[str | Path] = [self.server / "bin/gunicorn", "--config", HERE / "gunicorn_conf.py"]
        address = ["--bind", f"127.0.0.1:{self.port}", "rucio.web.rest.main:application"]
        self.process = processes.spawn([*command, *address], self.log, self.environment, self.folder)
        self.wait_ready()

    def start_first(self) -> None:
        """The server answers; on another port if somebody has taken ours meanwhile."""
        try:
            self.start()
        except StackError:
            self.kill()
            self.port = processes.free_ports(1)
            self.start()

    def wait_ready(self) -> None:
        processes.wait_until(self.answers, "Rucio does not start", 180, self.process, self.log)

    def answers(self) -> bool:
        """True if `/ping` is answered; it is also without a database."""
        try:
            with urllib.request.urlopen(f"{self.url}/ping", timeout=5) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def stop(self) -> None:
        """The server has ended in order; the database and the daemons go on."""
        processes.stop(self.process)

    def kill(self) -> None:
        """The server and its workers are gone at once."""
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def close(self) -> None:
        """Nothing of it runs any more, and its folder is gone."""
        self.close_clients()
        self.stop_daemons()
        if self.runner:
            self.runner.kill()
            self.runner.communicate()
        self.kill()
        self.postgres.kill()
        processes.remove(self.folder)

    # --- an empty one -----------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Rucio is empty and runs: root, the service account and the scope `cms`, nothing else. Daemons are stopped."""
        self.stop_daemons()
        self._restore_servers()
        self.postgres.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        self.create_database()
        self._renew_workers()
        self.close_clients()
        forget_tokens()

    def create_database(self) -> None:
        template = rucio_install.TEMPLATE_DATABASE
        self.postgres.execute(f"CREATE DATABASE {DATABASE} TEMPLATE {template} STRATEGY file_copy")

    def _restore_servers(self) -> None:
        if self.postgres.process is None or self.postgres.process.poll() is not None:
            self.postgres.start()
        if self.process is None or self.process.poll() is not None:
            self.start()

    def _renew_workers(self) -> None:
        """No worker remembers the old database: neither connections nor caches."""
        old = self._workers()
        for worker in old:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        processes.wait_until(
            lambda: not self._workers() & old, "Rucio's workers do not end", 20, self.process, self.log
        )
        self.wait_ready()

    def _workers(self) -> set[int]:
        if self.process is None:
            return set()
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return {int(pid) for pid in children.split()}

    # --- daemons ----------------------------------------------------------------------------------------------

    def run_daemon(self, name: str, *arguments: str) -> str:
        """The daemon `rucio-NAME` has made one round; what it logged. StackError if it failed."""
        log = self.folder / f"{name}.once.log"
        log.unlink(missing_ok=True)
        script = self.server / "bin" / f"rucio-{name}"
        with self.runner_lock:
            code = self._ask_runner([str(log), str(script), "--run-once", *arguments])
        if code != "0":
            raise StackError(f"rucio-{name} --run-once ended with {code or 'no answer'}. {processes.tail(log)}")
        return log.read_text(errors="replace")

    def _ask_runner(self, request: list[str]) -> str:
        if self.runner is None or self.runner.poll() is not None:
            self.runner = self._start_runner()
        if self.runner.stdin is None or self.runner.stdout is None:
            raise StackError("the runner of Rucio's daemons was started without pipes")
        self.runner.stdin.write(json.dumps(request) + "\n")
        self.runner.stdin.flush()
        return self.runner.stdout.readline().strip()

    def _start_runner(self) -> subprocess.Popen[str]:
        command = [*processes.setpriv(None), str(self.server / "bin/python"), str(HERE / "rucio_daemons.py")]
        with (self.folder / "daemons.log").open("ab") as errors:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=self.environment,
                cwd=self.folder,
                start_new_session=True,
                text=True,
            )

    def start_daemon(self, name: str, *arguments: str, pause: int = 1) -> Process:
        """The daemon `rucio-NAME` runs beside us, `pause` seconds between its rounds, until `stop_daemons`."""
        script = self.server / "bin" / f"rucio-{name}"
        command: list[str | Path] = [self.server / "bin/python", script, "--sleep-time", str(pause), *arguments]
        log = self.folder / f"{name}.log"
        self.daemons[name] = processes.spawn(command, log, self.environment, self.folder)
        return self.daemons[name]

    def restart_daemons(self) -> None:
        """The daemons that ran beside us run again: one that lost its database may have ended, or hang."""
        names = list(self.daemons)
        self.stop_daemons()
        for name in names:
            self.start_daemon(name)

    def stop_daemons(self) -> None:
        """No daemon runs beside us any more."""
        for process in self.daemons.values():
            processes.stop(process, signal.SIGKILL)
        self.daemons.clear()

    # --- ways in ----------------------------------------------------------------------------------------------

    def client(self, account: str = SERVICE_ACCOUNT, url: str | None = None, timeout: float = 60) -> "Client":
        """A client of its own for the calling thread. `url`: through a proxy. The account is root or the service's."""
        from rucio.client import Client  # not earlier: it decides at its import where its token files lie

        client = Client(
            rucio_host=url or self.url,
            auth_host=url or self.url,
            account=account,
            auth_type="userpass",
            creds={"username": account, "password": PASSWORD},
            timeout=timeout,
        )
        self.clients.append(client)
        return client

    def close_clients(self) -> None:
        """The connections of the clients made here are closed; they open new ones if they are used again."""
        for client in self.clients:
            client.session.close()
        self.clients.clear()

    def client_environment(self, account: str = SERVICE_ACCOUNT, url: str | None = None) -> dict[str, str]:
        """The variables with which a command finds this Rucio: a client configuration and where it is."""
        path = self.folder / f"client-{account}.cfg"
        return rucio_config.write_client(path, url or self.url, account)

    def sql(self, statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        """What Rucio's own tables say: an independent look past its API. `%s` for parameters."""
        return self.postgres.execute(statement, DATABASE, parameters)


def launch() -> RucioServer:
    """An empty Rucio runs. What it needs is installed first, if this is the first time. Undo it with `close()`."""
    archive = rucio_install.empty_cluster()
    server = rucio_install.server_environment()
    folder = processes.scratch("rucio")
    postgres = Postgres(folder / "postgres")
    environment = rucio_config.write_server(folder, server, postgres.url(DATABASE))
    rucio = RucioServer(folder, server, postgres, environment, processes.free_ports(1))
    try:
        postgres.restore(archive)
        postgres.start()
        rucio.create_database()
        rucio.start_first()
    except BaseException:
        rucio.close()
        raise
    return rucio


def forget_tokens() -> None:
    """The client logs in again: it keeps each account's token in a file, whatever the server (`_get_auth_tokens`)."""
    user = getpass.getuser()
    processes.remove(Path(tempfile.gettempdir(), user, f".rucio_{user}"))


__all__ = ["PASSWORD", "ROOT_ACCOUNT", "SERVICE_ACCOUNT", "RucioServer", "launch"]
