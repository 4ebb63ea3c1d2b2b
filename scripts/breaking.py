"""What breaks in scripts/chaos, and how is it mended? Servers, connections, workers, messages, and PhEDEx itself."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self, TypeVar

from common.errors import BrokerError, System
from common.messages.commands import Command, SyncBlocks, SyncSite
from common.settings import load
from datasvc.faults import Kind
from phedex_rucio import broker as door
from phedex_rucio.roots import rooted
from scripts.changing import Source
from scripts.ground import start
from scripts.watching import Watcher
from tests.stack import together
from tests.stack.proxy import Proxy

NODES = ("T2_IT_Pisa", "T2_US_MIT", "T2_DE_DESY", "T2_ES_CIEMAT")
WORKERS = 3
# What PhEDEx is asked, each a question of its own; the first two are answered from one table.
CALLS = ("blockreplicas", "filereplicas", "data", "deletions", "subscriptions")
MUTE = ("status", "freeze")  # with one of these in all calls PhEDEx is away, not wrong
ONLY_IN = {"half_files": "filereplicas", "other_figures": "blockreplicas"}
ONLY_IN |= {"false_deletions": "deletions", "no_deletions": "deletions"}
# Lies that two questions tell in agreement: there is one more, independent of them, that does not.
TOGETHER = (("blockreplicas", "filereplicas"), ("data", "subscriptions"), ("blockreplicas", "subscriptions"))
SILENT = ("empty", "missing_block")  # whole and fresh replies, in which nothing shows that they are not true
LONGEST_LIE = 9.0  # seconds: longer than the time of grace, and than the time between two proofs
AWAIT = 6.0  # seconds to wait for an announcement of a sweep
TURN = 1.5  # seconds between two syncs of all sites

T = TypeVar("T")


def dealt(rng: random.Random, cards: Sequence[T]) -> Iterator[T]:
    """The cards in any order, each once before one comes again."""
    while True:
        yield from rng.sample(cards, len(cards))


@dataclass
class Hindered:
    """When requests to Rucio did not get through, or were carried out late."""

    spans: list[tuple[datetime, datetime]] = field(default_factory=list)
    since: datetime | None = None

    @contextmanager
    def now(self) -> Iterator[None]:
        """Until the end of this, and some seconds more in which what has waited is carried out."""
        before, since = self.since, datetime.now(UTC)
        self.since = before or since
        try:
            yield
        finally:
            self.since = before
            if before is None:
                self.spans.append((since, datetime.now(UTC) + timedelta(seconds=2)))

    def seconds(self, since: datetime, until: datetime) -> float:
        """How many seconds of that time it was so."""
        open_one = [] if self.since is None else [(self.since, datetime.now(UTC))]
        parts = [min(end, until) - max(begin, since) for begin, end in [*self.spans, *open_one]]
        return sum(part.total_seconds() for part in parts if part > timedelta(0))


@dataclass(frozen=True)
class Lie:
    """A way in which one or more calls of PhEDEx misbehave; (`*`,): all calls."""

    calls: tuple[str, ...]
    kind: str

    def __str__(self) -> str:
        return f"{self.kind} in {'+'.join(self.calls)}" if self.calls != ("*",) else self.kind


def lies() -> list[Lie]:
    """Each kind that `datasvc` knows, in all calls at once where that says nothing false, and in each call alone."""
    kinds = [str(kind) for kind in Kind]
    found = [Lie(("*",), kind) for kind in kinds if kind not in (*SILENT, *ONLY_IN)]
    found += [Lie((call,), kind) for kind in kinds for call in CALLS if ONLY_IN.get(kind, call) == call]
    return found + [Lie(calls, kind) for kind in kinds if kind in SILENT for calls in TOGETHER]


@dataclass
class Chaos:
    """The servers, the workers, the changing PhEDEx, and what was done to all of them.

    `held_up`: when requests to Rucio did not get through, the last one perhaps until now.
    """

    rng: random.Random
    servers: together.Servers
    source: Source
    phedex: str
    faults_file: Path
    to_rucio: Proxy
    to_broker: Proxy
    env: dict[str, str]
    log: Path
    watcher: Watcher
    nodes: Sequence[str] = NODES
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    injected: Counter[str] = field(default_factory=Counter)
    asked: list[str] = field(default_factory=list)
    codes: Counter[int] = field(default_factory=Counter)
    outages: list[tuple[System, datetime, datetime]] = field(default_factory=list)
    hindered: Hindered = field(default_factory=Hindered)

    @contextmanager
    def outage(self, system: System) -> Iterator[None]:
        """Within this the system is away: an attempt that is counted meanwhile is wasted."""
        since = datetime.now(UTC)
        with self.hindered.now() if system is System.RUCIO else nullcontext():
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
        self.send([SyncSite(node=node, deep=deep) for node in self.nodes])

    def go_on(self, seconds: float) -> None:
        """For so long nothing new breaks: blocks leave and come back, and sites are synced."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.source.leave()
            self.sync_all()
            time.sleep(min(left, TURN))  # how often sites are synced

    def doubled(self) -> None:
        """A plan and batches that nobody planned, each twice with the same id, in another order."""
        blocks = self.rng.sample(self.source.blocks, min(5, len(self.source.blocks)))
        commands: list[Command] = [SyncBlocks(node=self.rng.choice(self.nodes), blocks=[block]) for block in blocks]
        roots = [rooted(command, "bulk") for command in [*commands, SyncSite(node=self.rng.choice(self.nodes))]] * 2
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
    """Longer than a look may be old when a deletion is sent."""
    pause(chaos, chaos.rng.choice(chaos.workers), chaos.main.sweep_within + seconds)


