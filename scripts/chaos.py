"""Everything breaks for some minutes on real servers; at the end a judge compares, and what was lost is counted."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from common import cycles
from common.broker import streams
from common.errors import BrokerError
from common.messages.commands import Command, SyncBlocks, SyncSite
from common.messages.events import Closed, Event, Retrying
from common.settings import load
from datasvc.build import Snapshot
from datasvc.serve import running
from phedex_rucio import broker as door
from phedex_rucio.roots import rooted
from scripts.changing import Source
from tests import checker
from tests.stack import together
from tests.stack.proxy import Proxy
from tests.stack.world import make_site, sync_account

NODES = ("T2_IT_Pisa", "T2_US_MIT", "T2_DE_DESY", "T2_ES_CIEMAT")
PROGRAM = [sys.executable, "-m", "phedex_rucio.main"]
WORKERS = 3
ROUNDS = 12
SETTINGS = """
main: {wait_delays: [1, 2, 4], attempts: 8, heartbeat: 2, probe_pause: 0.5, probe_pause_max: 2, grace: 10,
       phedex_timeout: 4, phedex_tries: 2, rucio_timeout: 10, confirm_timeout: 5, blocked_timeout: 5}
default: {chunck: 30, batch_blocks: 5, max_removal_share: 1, hold_unknown: false, removal_grace: 3, allow_clean: true}
"""
PHEDEX_FAULTS = ("status", "login", "truncated", "torn", "no_call_time", "error_document", "other_rows")
PHEDEX_FAULTS += ("other_instance", "other_call", "stale", "freeze", "delay")


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

    def tend(self) -> None:
        """So many workers run as should."""
        for worker in [w for w in self.workers if w.poll() is not None]:
            self.workers.remove(worker)
            self.codes[worker.returncode] += 1
        while len(self.workers) < WORKERS:
            with self.log.open("ab") as log:
                self.workers.append(
                    subprocess.Popen([*PROGRAM, "worker", "--threads", "3"], env=self.env, stdout=log, stderr=log)
                )

    def send(self, commands: list[Command]) -> None:
        """The commands are sent, if the broker lets us: a sender that fails is told so and tries again later."""
        roots = [rooted(command, "bulk") for command in commands]
        with suppress(BrokerError):
            door.publish(self.main, roots)
            self.asked += [root.meta.cycle for root in roots]

    @property
    def main(self) -> load.Main:
        return load.load(environ={"AMQP_URL": self.servers.amqp_url, **_settings(self.env)}).settings.main

    def sync_all(self, *, deep: bool = False) -> None:
        self.send([SyncSite(node=node, deep=deep) for node in NODES])

    def doubled(self) -> None:
        """Batches that nobody planned, each twice, in another order: they may only add what is there."""
        blocks = self.rng.sample(self.source.blocks, min(5, len(self.source.blocks)))
        commands: list[Command] = [SyncBlocks(node=self.rng.choice(NODES), blocks=[block]) for block in blocks * 2]
        self.rng.shuffle(commands)
        self.send(commands)
        self.injected["doubled and reordered messages"] += len(commands)


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
    time.sleep(seconds)
    chaos.servers.rucio.start()


def stop_postgres(chaos: Chaos, seconds: float) -> None:
    chaos.servers.rucio.postgres.kill()
    time.sleep(seconds)
    chaos.servers.rucio.postgres.start()


def cut_rucio(chaos: Chaos, _seconds: float) -> None:
    chaos.to_rucio.cut()


def freeze_rucio(chaos: Chaos, seconds: float) -> None:
    chaos.to_rucio.freeze()
    time.sleep(seconds)
    chaos.to_rucio.thaw()


def cut_broker(chaos: Chaos, _seconds: float) -> None:
    chaos.to_broker.cut()


def phedex(chaos: Chaos, seconds: float) -> None:
    """PhEDEx misbehaves in one of its ways, in all calls or in one."""
    kind = chaos.rng.choice(PHEDEX_FAULTS)
    call = chaos.rng.choice(["*", "blockreplicas", "filereplicas", "data"])
    value = {"delay": 1.0}.get(kind)
    entry = {"call": call, "kind": kind} | ({"value": value} if value else {})
    chaos.faults_file.write_text(json.dumps([entry]))
    time.sleep(seconds)
    chaos.faults_file.write_text("[]")
    chaos.injected[f"phedex {kind}"] += 1


FAULTS: list[Callable[[Chaos, float], None]] = [
    kill_worker, kill_worker, stop_worker, freeze_worker, kill_broker, alarm, freeze_broker, stop_rucio, stop_postgres,
    cut_rucio, freeze_rucio, cut_broker, cut_broker, phedex, phedex, phedex, phedex,
]  # fmt: skip


def break_things(chaos: Chaos, minutes: float) -> None:
    """Faults, changes and syncs, for so long."""
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        for _ in range(chaos.rng.randint(1, 4)):
            chaos.source.change()
        chaos.sync_all()
        chaos.doubled()
        fault = chaos.rng.choice(FAULTS)
        fault(chaos, chaos.rng.uniform(1, 6))
        if fault is not phedex:
            chaos.injected[fault.__name__.replace("_", " ")] += 1
        chaos.tend()
        time.sleep(chaos.rng.uniform(0.5, 3))  # the pace of the faults, not a wait for anything


# --- the end ------------------------------------------------------------------------------------------------------


@dataclass
class Heard:
    """What the events say of the whole run, and the removals that they tell of."""

    state: cycles.Cycles = field(default_factory=cycles.Cycles)
    retrying: Counter[str] = field(default_factory=Counter)
    swept: list[Closed] = field(default_factory=list)

    def take(self, event: Event) -> None:
        cycles.apply(self.state, event)
        if isinstance(event, Retrying):
            self.retrying[event.error.class_] += 1
        if isinstance(event, Closed) and event.names.get("swept"):
            self.swept.append(event)

    def open(self, asked: list[str]) -> list[str]:
        return [name for name in asked if name not in self.state.by_name or not self.state.by_name[name].finished]

    def dead(self) -> int:
        return sum(
            closed.outcome == "dead" for cycle in self.state.by_name.values() for closed in cycle.closed.values()
        )


def finished(chaos: Chaos, limit: float) -> Heard:
    """What was heard once every cycle that was asked for is finished, or the limit (seconds) is over."""
    heard, deadline = Heard(), time.monotonic() + limit
    with streams.attach(chaos.main, "first", "chaos") as stream:
        for event in stream.until(deadline):
            if event is not None:
                heard.take(event)
            elif not heard.open(chaos.asked):
                break
    return heard


def settle_down(chaos: Chaos) -> tuple[Heard, list[str]]:
    """Syncs until nothing differs, at most so many; what was heard, and what still differs."""
    found = ["nothing was compared"]
    heard = finished(chaos, 120)
    for _ in range(ROUNDS):
        chaos.sync_all(deep=True)
        heard = finished(chaos, 120)
        time.sleep(3)  # the grace of a mark, and Rucio's own daemons, take their time
        found = differences(chaos)
        if not found:
            break
    return heard, found


def differences(chaos: Chaos) -> list[str]:
    sites = {node: checker.expected(chaos.phedex, node, node, sync_account(node)) for node in NODES}
    return checker.differences(checker.read_tables(chaos.servers.rucio.sql), sites)


def report(chaos: Chaos, heard: Heard, found: list[str]) -> int:
    """The figures; 0 where nothing differs, nothing was lost, and nothing was wrongly removed."""
    wrong = [line for closed in heard.swept for line in chaos.source.wrong(closed)]
    lost = heard.open(chaos.asked)
    print(f"\nfaults injected: {sum(chaos.injected.values())}")
    for name, number in sorted(chaos.injected.items()):
        print(f"  {number:4} {name}")
    swept = sum(len(closed.names["swept"]) for closed in heard.swept)
    print(f"changes in PhEDEx: {chaos.source.changes}; cycles: {len(chaos.asked)}; blocks swept: {swept}")
    print(f"attempts that counted: {sum(heard.retrying.values())} {dict(heard.retrying)}")
    print(f"worker exit codes: {dict(chaos.codes)}")
    print(f"differences: {len(found)}; messages lost: {len(lost)}")
    print(f"dead letters: {heard.dead()}; wrong removals: {len(wrong)}")
    for line in [*found[:10], *wrong[:10], *lost[:10]]:
        print(f"  {line}")
    return 1 if found or wrong or lost or heard.dead() else 0


# --- setting up ---------------------------------------------------------------------------------------------------


@contextmanager
def world(seed: int) -> Iterator[Chaos]:
    """All of it runs; afterwards none of it does."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="phedex-rucio-chaos-")))
        servers = stack.enter_context(together.servers())
        rng = random.Random(seed)
        faults = folder / "faults.json"
        faults.write_text("[]")
        (folder / "settings.yaml").write_text(SETTINGS)
        snapshot = stack.enter_context(Snapshot(folder / "phedex.sqlite"))
        source = Source(snapshot, NODES, rng)
        url = stack.enter_context(running(folder / "phedex.sqlite", faults))
        to_rucio = stack.enter_context(Proxy(servers.rucio.port))
        to_broker = stack.enter_context(Proxy(urlsplit(servers.amqp_url).port or 0))
        _sites(servers)
        env = os.environ | servers.rucio.client_environment(url=f"http://127.0.0.1:{to_rucio.port}")
        broker_url = servers.amqp_url.replace(f":{urlsplit(servers.amqp_url).port}", f":{to_broker.port}")
        env |= {"AMQP_URL": broker_url, "PHEDEX_URL": url, "PHEDEX_RUCIO_CONFIG": str(folder / "settings.yaml")}
        chaos = Chaos(rng, servers, source, url, faults, to_rucio, to_broker, env, folder / "workers.log")
        door.declare(chaos.main)
        try:
            yield chaos
        finally:
            for worker in chaos.workers:
                worker.kill()
                worker.wait()


def _sites(servers: together.Servers) -> None:
    client = servers.rucio.client()
    for node in NODES:
        make_site(client, node)
    servers.rucio.close_clients()
    for daemon in ("judge-evaluator", "judge-cleaner"):
        servers.rucio.start_daemon(daemon)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep-log", type=Path, help="where the workers' log goes")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(f"{options.minutes:g} minutes, seed {options.seed}", flush=True)
    threading.current_thread().name = "chaos"
    with world(options.seed) as chaos:
        for _ in range(30):
            chaos.source.change()
        chaos.tend()
        break_things(chaos, options.minutes)
        chaos.tend()
        heard, found = settle_down(chaos)
        if options.keep_log:
            options.keep_log.write_bytes(chaos.log.read_bytes())
        return report(chaos, heard, found)


if __name__ == "__main__":
    sys.exit(main())
