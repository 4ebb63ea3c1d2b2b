"""What breaks in scripts/chaos, and how is it mended? Servers, connections, workers, messages, and PhEDEx itself."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from common.errors import BrokerError, System
from common.messages.commands import Command, SyncBlocks, SyncSite
from common.settings import load
from phedex_rucio import broker as door
from phedex_rucio.roots import rooted
from scripts.changing import Source
from scripts.ground import start
from tests.stack import together
from tests.stack.proxy import Proxy

NODES = ("T2_IT_Pisa", "T2_US_MIT", "T2_DE_DESY", "T2_ES_CIEMAT")
WORKERS = 3
# Every way in which PhEDEx is known to misbehave (datasvc/faults.py).
PHEDEX_FAULTS = ("status", "login", "truncated", "torn", "no_call_time", "error_document", "other_rows")
PHEDEX_FAULTS += ("other_instance", "other_call", "stale", "freeze", "delay", "empty")
MUTE = ("status", "freeze")  # with one of these in all calls PhEDEx is away, not wrong

T = TypeVar("T")


def dealt(rng: random.Random, cards: Sequence[T]) -> Iterator[T]:
    """The cards in any order, each once before one comes again."""
    while True:
        yield from rng.sample(cards, len(cards))


@dataclass
class Chaos:
    """The servers, the workers, the changing PhEDEx, and what was done to all of them."""

    rng: random.Random
    servers: together.Servers
    source: Source
    phedex: str
    faults_file: Path
    to_rucio: Proxy
    to_broker: Proxy
    env: dict[str, str]
    log: Path
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    injected: Counter[str] = field(default_factory=Counter)
    asked: list[str] = field(default_factory=list)
    codes: Counter[int] = field(default_factory=Counter)
    outages: list[tuple[System, datetime, datetime]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.faults = dealt(self.rng, FAULTS)
        self.lies = dealt(self.rng, PHEDEX_FAULTS)

    @contextmanager
    def outage(self, system: System) -> Iterator[None]:
        """Within this the system is away: an attempt that is counted meanwhile is wasted."""
        since = datetime.now(UTC)
        yield
        self.outages.append((system, since, datetime.now(UTC)))

    def tend(self) -> None:
        """So many workers run as should."""
        for worker in [w for w in self.workers if w.poll() is not None]:
            self.workers.remove(worker)
            self.codes[worker.returncode] += 1
        while len(self.workers) < WORKERS:
            self.workers.append(start(["worker", "--threads", "3"], self.env, self.log))

    def send(self, commands: list[Command]) -> None:
        """The commands are sent, if the broker lets us: a sender that fails is told so and tries again later."""
        self.publish([rooted(command, "bulk") for command in commands])

    def publish(self, roots: list[Command]) -> None:
        with suppress(BrokerError):
            door.publish(self.main, roots)
            self.asked += sorted({root.meta.cycle for root in roots})

    @property
    def main(self) -> load.Main:
        return load.load(environ={"AMQP_URL": self.servers.amqp_url, **_settings(self.env)}).settings.main

    def sync_all(self, *, deep: bool = False) -> None:
        self.send([SyncSite(node=node, deep=deep) for node in NODES])

    def doubled(self) -> None:
        """A plan and batches that nobody planned, each twice with the same id, in another order."""
        blocks = self.rng.sample(self.source.blocks, min(5, len(self.source.blocks)))
        commands: list[Command] = [SyncBlocks(node=self.rng.choice(NODES), blocks=[block]) for block in blocks]
        roots = [rooted(command, "bulk") for command in [*commands, SyncSite(node=self.rng.choice(NODES))]] * 2
        self.rng.shuffle(roots)
        self.publish(roots)
        self.injected["doubled and reordered messages"] += len(roots)


def _settings(env: dict[str, str]) -> dict[str, str]:
    return {"PHEDEX_RUCIO_CONFIG": env["PHEDEX_RUCIO_CONFIG"]}


# --- the faults: each breaks something, lasts a moment, and mends it ---------------------------------------------


def kill_worker(chaos: Chaos, _seconds: float) -> None:
    chaos.rng.choice(chaos.workers).send_signal(signal.SIGKILL)


def stop_worker(chaos: Chaos, _seconds: float) -> None:
    chaos.rng.choice(chaos.workers).send_signal(signal.SIGTERM)


def freeze_worker(chaos: Chaos, seconds: float) -> None:
    worker = chaos.rng.choice(chaos.workers)
    worker.send_signal(signal.SIGSTOP)
    time.sleep(seconds)  # the fault lasts
    worker.send_signal(signal.SIGCONT)


def kill_broker(chaos: Chaos, _seconds: float) -> None:
    chaos.servers.broker.kill()
    chaos.servers.broker.restart()


def alarm(chaos: Chaos, seconds: float) -> None:
    chaos.servers.broker.memory_alarm(True)
    time.sleep(seconds)
    chaos.servers.broker.memory_alarm(False)


def freeze_broker(chaos: Chaos, seconds: float) -> None:
    chaos.servers.broker.freeze()
    time.sleep(seconds)
    chaos.servers.broker.thaw()


def stop_rucio(chaos: Chaos, seconds: float) -> None:
    chaos.servers.rucio.kill()
    with chaos.outage(System.RUCIO):
        time.sleep(seconds)
    chaos.servers.rucio.start()


def stop_postgres(chaos: Chaos, seconds: float) -> None:
    chaos.servers.rucio.postgres.kill()
    with chaos.outage(System.RUCIO):
        time.sleep(seconds)
    chaos.servers.rucio.postgres.start()
    chaos.servers.rucio.restart_daemons()  # as whoever supervises them would: they do not outlive their database


def cut_rucio(chaos: Chaos, _seconds: float) -> None:
    chaos.to_rucio.cut()


def freeze_rucio(chaos: Chaos, seconds: float) -> None:
    chaos.to_rucio.freeze()
    with chaos.outage(System.RUCIO):
        time.sleep(seconds)
    chaos.to_rucio.thaw()


def cut_broker(chaos: Chaos, _seconds: float) -> None:
    chaos.to_broker.cut()


def freeze_broker_connections(chaos: Chaos, seconds: float) -> None:
    chaos.to_broker.freeze()
    time.sleep(seconds)
    chaos.to_broker.thaw()


def phedex(chaos: Chaos, seconds: float) -> None:
    """PhEDEx misbehaves in one of its ways, in all calls or in one, for all nodes or one."""
    kind = next(chaos.lies)
    call = chaos.rng.choice(["*", "*", "blockreplicas", "filereplicas", "data"])
    match = chaos.rng.choice(["", "", f"node={NODES[0]}"])
    if kind == "empty":  # in a site's own list only: where a second reading agrees nobody could tell it from the truth
        call, match = "blockreplicas", "dataset=/"
    entry: dict[str, object] = {"call": call, "kind": kind, "match": match} | (
        {"value": 1.0} if kind == "delay" else {}
    )
    chaos.faults_file.write_text(json.dumps([entry]))
    is_away = kind in MUTE and (call, match) == ("*", "")
    with chaos.outage(System.PHEDEX) if is_away else nullcontext():
        time.sleep(seconds)
    chaos.faults_file.write_text("[]")
    chaos.injected[f"phedex {kind}"] += 1


FAULTS: list[Callable[[Chaos, float], None]] = [
    kill_worker, kill_worker, stop_worker, freeze_worker, kill_broker, alarm, freeze_broker, stop_rucio, stop_postgres,
    cut_rucio, freeze_rucio, cut_broker, freeze_broker_connections, phedex, phedex, phedex, phedex, phedex,
]  # fmt: skip


def break_things(chaos: Chaos, minutes: float) -> None:
    """Faults, changes and syncs, for so long."""
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        for _ in range(chaos.rng.randint(1, 4)):
            chaos.source.change()
        chaos.sync_all()
        chaos.doubled()
        fault = next(chaos.faults)
        print(f"{datetime.now(UTC):%T} {fault.__name__}", flush=True)
        fault(chaos, chaos.rng.uniform(1, 6))
        if fault is not phedex:
            chaos.injected[fault.__name__.replace("_", " ")] += 1
        chaos.tend()
        time.sleep(chaos.rng.uniform(0.5, 3))  # the pace of the faults, not a wait for anything
