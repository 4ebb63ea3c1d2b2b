"""Do sites keep coming back in sync by themselves? Two schedulers, three workers, ten sites, and a PhEDEx that changes.

Every minute a worker and a scheduler, the active one at every second time, are killed and started again. Nobody sends
a command but the schedulers.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from common.broker import streams
from common.broker.standing import standing
from common.broker.topology import dead_name
from common.messages.commands import KINDS
from common.settings import load
from common.settings.model import Main
from datasvc.build import Snapshot
from datasvc.serve import running
from phedex_rucio import broker as door
from scripts.changing import Source
from scripts.ground import Every, Hurried, differences, make_nodes, make_sites, stage, start
from scripts.heard import Heard, Turns
from tests.stack import together

NODES: tuple[str, ...] = ("T2_IT_Pisa", "T2_US_MIT", "T2_DE_DESY", "T2_ES_CIEMAT", "T2_FR_IPHC")
NODES += ("T2_UK_London_IC", "T2_CH_CERN", "T2_BE_IIHE", "T2_US_Nebraska", "T2_HU_Budapest")
DATASETS = "/Primary*/Run2018A-v1/AOD"
LIMIT = 600.0  # seconds for what differs to go, and for open cycles to end: after that they count as lost
SCHEDULERS, WORKERS = 2, 3
# A cycle never counts as stalled here: one that is lost is to be seen as lost.
SETTINGS = """
main: {{wait_delays: [1, 2, 4], attempts: 8, heartbeat: 2, probe_pause: 0.5, probe_pause_max: 2, grace: 10,
       phedex_timeout: 30, rucio_timeout: 60, confirm_timeout: 10, sleep: 2, jitter: 2, stalled_after: 86400,
       nowhere_apart: 3, announcement_lifetime: 20}}
default: {{chunck: 30, batch_blocks: 10, max_removal_share: 1, hold_unknown: false, hold_nowhere: false,
          removal_grace: 3}}
datasets:
  - {{dataset: "{datasets}", every: {seldom}}}