def pause(chaos: Chaos, worker: subprocess.Popen[bytes], seconds: float) -> None:
    """The worker is stopped for so long, and the world goes on without it."""
    worker.send_signal(signal.SIGSTOP)
    try:
        chaos.go_on(seconds)
    finally:
        worker.send_signal(signal.SIGCONT)


def freeze_sweeper(chaos: Chaos, seconds: float) -> None:
    """The worker that has just announced a sweep is stopped: between its look and its deletion, or after it."""
    if worker := sweeper(chaos):
        time.sleep(chaos.rng.uniform(0, 0.2))  # any of the steps that follow
        pause(chaos, worker, chaos.main.sweep_within + seconds)


def kill_sweeper(chaos: Chaos, _seconds: float) -> None:
    """The worker that has just announced a sweep dies, at any of the steps that follow."""
    if worker := sweeper(chaos):
        time.sleep(chaos.rng.uniform(0, 0.3))
        worker.send_signal(signal.SIGKILL)


def sweeper(chaos: Chaos) -> subprocess.Popen[bytes] | None:
    """The worker whose announcement has just appeared in Rucio; any worker where it does not say which."""
    for _ in range(4):
        chaos.source.leave()
    end, value = time.monotonic() + AWAIT, None
    while value is None and time.monotonic() < end:
        chaos.sync_all()
        value = chaos.watcher.announcement(TURN)
    if value is None:
        chaos.injected["no sweep came"] += 1
        return None
    named = [worker for worker in chaos.workers if re.search(rf"\b{worker.pid}\b", value)]
    return chaos.rng.choice(named or chaos.workers)


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
    with chaos.hindered.now():
        chaos.servers.rucio.kill()
        with chaos.outage(System.RUCIO):
            chaos.go_on(seconds)
        chaos.servers.rucio.start()


def stop_postgres(chaos: Chaos, seconds: float) -> None:
    with chaos.hindered.now():
        chaos.servers.rucio.postgres.kill()
        with chaos.outage(System.RUCIO):
            chaos.go_on(seconds)
        chaos.servers.rucio.postgres.start()
    chaos.servers.rucio.restart_daemons()  # as whoever supervises them would: they do not outlive their database


def cut_rucio(chaos: Chaos, _seconds: float) -> None:
    chaos.to_rucio.cut()


