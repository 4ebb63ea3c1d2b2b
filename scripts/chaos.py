"""Everything breaks for some minutes on real servers; at the end a judge compares, and what was lost is counted."""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from common.broker import streams
from datasvc.build import Snapshot
from datasvc.serve import running
from phedex_rucio import broker as door
from scripts.breaking import NODES, Chaos, break_things
from scripts.changing import Source
from scripts.ground import Hurried, differences, make_nodes, make_sites, stage
from scripts.heard import Heard
from tests.stack import together
from tests.stack.proxy import Proxy

LIMIT = 600.0  # seconds for all cycles to finish, and for all differences to go: after that they count as lost
SETTINGS = """
main: {wait_delays: [1, 2, 4], attempts: 8, heartbeat: 2, probe_pause: 0.5, probe_pause_max: 2, grace: 10,
       phedex_timeout: 4, phedex_tries: 2, rucio_timeout: 10, confirm_timeout: 5, blocked_timeout: 5}
default: {chunck: 30, batch_blocks: 5, max_removal_share: 1, hold_unknown: false, removal_grace: 3}
"""


# --- the end ------------------------------------------------------------------------------------------------------


def finished(chaos: Chaos, limit: float) -> Heard:
    """What was heard once every cycle that was asked for is finished, or the limit (seconds) is over."""
    heard, deadline = Heard(), time.monotonic() + limit
    with streams.attach(chaos.main, "first", "chaos") as stream:
        for event in stream.until(deadline):
            if event is not None:
                heard.take(event)
            elif not heard.open(chaos.asked):
                break
            else:
                chaos.tend()
    return heard


def settle_down(chaos: Chaos) -> tuple[Heard, list[str]]:
    """Syncs until nothing differs, or for the limit; what was heard, and what still differs.

    A cycle may come too early for the grace of a mark or for Rucio's own daemons: then the next one finds the rest.
    """
    chaos.source.rest()
    heard, deadline, hurried = finished(chaos, LIMIT), time.monotonic() + LIMIT, Hurried(chaos.servers)
    while True:
        chaos.tend()
        chaos.sync_all(deep=True)
        heard = finished(chaos, LIMIT)
        hurried()
        found = differences(chaos.servers, chaos.phedex, NODES)
        print(f"quiet: {len(heard.open(chaos.asked))} cycles open, {len(found)} differences", flush=True)
        if not found or heard.open(chaos.asked) or time.monotonic() > deadline:
            return heard, found


@dataclass(frozen=True)
class Figures:
    """What a run came to: all but the first two lists must be empty, and so must be `dead`."""

    injected: dict[str, int]
    told: list[str]
    differences: list[str]
    lost: list[str]
    wrong: list[str]
    wasted: list[str]
    dead: list[str]

    @property
    def is_good(self) -> bool:
        return not (self.differences or self.lost or self.wrong or self.wasted or self.dead)


def figures(chaos: Chaos, heard: Heard, found: list[str]) -> Figures:
    swept = sum(len(closed.names["swept"]) for closed in heard.swept)
    counted = Counter(event.error.class_ for event in heard.retrying)
    return Figures(
        injected=dict(sorted(chaos.injected.items())),
        told=[
            f"changes in PhEDEx: {chaos.source.changes}; cycles: {len(chaos.asked)}; blocks swept: {swept}",
            f"attempts that counted: {counted.total()} {dict(counted)}; outages: {len(chaos.outages)}",
            f"worker exit codes: {dict(chaos.codes)}",
        ],
        differences=found,
        lost=heard.open(chaos.asked),
        wrong=[line for closed in heard.swept for line in chaos.source.wrong(closed)],
        wasted=heard.wasted(chaos.outages),
        dead=heard.dead(),
    )


def report(figures: Figures) -> None:
    print(f"\nfaults injected: {sum(figures.injected.values())}")
    for name, number in figures.injected.items():
        print(f"  {number:4} {name}")
    print("\n".join(figures.told))
    print(f"differences: {len(figures.differences)}; messages lost: {len(figures.lost)}", end="; ")
    print(f"dead letters: {len(figures.dead)}")
    print(f"wrong removals: {len(figures.wrong)}; attempts wasted on outages: {len(figures.wasted)}")
    for part in (figures.differences, figures.lost, figures.wrong, figures.wasted, figures.dead):
        print("".join(f"  {line}\n" for line in part[:10]), end="")


# --- setting up ---------------------------------------------------------------------------------------------------


def play(servers: together.Servers, folder: Path, seed: int, minutes: float) -> Figures:
    """Faults for so many minutes, then quiet until all is equal; what it came to. The workers' log is in the folder."""
    with world(servers, folder, seed) as chaos:
        for _ in range(30):
            chaos.source.change()
        chaos.tend()
        break_things(chaos, minutes)
        heard, found = settle_down(chaos)
        return figures(chaos, heard, found)


@contextmanager
def world(servers: together.Servers, folder: Path, seed: int) -> Iterator[Chaos]:
    """PhEDEx, the proxies and the workers' settings are there; afterwards nothing of it runs."""
    with ExitStack() as stack:
        rng = random.Random(seed)
        faults = folder / "faults.json"
        faults.write_text("[]")
        (folder / "settings.yaml").write_text(SETTINGS)
        snapshot = stack.enter_context(Snapshot(folder / "phedex.sqlite"))
        make_nodes(snapshot, NODES)
        url = stack.enter_context(running(folder / "phedex.sqlite", faults))
        to_rucio = stack.enter_context(Proxy(servers.rucio.port))
        to_broker = stack.enter_context(Proxy(urlsplit(servers.amqp_url).port or 0))
        make_sites(servers, NODES)
        env = os.environ | servers.rucio.client_environment(url=f"http://127.0.0.1:{to_rucio.port}")
        broker_url = servers.amqp_url.replace(f":{urlsplit(servers.amqp_url).port}", f":{to_broker.port}")
        env |= {"AMQP_URL": broker_url, "PHEDEX_URL": url, "PHEDEX_RUCIO_CONFIG": str(folder / "settings.yaml")}
        source = Source(snapshot, NODES, rng)
        chaos = Chaos(rng, servers, source, url, faults, to_rucio, to_broker, env, folder / "workers.log")
        door.declare(chaos.main)
        try:
            yield chaos
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
        found = play(servers, folder, options.seed, options.minutes)
        if options.keep_log:
            options.keep_log.write_bytes((folder / "workers.log").read_bytes())
    report(found)
    return 0 if found.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
