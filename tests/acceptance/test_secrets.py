"""No secret leaves a process by any door: every command and many failures at --debug, then everything is searched."""

from __future__ import annotations

import getpass
import os
import signal
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
import pytest

from common.broker.connection import blocking
from common.broker.topology import topology
from common.settings.model import Main
from datasvc.build import Snapshot
from datasvc.serve import running
from phedex_rucio.main import COMMANDS, cli
from tests.acceptance.command import PROGRAM, ended, started, until
from tests.stack.broker import Broker
from tests.stack.processes import free_ports
from tests.stack.rucio_config import PASSWORD
from tests.stack.rucio_server import RucioServer
from tests.stack.world import make_site

NODE = "T2_IT_Pisa"
DATASET = "/Primary/Run2018A-v1/AOD"
BLOCK = f"{DATASET}#1"
MARKED = {
    "amqp": "MARKamqp%2Fpassword",
    "amqp, as it is": "MARKamqp/password",
    "amqp, wrong": "MARKwrong-amqp",
    "rucio": PASSWORD,
    "rucio, wrong": "MARKwrong-rucio",
    "phedex": "MARKphedex-password",
    "key": "MARKkeyMARKkeyMARKkey",
    "oidc": "eyJhbGciOiJNQVJL.MARKoidcMARKoidc.MARKoidcMARKoidc",
}
PROXY = f"-----BEGIN PRIVATE KEY-----\n{MARKED['key']}\n-----END PRIVATE KEY-----\n"
# What a parameter is given by its name, in every command that there is or will be.
VALUES = {
    "node": NODE,
    "nodes": NODE,
    "block": BLOCK,
    "blocks": BLOCK,
    "dataset": DATASET,
    "datasets": DATASET,
    "cycle": "20260101T000000-0000000000",
    "cycles": "20260101T000000-0000000000",
    "what": "20260101T000000-0000000000",
    "timeout": "1",
    "limit": "1",
}
SERVES = {("worker",), ("scheduler",), ("datasvc", "serve"), ("status",)}  # until they are told to stop
SHORT = 120.0  # seconds after which a command that does not end by itself is killed


