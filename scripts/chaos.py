"""Everything breaks for some minutes on real servers; at the end a judge compares, and what was lost is counted.

Meanwhile a colleague and operators work with the same data (scripts/colleague.py, scripts/operators.py), and a watcher
says at once what must not happen (scripts/watching.py).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from common.broker import streams
from common.messages.commands import SyncSite
from common.settings.model import Main, Site
from datasvc.build import Snapshot
from datasvc.serve import running
from phedex_rucio import broker as door
from phedex_rucio.roots import rooted
from scripts.breaking import FAULTS, NODES, Chaos, Fault, Hindered, break_things
from scripts.changing import Source
from scripts.colleague import Colleague
from scripts.ground import Hurried, differences, make_nodes, make_sites, stage
from scripts.heard import Heard, removal_times
from scripts.operators import Operators
from scripts.watching import Watcher, at_rest
from tests.stack import together
from tests.stack.proxy import Proxy

MAIN: dict[str, object] = {
    "wait_delays": [1, 2, 4], "attempts": 15, "heartbeat": 2, "probe_pause": 0.5, "probe_pause_max": 2, "grace": 10,
    "phedex_timeout": 4, "phedex_tries": 2, "rucio_timeout": 10, "confirm_timeout": 5, "blocked_timeout": 5,
    "nowhere_apart": 2, "announcement_lifetime": 20,
}  # fmt: skip
SITE: dict[str, object] = {
    "chunck": 30, "batch_blocks": 5, "max_removal_share": 1, "hold_unknown": False, "hold_nowhere": False,
    "removal_grace": 3,
}  # fmt: skip
BUSY = 2.0  # seconds that a request may take to reach Rucio's database on a machine that does all of this at once


@dataclass(frozen=True)
class Terms:
    """How large a run is: sites, changes to begin with, seconds of faults and which, and the limit for the end.

    `limit`: seconds in which at least one more cycle finishes, and for all differences to go: after that they count as
    lost. `pace`: seconds between two acts of the operators; the colleague is three times as fast. `fresh`: seconds
    between two starts of Rucio's daemons at the end.
    """

    seconds: float = 600
    nodes: Sequence[str] = NODES
    changes: int = 30
    faults: Sequence[Fault] = field(default_factory=lambda: FAULTS)
    limit: float = 600
    pace: tuple[float, float] = (1.0, 3.0)
    fresh: float = 20


def settings_text(main: Mapping[str, object] = MAIN, site: Mapping[str, object] = SITE) -> str:
    """The settings file (JSON is YAML), without what this version does not know."""
    sections = {"main": _known(main, Main), "default": _known(site, Site)}
    return json.dumps(sections)


def _known(values: Mapping[str, object], model: type[msgspec.Struct]) -> dict[str, object]:
    fields = {one.encode_name for one in msgspec.structs.fields(model)}
    return {name: value for name, value in values.items() if name in fields}


# --- the run ------------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """The chaos and the people in it."""

    chaos: Chaos
    terms: Terms
    colleague: Colleague
    operators: Operators

    @property
    def nodes(self) -> Sequence[str]:
        return self.terms.nodes

    def start_others(self) -> None:
        self.colleague.start()
        self.operators.start()

    def others_rest(self) -> None:
        """The colleague and the operators have taken back what they did, and do nothing any more."""
        self.colleague.stop()
        self.operators.stop()
        self.operators.put_back()
        self.colleague.put_back()


def finished(run: Run) -> Heard:
    """What was heard once every cycle that was asked for is finished, or when for the limit none has finished."""
    chaos, heard = run.chaos, Heard()
    still, deadline = len(chaos.asked), time.monotonic() + run.terms.limit
    with streams.attach(chaos.main, "first", "chaos") as stream:
        for event in stream.until(math.inf):
            if event is not None:
                heard.take(event)
                if time.monotonic() < deadline:
                    continue
            left = len(heard.open(chaos.asked))
            if left and left < still:
                still, deadline = left, time.monotonic() + run.terms.limit
            elif not left or time.monotonic() > deadline:
                break
            else:
                chaos.tend()
    return heard


def settle_down(run: Run) -> tuple[Heard, list[str]]:
    """Syncs until nothing differs, or for the limit; what was heard, and what still differs or is not at rest.

    A cycle may come too early for the grace of a mark or for Rucio's own daemons: then the next one finds the rest.
    What needs a person is approved.
    """
    chaos = run.chaos
    chaos.tend()
    run.others_rest()
    chaos.source.rest()
    heard, deadline, hurried = (
        finished(run),
        time.monotonic() + run.terms.limit,
        Hurried(chaos.servers, run.terms.fresh),
    )
    while True:
        chaos.tend()
        chaos.sync_all(deep=True)
        heard = finished(run)
        hurried()
        if not heard.open(chaos.asked):  # else somebody still writes
            run.colleague.reap()
        approved = run.operators.approve_all()
        found = differences(chaos.servers, chaos.phedex, run.nodes) + at_rest(chaos.servers.rucio.sql)
        print(f"quiet: {len(heard.open(chaos.asked))} cycles open, {len(found)} differences, {approved} approvals")
        print("".join(f"    {line}\n" for line in found[:3]), end="", flush=True)
        if (not found and not approved) or heard.open(chaos.asked) or time.monotonic() > deadline:
            return heard, found


@dataclass(frozen=True)
class Figures:
    """What a run came to: all but the first two must be empty, and so must be `dead` and `watched`."""

    injected: dict[str, int]
    told: list[str]
    differences: list[str]
    lost: list[str]
    wrong: list[str]
    wasted: list[str]
    dead: list[str]
    watched: list[str]

    @property
    def is_good(self) -> bool:
        return not (self.differences or self.lost or self.wrong or self.wasted or self.dead or self.watched)


def figures(run: Run, heard: Heard, found: list[str]) -> Figures:
    chaos = run.chaos
    swept = sum(len(closed.names["swept"]) for closed in heard.swept)
    counted = Counter(event.error.class_ for event in heard.retrying)
    times = removal_times(chaos.log.read_text(errors="replace"))
    return Figures(
        injected=dict(sorted(chaos.injected.items())),
        told=[
            f"changes in PhEDEx: {chaos.source.changes}; cycles: {len(chaos.asked)}; blocks swept: {swept}",
            f"attempts that counted: {counted.total()} {dict(counted)}; outages: {len(chaos.outages)}",
            f"worker exit codes: {dict(chaos.codes)}",
            f"the colleague: {dict(sorted(run.colleague.did.items()))}",
            f"the operators: {dict(sorted(run.operators.did.items()))}",
            f"replicas deleted: {chaos.watcher.deleted}; seen too late to be known: {dict(chaos.watcher.apart)}",
            f"deletions: {times.number}; from the look to the sending at most {times.sending:.3f} s, "
            f"to the answer {times.answer:.3f} s",
        ],
        differences=found,
        lost=heard.open(chaos.asked),
        wrong=[line for closed in heard.swept for line in chaos.source.wrong(closed)],
        wasted=heard.wasted(chaos.outages),
        dead=heard.dead(),
        watched=[str(fault) for fault in chaos.watcher.faults],
    )


def report(figures: Figures) -> None:
    print(f"\nfaults injected: {sum(figures.injected.values())}")
    for name, number in figures.injected.items():
        print(f"  {number:4} {name}")
    print("\n".join(figures.told))
    print(summary(figures))
    parts = (figures.differences, figures.lost, figures.wrong, figures.wasted, figures.dead, figures.watched)
    for part in parts:
        print("".join(f"  {line}\n" for line in part[:10]), end="")


def summary(figures: Figures) -> str:
    """All that must be 0, in a line."""
    return (
        f"differences: {len(figures.differences)}; messages lost: {len(figures.lost)}; "
        f"dead letters: {len(figures.dead)}; wrong removals: {len(figures.wrong)}; "
        f"attempts wasted on outages: {len(figures.wasted)}; said by the watcher: {len(figures.watched)}"
    )


# --- setting up ---------------------------------------------------------------------------------------------------


def play(servers: together.Servers, folder: Path, seed: int, terms: Terms) -> Figures:
    """Faults for so long, then quiet until all is equal; what it came to. The workers' log is in the folder."""
    with world(servers, folder, seed, terms) as run:
        for _ in range(terms.changes):
            run.chaos.source.change()
        run.chaos.tend()
        run.chaos.sync_all()
        finished(run)
        run.start_others()
        break_things(run.chaos, terms.seconds, terms.faults)
        heard, found = settle_down(run)
        run.chaos.watcher.caught_up()
        return figures(run, heard, found)