def freeze_rucio(chaos: Chaos, seconds: float) -> None:
    chaos.to_rucio.freeze()
    with chaos.outage(System.RUCIO):
        chaos.go_on(seconds)
    chaos.to_rucio.thaw()


def cut_broker(chaos: Chaos, _seconds: float) -> None:
    chaos.to_broker.cut()


def freeze_broker_connections(chaos: Chaos, seconds: float) -> None:
    chaos.to_broker.freeze()
    time.sleep(seconds)
    chaos.to_broker.thaw()


@dataclass
class Liar:
    """PhEDEx misbehaves most of the time, one way after the other, whatever else breaks meanwhile."""

    chaos: Chaos
    rng: random.Random

    def __post_init__(self) -> None:
        """The ways come in any order, each once before one comes again."""
        self._lies = dealt(self.rng, lies())
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="liar", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.chaos.faults_file.write_text("[]")

    def _go_on(self) -> None:
        while not self._ended.wait(self.rng.uniform(0.5, 4)):
            self.lie(next(self._lies), self.rng.uniform(1, LONGEST_LIE))

    def lie(self, lie: Lie, seconds: float) -> None:
        """PhEDEx misbehaves in this way for so long, for all nodes and blocks or for one."""
        where = "" if self.rng.random() < 0.4 else self.rng.choice(self._matches())
        entries = [{"call": call, "kind": lie.kind, "match": where} | self._value(lie.kind) for call in lie.calls]
        self.chaos.faults_file.write_text(json.dumps(entries))
        is_away = lie.kind in MUTE and lie.calls == ("*",) and not where
        with self.chaos.outage(System.PHEDEX) if is_away else nullcontext():
            self._ended.wait(seconds)
        self.chaos.faults_file.write_text("[]")
        self.chaos.injected[f"phedex {lie}"] += 1

    def _matches(self) -> list[str]:
        """Parts of a query: one node's, those about datasets or blocks, those about one block."""
        blocks = [*self.chaos.source.blocks]
        one = [f"block={self.rng.choice(blocks)}"] if blocks else []
        return [f"node={self.rng.choice(self.chaos.nodes)}", "dataset=", "block=", *one]

    def _value(self, kind: str) -> dict[str, object]:
        blocks = [*self.chaos.source.blocks]
        if kind == "delay":
            return {"value": 1.0}
        if kind == "missing_block" and blocks and self.rng.random() < 0.7:
            block = self.rng.choice(blocks)
            return {"value": self.rng.choice([block, block.partition("#")[0]])}
        return {}


Fault = Callable[[Chaos, float], None]
OF_SERVERS: list[Fault] = [
    kill_broker, alarm, freeze_broker, stop_rucio, stop_postgres,
    cut_rucio, freeze_rucio, cut_broker, freeze_broker_connections,
]  # fmt: skip
OF_WORKERS: list[Fault] = [kill_worker, stop_worker, freeze_worker, freeze_sweeper, freeze_sweeper, kill_sweeper]
FAULTS: list[Fault] = [*OF_SERVERS, *OF_WORKERS]
LONGEST = 6.0  # seconds that a fault lasts


def break_things(chaos: Chaos, seconds: float, faults: Sequence[Fault] = FAULTS) -> None:
    """Faults, changes and syncs, for so long."""
    end, dealer = time.monotonic() + seconds, dealt(chaos.rng, faults)
    with Liar(chaos, random.Random(chaos.rng.random())):
        while time.monotonic() < end:
            for _ in range(chaos.rng.randint(1, 4)):
                chaos.source.change()
            chaos.sync_all()
            chaos.doubled()
            fault = next(dealer)
            print(f"{datetime.now(UTC):%T} {fault.__name__}", flush=True)
            fault(chaos, chaos.rng.uniform(1, LONGEST))
            chaos.injected[fault.__name__.replace("_", " ")] += 1
            chaos.tend()
            chaos.go_on(chaos.rng.uniform(0.5, 3))
