"""A private RabbitMQ of our own: start it, crash it, freeze it, raise its alarms, give every test a vhost."""

import json
import shutil
import signal
import socket
import urllib.parse
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pika
from pika.exceptions import AMQPError

from . import processes
from .broker_root import broker_root, enter
from .processes import Process, ServerMissing, StackError

PROGRAMS = Path("/usr/lib/rabbitmq/bin")
USER = PASSWORD = "guest"
BOOT_ATTEMPTS = 3
VHOSTS_AT_ONCE = 20
EVALUATED = "{ok, ok}"

# The management plugin is left out: with it the node takes twice as long to start, and five seconds more to stop.
CONFIGURATION = """\
listeners.tcp.1 = 127.0.0.1:{amqp}
vm_memory_high_watermark.absolute = 2GB
disk_free_limit.absolute = 50MB
log.console = true
log.console.level = warning
log.file = false
"""


@dataclass
class Broker:
    """One RabbitMQ node and the epmd it needs, on 127.0.0.1 only, with the data in `folder`.

    The programs are this machine's, or those in `root`, the folder of another Debian release.
    """

    folder: Path
    port: int
    root: Path | None = None
    process: Process | None = None
    epmd: Process | None = None
    numbers: "count[int]" = field(default_factory=lambda: count(1))
    spare_vhosts: list[str] = field(default_factory=list)
    used_vhosts: list[str] = field(default_factory=list)

    @property
    def log(self) -> Path:
        return self.folder / "rabbitmq.log"

    @property
    def environment(self) -> dict[str, str]:
        return processes.clean_environment() | {
            "HOME": str(self.folder),  # the Erlang cookie lies there
            "RABBITMQ_NODENAME": f"stack{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self.port + 1),
            "ERL_EPMD_PORT": str(self.port + 2),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            # The script then replaces itself by the Erlang machine: killing our child is a real crash.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SERVER_START_ARGS": "-noinput",
            # Otherwise the distribution port listens on every interface; and no spinning of idle schedulers.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}"
            " +sbwt none +sbwtdcpu none +sbwtdio none",
        }

    def url(self, vhost: str = "/") -> str:
        """The AMQP address of a vhost."""
        quoted = urllib.parse.quote(vhost, safe="")
        return f"amqp://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{quoted}"

    def _inside(self, command: list[str | Path]) -> list[str | Path]:
        """The scratch folders' folder, because each folder that is shared leaves an empty one of its name inside."""
        return enter(self.root, self.folder.parent, command)

    # --- start and stop ---------------------------------------------------------------------------------------

    def configure(self) -> None:
        """The files that the node reads at its start are in the folder."""
        (self.folder / "rabbitmq.conf").write_text(CONFIGURATION.format(amqp=self.port))
        (self.folder / "enabled_plugins").write_text("[].\n")

    def start(self) -> None:
        """A connection opens. After any stop or crash: the same port and the same data."""
        self._start_epmd()
        command = self._inside([PROGRAMS / "rabbitmq-server"])
        self.process = processes.spawn(command, self.log, self.environment, self.folder)
        processes.wait_until(self.answers, "RabbitMQ does not start", 180, self.process, self.log)

    def _start_epmd(self) -> None:
        if self.epmd is not None and self.epmd.poll() is None:
            return
        epmd: list[str | Path] = ["epmd", "-port", str(self.port + 2), "-address", "127.0.0.1"]
        command = self._inside(epmd)
        self.epmd = processes.spawn(command, self.folder / "epmd.log", self.environment, self.folder)
        processes.wait_until(lambda: _listens(self.port + 2), "epmd does not start", 10, self.epmd)

    def answers(self) -> bool:
        """True if a connection opens."""
        if not _listens(self.port):
            return False
        parameters = pika.URLParameters(self.url())
        parameters.stack_timeout = parameters.socket_timeout = 5
        try:
            pika.BlockingConnection(parameters).close()
        except (AMQPError, OSError):
            return False
        return True

    def stop(self) -> None:
        """Ended in order."""
        processes.stop(self.process)

    def kill(self) -> None:
        """Gone at once, as in a crash (`kill -9`).

        What it knows of queues declared just now is on disk first (`settle`), as in a broker that has run a while.
        """
        if self.process and self.process.poll() is None:
            self.settle()
            self._end()

    def settle(self) -> None:
        """The quorum queues that exist survive a crash.

        RabbitMQ 3.10.8 writes their directory, a table of Erlang's `dets`, only now and then: of a queue declared 0.6 s
        before `kill -9` no consumer ever got a message again (541 INTERNAL_ERROR after 60 s), after 3 s all was well.
        """
        self.evaluate("[ok = dets:sync(T) || T <- dets:all()]")

    def _end(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def restart(self) -> None:
        """Ended in order and started again."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """It keeps its connections and answers nothing (SIGSTOP)."""
        self._running().send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on where it was frozen (SIGCONT)."""
        self._running().send_signal(signal.SIGCONT)

    def heal(self) -> None:
        """It runs, whatever the test before did to it."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        self.thaw()

    def _running(self) -> Process:
        if self.process is None or self.process.poll() is not None:
            raise StackError(f"RabbitMQ on port {self.port} is not running. {processes.tail(self.log)}")
        return self.process

    def close(self) -> None:
        """Nothing of it runs any more, and its folder is gone."""
        self._end()
        processes.stop(self.epmd, signal.SIGKILL)
        processes.remove(self.folder)

    # --- vhosts and alarms ------------------------------------------------------------------------------------

    def new_vhost(self) -> str:
        """The name of a new, empty vhost."""
        if not self.spare_vhosts:
            self._exchange_vhosts([f"v{next(self.numbers)}" for _ in range(VHOSTS_AT_ONCE)])
        return self.spare_vhosts.pop(0)

    def _exchange_vhosts(self, new: list[str]) -> None:
        """The new ones exist and the used ones are gone, with their queues, in one call."""
        delete = f"[rabbit_vhost:delete(V, <<>>) || V <- {_erlang(self.used_vhosts)}]"
        allow = (
            f"rabbit_auth_backend_internal:set_permissions({_binary(USER)}, V, {', '.join([_binary('.*')] * 3)}, <<>>)"
        )
        add = f"[begin rabbit_vhost:add(V, <<>>), ok = {allow} end || V <- {_erlang(new)}]"
        self.evaluate(f"{delete}, {add}")
        self.used_vhosts.clear()
        self.spare_vhosts.extend(new)

    def retire_vhost(self, name: str) -> None:
        """The vhost is not used any more, and goes with the next ones that are made."""
        self.used_vhosts.append(name)

    def close_connections(self, vhost: str) -> None:
        """The broker has closed every connection to the vhost."""
        self.ctl("close_all_connections", "--vhost", vhost, "closed by the test")

    def queues(self, vhost: str) -> dict[str, dict[str, Any]]:
        """Name → arguments of each queue, its type among them as `x-queue-type`.

        No counts: for a quorum queue `rabbitmqctl` tells them seconds late; a passive declaration knows better.
        """
        listed = f"rabbit_amqqueue:info_all({_binary(vhost)}, [name, type, arguments])"
        arguments = "maps:from_list([{K, V} || {K, _, V} <- As])"
        row = f"[N, atom_to_binary(T), {arguments}] || [{{_, {{_, _, _, N}}}}, {{_, T}}, {{_, As}}] <- {listed}"
        rows = json.loads(self.evaluate(f'io:format("~s", [rabbit_json:encode([{row}])])'))
        return {name: {"x-queue-type": kind} | arguments for name, kind, arguments in rows}

    def memory_alarm(self, on: bool) -> None:
        """The broker blocks publishers (on), or takes messages again (off)."""
        self.evaluate(f"vm_memory_monitor:set_vm_memory_high_watermark({'0.000001' if on else '0.4'})")

    def evaluate(self, expression: str) -> str:
        """What an Erlang expression prints that the node evaluates; hundredths of a second. StackError if it fails."""
        command = self._inside(["erl_call", "-sname", self.environment["RABBITMQ_NODENAME"], "-fetch_stdout", "-e"])
        output = processes.run(command, self.environment, self.folder, given=f"{expression}, ok.\n")
        if not output.endswith(EVALUATED):
            raise StackError(f"{expression}: {output}")
        return output.removesuffix(EVALUATED)

    def ctl(self, *arguments: str) -> str:
        """The output of `rabbitmqctl`; about a second a call."""
        command = self._inside([PROGRAMS / "rabbitmqctl", "--quiet", *arguments])
        return processes.run(command, self.environment, self.folder)


def launch(release: str = "debian") -> Broker:
    """An empty broker runs: this machine's ("debian"), or that of another Debian release. Undo it with `close()`.

    With other ports again if one was taken meanwhile. ServerMissing without RabbitMQ.
    """
    root = broker_root(release) if release != "debian" else None
    if root is None:
        _check_installed()
    failures = []
    for _ in range(BOOT_ATTEMPTS):
        broker = Broker(processes.scratch("rabbitmq"), processes.free_ports(3), root)
        try:
            broker.configure()
            broker.start()
        except StackError as error:
            failures.append(str(error))
            broker.close()
        except BaseException:
            broker.close()
            raise
        else:
            return broker
    raise StackError("\n".join(failures))


def _check_installed() -> None:
    """This machine has RabbitMQ, or ServerMissing."""
    if not (PROGRAMS / "rabbitmq-server").exists() or not shutil.which("epmd"):
        raise ServerMissing("RabbitMQ is not installed: apt-get install rabbitmq-server")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _erlang(names: list[str]) -> str:
    return "[" + ", ".join(_binary(name) for name in names) + "]"


def _binary(text: str) -> str:
    return f'<<"{text}">>'
