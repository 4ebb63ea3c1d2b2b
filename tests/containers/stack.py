"""The stack of compose.yaml: bring it up, look at it, break it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.broker import single
from common.broker.streams import attach
from common.names import sync_account
from common.settings.model import Main
from scripts.heard import Heard
from tests import checker

ROOT = Path(__file__).parents[2]
COMPOSE = ["docker", "compose", "--profile", "demo"]
OURS = ("scheduler", "worker-site", "worker-blocks", "worker-setup", "worker-upload", "datasvc", "rucio")
# The demo's sites but the largest. node → its RSE, and the node whose inventory counts
SITES = {
    "T1_IT_CNAF_Buffer": ("T1_IT_CNAF_Tape", "T1_IT_CNAF_MSS"),
    "T2_CH_CERN": ("T2_CH_CERN", "T2_CH_CERN"),
    "T2_DE_DESY": ("T2_DE_DESY", "T2_DE_DESY"),
}
NEW_BLOCKS = """
import sys
from datasvc.build import Snapshot
node, dataset, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
with Snapshot("phedex.sqlite") as snapshot, snapshot.transaction():
    for number in range(count):
        name = f"{dataset}#{number:05}"
        stem = name.replace("#", "/").replace("/", "_")
        snapshot.add_block(name, [(f"/store/data/{stem}/{n:04}.root", 1000 + n, f"{n:08x}") for n in range(4)])
        snapshot.add_replica(name, node)
"""


def run(*command: str, timeout: float = 300, check: bool = True) -> str:
    """The command has ended well; what it wrote. AssertionError with its output otherwise."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def compose(*arguments: str, timeout: float = 300, check: bool = True) -> str:
    """`docker compose` with the profile `demo`."""
    return run(*COMPOSE, *arguments, timeout=timeout, check=check)


def cli(*arguments: str, timeout: float = 300) -> str:
    """What the command line says, as an operator would run it."""
    return compose("run", "--rm", "-T", "cli", *arguments, timeout=timeout)


@dataclass(frozen=True)
class Container:
    """One container of a service, as it was when it was looked at."""

    id: str
    service: str
    name: str
    state: dict[str, Any]
    networks: dict[str, Any]

    @property
    def health(self) -> str:
        return str(self.state.get("Health", {}).get("Status", "none"))


def containers(*services: str) -> list[Container]:
    """The containers of some services, or of all, ended ones too."""
    ids = compose("ps", "--all", "--quiet", *services).split()
    found = json.loads(run("docker", "inspect", *ids)) if ids else []
    return [_container(one) for one in found]


def _container(one: dict[str, Any]) -> Container:
    service = one["Config"]["Labels"]["com.docker.compose.service"]
    return Container(one["Id"], service, one["Name"][1:], one["State"], one["NetworkSettings"]["Networks"])


def state_of(container: Container) -> dict[str, Any]:
    """How it is now, running or not."""
    return dict(json.loads(run("docker", "inspect", container.id))[0]["State"])


def until(is_so: Callable[[], bool], what: str, limit: float = 120) -> None:
    """It is so, within the limit (seconds)."""
    deadline = time.monotonic() + limit
    while not is_so():
        assert time.monotonic() < deadline, f"not within {limit} s: {what}"
        time.sleep(1)


def is_healthy() -> bool:
    return all(one.state["Running"] and one.health in ("healthy", "none") for one in containers())


def address(service: str) -> str:
    """The address of a service's container, which this machine reaches though nothing is published."""
    networks = containers(service)[0].networks
    return str(next(net["IPAddress"] for name, net in networks.items() if name.endswith("_inside")))


def password(name: str) -> str:
    return (ROOT / "deploy/secrets" / name).read_text().strip()


def amqp_url(user: str) -> str:
    """The broker as one of its users sees it."""
    return f"amqp://{user}:{password(f'amqp_{user}')}@{address('rabbitmq')}:5672/%2F"


def operator() -> Main:
    """The settings of an operator who is not in a container."""
    return Main(amqp_url=amqp_url("operator"))


def ready(*queues: str) -> int:
    """How many messages nobody has taken yet from these queues."""
    main = operator()
    return sum(single.count(main, queue) for queue in queues)


def sql(statement: str) -> list[tuple[Any, ...]]:
    """The rows of a query of Rucio's database."""
    whole = f"SELECT coalesce(json_agg(to_json(t)), '[]') FROM ({statement}) t"
    psql = ("psql", "--username", "rucio", "--dbname", "rucio", "--tuples-only", "--no-align", "--command", whole)
    rows: list[dict[str, Any]] = json.loads(compose("exec", "-T", "postgres", *psql))
    return [tuple(row.values()) for row in rows]


def differences() -> list[str]:
    """Every way in which Rucio's own tables differ from what the snapshot service says."""
    url = f"http://{address('datasvc')}:7001/phedex/datasvc"
    tables = checker.read_tables(sql)
    wanted = {node: checker.expected(url, where, rse, sync_account(rse)) for node, (rse, where) in SITES.items()}
    assert all(site.blocks for site in wanted.values())
    return checker.differences(tables, wanted)


def lost() -> list[str]:
    """The cycles that were asked for and are not finished, by the whole stream of events."""
    heard = Heard()
    with attach(operator(), "first", "test") as stream:
        for event in stream.until(time.monotonic() + 5):
            if event is not None:
                heard.take(event)
    assert heard.state.by_name, "no event at all"
    return heard.open(heard.state.by_name)


def add_blocks(node: str, dataset: str, count: int) -> None:
    """PhEDEx has so many more blocks at the node."""
    where = ("--workdir", "/var/lib/phedex-rucio", "datasvc")
    compose("exec", "-T", *where, "python", "-c", NEW_BLOCKS, node, dataset, str(count))


def stopped_and_started(service: str) -> Iterator[str]:
    """Each container of the service is stopped and started, one after the other; a line for each unclean exit."""
    for one in containers(service):
        run("docker", "stop", one.id)
        code = state_of(one)["ExitCode"]
        run("docker", "start", one.id)
        if code not in (0, 143):
            yield f"{one.name}: exit code {code} at docker stop"