"""
SITE = "{node}: {{every: {every}, deep: {deep}}}\n"


@dataclass(frozen=True)
class Terms:
    """Seconds: between two turns of a site, two deep ones, two rounds of kills, two changes in PhEDEx; and what is too
    long for a site without a finished cycle, and for the schedulers without a lease.
    """

    every: int = 20
    deep: int = 120
    kill: float = 60
    change: float = 0.7
    most_gap: float = 200
    most_takeover: float = 30


@dataclass
class Fleet:
    """The processes, and who was killed when while holding the lease."""

    rng: random.Random
    env: dict[str, str]
    log: Path
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    schedulers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    kills: int = 0
    dethroned: list[tuple[str, datetime]] = field(default_factory=list)

    def tend(self) -> None:
        """So many run as should."""
        for role, running_ones, number in (
            ("worker", self.workers, WORKERS),
            ("scheduler", self.schedulers, SCHEDULERS),
        ):
            running_ones[:] = [process for process in running_ones if process.poll() is None]
            while len(running_ones) < number:
                running_ones.append(start([role], self.env, self.log))

    def kill_some(self, active: str) -> None:
        """A worker is killed, and a scheduler: the active one and another in turns."""
        self._kill(self.rng.choice(self.workers))
        held = [process for process in self.schedulers if name_of(process) == active]
        others = [process for process in self.schedulers if process not in held]
        victim = next(iter((held or others) if self.kills % 4 == 1 else (others or held)))
        if victim in held:
            self.dethroned.append((active, datetime.now(UTC)))
        self._kill(victim)
        self.tend()

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        self.kills += 1

    def end_schedulers(self) -> None:
        """Nothing new is planned any more."""
        for process in self.schedulers:
            process.terminate()
        for process in self.schedulers:
            process.wait()

    def close(self) -> None:
        """Nothing of it runs."""
        for process in (*self.workers, *self.schedulers):
            process.kill()
            process.wait()


def name_of(process: subprocess.Popen[bytes]) -> str:
    """What a scheduler calls itself."""
    return f"{socket.gethostname()}-{process.pid}"


@dataclass
class Endurance:
    """The servers, the processes, the changing PhEDEx, and what the events tell."""

    servers: together.Servers
    phedex: str
    main: Main
    source: Source
    fleet: Fleet
    terms: Terms
    heard: Heard = field(default_factory=Heard)
    turns: Turns = field(default_factory=Turns)

    def listen(self, stream: streams.EventStream, seconds: float, moment: Callable[[], bool]) -> bool:
        """The events are taken in until `moment`, asked after each and each second, says so; False if it is over."""
        for event in stream.until(time.monotonic() + seconds):
            if event is not None:
                self.heard.take(event)
                self.turns.take(event, self.heard.state)
            if moment():
                return True
        return False

    @property
    def active(self) -> str:
        """Who got the lease last."""
        return self.turns.marks[-1][1] if self.turns.marks else ""

    def differences(self) -> list[str]:
        return differences(self.servers, self.phedex, NODES)

    def dead(self) -> int:
        """Dead letters by the events and by the queues."""
        queues = standing(self.main).queues
        lying = sum(queues[dead_name(kind)].ready for kind in KINDS if dead_name(kind) in queues)
        return max(lying, len(self.heard.dead()))


@dataclass(frozen=True)
class Figures:
    """What a run came to: all lists and `dead` must be empty, and what took longest within its limit."""

    told: list[str]
    wrong: list[str]
    takeovers: list[timedelta]
    gap: timedelta
    kills: int
    dead: int

    @property
    def is_good(self) -> bool:
        return not (self.wrong or self.dead)


def play(servers: together.Servers, folder: Path, seed: int, minutes: float, terms: Terms) -> Figures:
    """Changes and kills for so many minutes, then quiet until all is equal; what it came to."""
    with world(servers, folder, seed, terms) as run, streams.attach(run.main, "first", "endure") as stream:
        for _ in range(40):
            run.source.change()
        run.fleet.tend()
        run.listen(stream, LIMIT, lambda: all(run.turns.ends[node] for node in NODES))
        begun = datetime.now(UTC)
        change_and_kill(run, stream, 60 * minutes)
        until = datetime.now(UTC)
        found = settle_down(run, stream)
        return figures(run, found, begun, until)


def change_and_kill(run: Endurance, stream: streams.EventStream, seconds: float) -> None:
    """For so long PhEDEx changes and processes die."""
    change, kill = Every(run.terms.change), Every(run.terms.kill)

    def moment() -> bool:
        if change():
            run.source.change()
        if kill():
            run.fleet.kill_some(run.active)
            print(f"{datetime.now(UTC):%T} {run.fleet.kills} kills, {len(run.turns.asked)} cycles", flush=True)
        return False

    run.listen(stream, seconds, moment)


def settle_down(run: Endurance, stream: streams.EventStream) -> list[str]:
    """PhEDEx rests: the schedulers make all equal by themselves, then end; what still differs when all cycles ended."""
    run.source.rest()
    look, hurried = Every(2), Hurried(run.servers)

    def is_equal() -> bool:
        hurried()
        return not run.differences()

    run.listen(stream, LIMIT, lambda: look() and is_equal())
    run.fleet.end_schedulers()
    run.listen(stream, LIMIT, lambda: look() and not run.heard.open(run.turns.asked))
    return run.differences()


def figures(run: Endurance, found: list[str], begun: datetime, until: datetime) -> Figures:
    turns, heard = run.turns, run.heard
    gap, node = turns.largest_gap(NODES, begun, until)
    times = [turns.takeover(name, at) for name, at in run.fleet.dethroned]
    takeovers = [time for time in times if time is not None]
    wrong = [f"differs: {line}" for line in found]
    wrong += [f"lost: {cycle}" for cycle in heard.open(turns.asked)]
    wrong += [f"doubled: {line}" for line in turns.doubled]
    wrong += [line for closed in heard.swept for line in run.source.wrong(closed)]
    wrong += [
        f"no scheduler took over from {name}" for (name, _), t in zip(run.fleet.dethroned, times, strict=True) if not t
    ]
    wrong += [f"a takeover took {time}" for time in takeovers if time > timedelta(seconds=run.terms.most_takeover)]
    wrong += [f"{node} had no finished cycle for {gap}"] if gap > timedelta(seconds=run.terms.most_gap) else []
    ends = [len(turns.ends[one]) for one in NODES]
    swept = sum(len(closed.names["swept"]) for closed in heard.swept)
    slowest = max(takeovers, default=timedelta())
    told = [
        f"changes in PhEDEx: {run.source.changes}; cycles: {len(turns.asked)}; a site had {min(ends)} to {max(ends)}",
        f"processes killed: {run.fleet.kills}; blocks swept: {swept}; attempts that counted: {len(heard.retrying)}",
        f"longest time without a finished cycle: {gap.total_seconds():.1f} s ({node}), every {run.terms.every} s",
        f"takeovers of the lease: {len(takeovers)}, the slowest {slowest.total_seconds():.1f} s",
        f"asked for while a finished cycle was open again: {len(turns.reopened)}",
        f"differences: {len(found)}; cycles lost: {len(heard.open(turns.asked))}; two at once: {len(turns.doubled)}",
    ]
    return Figures(told, wrong, takeovers, gap, run.fleet.kills, run.dead())


def report(figures: Figures) -> None:
    print("\n".join(["", *figures.told, f"dead letters: {figures.dead}; wrong: {len(figures.wrong)}"]))
    print("".join(f"  {line}\n" for line in figures.wrong[:20]), end="")


@contextmanager
def world(servers: together.Servers, folder: Path, seed: int, terms: Terms) -> Iterator[Endurance]:
    """PhEDEx, the sites and the settings are there; afterwards nothing of it runs."""
    with ExitStack() as stack:
        rng = random.Random(seed)
        settings = folder / "settings.yaml"
        sites = "".join(SITE.format(node=node, every=terms.every, deep=terms.deep) for node in NODES)
        settings.write_text(SETTINGS.format(datasets=DATASETS, seldom=2 * terms.every) + sites)
        snapshot = stack.enter_context(Snapshot(folder / "phedex.sqlite"))
        make_nodes(snapshot, NODES)
        url = stack.enter_context(running(folder / "phedex.sqlite"))
        make_sites(servers, NODES)
        ours = {"AMQP_URL": servers.amqp_url, "PHEDEX_URL": url, "PHEDEX_RUCIO_CONFIG": str(settings)}
        main = load.load(environ=ours).settings.main
        door.declare(main)
        fleet = Fleet(rng, os.environ | servers.rucio.client_environment() | ours, folder / "log")
        stack.callback(fleet.close)
        yield Endurance(servers, url, main, Source(snapshot, NODES, rng, with_person=False), fleet, terms)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/endure", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument(
        "--most-gap", type=float, default=200, help="seconds that a site may be without a finished cycle"
    )
    parser.add_argument("--keep-log", type=Path, help="where the log of all processes goes")
    options = parser.parse_args()
    with stage("endure", options.minutes, options.seed) as (servers, folder):
        found = play(servers, folder, options.seed, options.minutes, Terms(most_gap=options.most_gap))
        if options.keep_log:
            options.keep_log.write_bytes((folder / "log").read_bytes())
    report(found)
    return 0 if found.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