@dataclass
class Heard:
    """All that was written anywhere, with where."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    texts: list[tuple[str, str]] = field(default_factory=list)

    def add(self, where: str, text: str | bytes) -> None:
        with self.lock:
            self.texts.append((where, text.decode(errors="replace") if isinstance(text, bytes) else text))

    def with_(self, secret: str) -> list[str]:
        """Where a text is."""
        return [where for where, text in self.texts if secret in text]


@dataclass(frozen=True)
class World:
    """Real servers, each with a marked secret, and the environment that leads to them."""

    url: str
    phedex: str
    folder: Path
    env: dict[str, str]
    heard: Heard

    def run(self, *arguments: str, say: str = "", **env: str) -> int:
        """The exit code; a command that does not end is told to."""
        process = subprocess.Popen(
            [*PROGRAM, *arguments],
            env=os.environ | self.env | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        try:
            out, errors = process.communicate(timeout=SHORT)
        except subprocess.TimeoutExpired:
            process.kill()
            out, errors = process.communicate()
        self.heard.add(f"{say}{' '.join(arguments)}: stdout", out)
        self.heard.add(f"{say}{' '.join(arguments)}: stderr", errors)
        return process.returncode

    def rucio(self, **changes: str) -> dict[str, str]:
        """The variables that lead to a rucio.cfg of its own, with some lines replaced."""
        text = Path(self.env["RUCIO_CONFIG"]).read_text()
        lines = [line for line in text.splitlines() if line.split(" = ")[0] not in changes]
        path = self.folder / f"{'-'.join(changes)}.cfg"
        path.write_text("\n".join([*lines, *(f"{key} = {value}" for key, value in changes.items())]))
        tokens = self.folder / f"tokens-{'-'.join(changes)}"
        tokens.mkdir()  # a good token of another run would hide a wrong password
        return {"RUCIO_CONFIG": str(path), "TMPDIR": str(tokens)}


@pytest.fixture
def world(tmp_path: Path, amqp_url: str, broker: Broker, clean_rucio: RucioServer) -> Iterator[World]:
    make_site(clean_rucio, NODE)
    with Snapshot(tmp_path / "phedex.sqlite") as made:
        made.add_node(NODE)
        made.add_block(BLOCK, [("/store/data/1.root", 1000, "adler32:00000001,cksum:1")])
        made.add_replica(BLOCK, NODE)
    vhost = amqp_url.rpartition("/")[2]
    broker.ctl("add_user", f"marked-{vhost}", MARKED["amqp, as it is"])
    broker.ctl("set_permissions", "--vhost", vhost, f"marked-{vhost}", ".*", ".*", ".*")
    with running(tmp_path / "phedex.sqlite") as phedex:
        env = {
            "AMQP_URL": f"amqp://marked-{vhost}:{MARKED['amqp']}@127.0.0.1:{broker.port}/{vhost}",
            "PHEDEX_URL": phedex.replace("://", f"://me:{MARKED['phedex']}@"),
            "PHEDEX_RUCIO_MAIN_PHEDEX_TRIES": "1",
            "PHEDEX_RUCIO_MAIN_WAIT_DELAYS": "0.5,1",
            "PHEDEX_RUCIO_MAIN_ATTEMPTS": "2",
            "PHEDEX_RUCIO_MAIN_BEAT": "1",
            **clean_rucio.client_environment(),
        }
        yield World(amqp_url, phedex, tmp_path, env, Heard())
    broker.ctl("delete_user", f"marked-{vhost}")


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, with its words."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from leaves(child, (*path, name))
    else:
        yield path, command


def arguments_for(command: click.Command, folder: Path) -> list[str]:
    """Something for every parameter that must be given, and --debug."""
    found = ["--debug"] if any(p.name == "debug" for p in command.params) else []
    for parameter in command.params:
        value = _value(parameter, folder)
        if isinstance(parameter, click.Argument):
            found.append(value)
        elif parameter.required or parameter.name == "timeout":
            found += [parameter.opts[0], value]
    return found


def _value(parameter: click.Parameter, folder: Path) -> str:
    if isinstance(parameter.type, click.Choice):
        return str(parameter.type.choices[0])
    if isinstance(parameter.type, click.Path):
        return str(folder / "phedex.sqlite" if parameter.type.exists else folder / f"{parameter.name}.out")
    return VALUES.get(str(parameter.name), NODE)


@contextmanager
def worker(world: World, say: str, wanted: str, **env: str) -> Iterator[None]:
    """A worker at --debug that has got so far as to write `wanted`; what it wrote and showed is kept."""
    port = free_ports(1)
    with started("worker", "--debug", "--metrics-port", str(port), env=world.env | env) as process:
        world.heard.add(f"{say}worker: stderr", until(process, wanted))
        yield
        world.heard.add(f"{say}worker: command line", Path(f"/proc/{process.pid}/cmdline").read_bytes())
        for page in ("metrics", "healthz", "readyz"):
            world.heard.add(f"{say}worker: {page}", _page(f"http://127.0.0.1:{port}/{page}"))
        code, errors = ended(process, signal.SIGTERM)
        world.heard.add(f"{say}worker: stderr", errors)
        assert code == 0, errors[-2000:]


def _page(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=10) as page:
            return bytes(page.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.read()


def everything_at_the_broker(world: World) -> int:
    """Every message of every queue and stream is heard, with its properties; how many."""
    main, number = Main(amqp_url=world.url, wait_delays=[0.5, 1]), 0
    with blocking(main, "test reads") as connection:
        for queue in topology(main).queues:
            channel = connection.channel()
            channel.basic_qos(prefetch_count=200)
            is_stream = queue.arguments.get("x-queue-type") == "stream"
            offset = {"x-stream-offset": "first"} if is_stream else {}
            for method, properties, body in channel.consume(queue.name, arguments=offset, inactivity_timeout=0.5):
                if method is None:
                    break
                number += 1
                world.heard.add(f"message in {queue.name}", f"{properties} {body.decode()}")
                if is_stream:
                    channel.basic_ack(method.delivery_tag)
            connection.channel()  # the other is left: what it read goes back to its queue
    return number


def tokens(*folders: Path) -> list[str]:
    return [path.read_text() for folder in folders for path in folder.rglob(".rucio_*/auth_token_for_*")]


def test_no_secret_is_in_any_output(world: World) -> None:
    heard = world.heard
    assert world.run("setup", "--debug") == 0
    with worker(world, "", 'event="worker ready"'):
        assert world.run("sync", "site", NODE, "--wait", "--debug") == 0
        assert world.run("sync", "site", "T9_XX_Nowhere", "--debug", "--wait") != 0
        _run_all(world)
    _run_failures(world)
    assert everything_at_the_broker(world) > 10
    everywhere = "".join(text for _, text in heard.texts)
    assert "level=debug" in everywhere
    assert ":***@" in everywhere
    assert "phedex_rucio_build_info" in everywhere
    found = tokens(Path(tempfile.gettempdir(), getpass.getuser()), world.folder)
    assert found
    secrets = MARKED | {f"token {number}": token for number, token in enumerate(found)}
    assert {what: where for what, secret in secrets.items() if (where := heard.with_(secret))} == {}


def _run_all(world: World) -> None:
    """Every command once, as it is and with an argument for all that needs one."""
    assert COMMANDS
    todo = [(path, arguments_for(command, world.folder)) for path, command in leaves(cli) if path not in SERVES]
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda one: world.run(*one[0], *one[1]), todo):
            pass
    world.run("status", "--debug")


def _run_failures(world: World) -> None:
    (world.folder / "amqp-password").write_text(MARKED["amqp, wrong"])
    (world.folder / "key.pem").write_text(PROXY)
    (world.folder / "key.pem").chmod(0o600)
    pem = str(world.folder / "key.pem")
    nowhere = f"http://me:{MARKED['phedex']}@127.0.0.1:9/phedex/datasvc"
    broken: dict[str, tuple[Mapping[str, str], int, int | None]] = {
        "wrong broker password: ": ({"AMQP_PASSWORD_FILE": str(world.folder / "amqp-password")}, 6, None),
        "broker away: ": ({"AMQP_URL": f"amqp://me:{MARKED['amqp']}@127.0.0.1:9/%2F"}, 5, None),
        "broker URL wrong: ": ({"AMQP_URL": f"amqp://me:{MARKED['amqp, as it is']}@127.0.0.1/"}, 2, None),
        "wrong Rucio password: ": (world.rucio(password=MARKED["rucio, wrong"]), 6, 6),
        "Rucio away: ": (world.rucio(rucio_host="http://127.0.0.1:9", auth_host="http://127.0.0.1:9"), 5, 5),
        "key: ": (world.rucio(auth_type="x509", client_cert=pem, client_key=pem), 6, 6),
        "OIDC: ": ({**world.rucio(auth_type="oidc"), "BEARER_TOKEN": MARKED["oidc"]}, 6, 6),
        "OIDC without a token: ": (world.rucio(oidc_scope="openid", auth_type="oidc"), 6, 6),
        "PhEDEx away: ": ({"PHEDEX_URL": nowhere}, 5, 5),
        "PhEDEx with a key: ": (
            {"PHEDEX_URL": nowhere.replace("http", "https"), "PHEDEX_RUCIO_MAIN_PHEDEX_CERT": pem},
            5,
            5,
        ),
    }
    todo = [
        (say, arguments, env, code)
        for say, (env, checked, synced) in broken.items()
        for arguments, code in ((("check",), checked), (("sync", "site", NODE, "--local"), synced))
        if code is not None
    ]
    with ThreadPoolExecutor(4) as pool:
        codes = list(pool.map(lambda one: world.run(*one[1], "--debug", say=one[0], **one[2]), todo))
    wrong = {
        f"{say}{' '.join(arguments)}": (code, wanted)
        for (say, arguments, _, wanted), code in zip(todo, codes, strict=True)
        if code != wanted
    }
    assert wrong == {}
    for say in ("wrong Rucio password: ", "PhEDEx away: "):
        assert world.run("sync", "site", NODE, "--debug") == 0
        with worker(world, say, "event=away", **broken[say][0]):
            pass