@contextmanager
def world(servers: together.Servers, folder: Path, seed: int, terms: Terms) -> Iterator[Run]:
    """PhEDEx, the proxies, the people and the workers' settings are there; afterwards nothing of it runs."""
    with ExitStack() as stack:
        rng, nodes = random.Random(seed), terms.nodes
        faults = folder / "faults.json"
        faults.write_text("[]")
        (folder / "settings.yaml").write_text(settings_text())
        snapshot = stack.enter_context(Snapshot(folder / "phedex.sqlite"))
        make_nodes(snapshot, nodes)
        url = stack.enter_context(running(folder / "phedex.sqlite", faults))
        to_rucio = stack.enter_context(Proxy(servers.rucio.port))
        to_broker = stack.enter_context(Proxy(urlsplit(servers.amqp_url).port or 0))
        make_sites(servers, nodes)
        env = os.environ | servers.rucio.client_environment(url=f"http://127.0.0.1:{to_rucio.port}")
        broker_url = servers.amqp_url.replace(f":{urlsplit(servers.amqp_url).port}", f":{to_broker.port}")
        env |= {"AMQP_URL": broker_url, "PHEDEX_URL": url, "PHEDEX_RUCIO_CONFIG": str(folder / "settings.yaml")}
        hindered, log = Hindered(), folder / "workers.log"
        within = msgspec.convert(_known(MAIN, Main), Main).sweep_within + BUSY
        watcher = Watcher(servers.rucio.postgres.folder, snapshot.path, within=within, held_up=hindered.seconds)
        colleague = Colleague(servers.rucio, watcher, random.Random(seed + 1))
        stack.enter_context(watcher)
        stack.callback(colleague.stop)
        source = Source(snapshot, nodes, rng)
        chaos = Chaos(
            rng, servers, source, url, faults, to_rucio, to_broker, env, log, watcher, nodes, hindered=hindered
        )
        door.declare(chaos.main)

        def two_plans(node: str) -> None:
            chaos.publish([rooted(SyncSite(node=node), "bulk") for _ in range(2)])

        operators = Operators(
            servers.rucio, watcher, random.Random(seed + 2), env, folder / "operators.log", chaos.main, nodes, two_plans
        )
        operators.pause, colleague.pause = terms.pace, (terms.pace[0] / 3, terms.pace[1] / 3)
        stack.callback(operators.close)
        try:
            yield Run(chaos, terms, colleague, operators)
        finally:
            for worker in chaos.workers:
                worker.kill()
                worker.wait()


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep-log", type=Path, help="where the workers' log goes")
    options = parser.parse_args()
    with stage("chaos", options.minutes, options.seed) as (servers, folder):
        found = play(servers, folder, options.seed, Terms(seconds=60 * options.minutes))
        if options.keep_log:
            options.keep_log.write_bytes((folder / "workers.log").read_bytes())
    report(found)
    return 0 if found.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
