"""Many short histories: a small world each in which everybody acts and PhEDEx lies; then rest, a judge and the watcher.

What scripts/chaos does for long with everything, this does many times with little: two or three sites, some ten blocks,
a colleague and operators in a hurry, replies that lie, workers that are stopped and killed between looking and
deleting. A line each; a history is repeated by its own seed with `--number 1`.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from dataclasses import replace
from pathlib import Path

from scripts import chaos
from scripts.breaking import NODES, OF_WORKERS, Fault, cut_rucio, freeze_rucio, freeze_sweeper, kill_sweeper
from scripts.ground import stage
from tests.stack.together import Servers

FAULTS: list[Fault] = [*OF_WORKERS, freeze_sweeper, kill_sweeper, cut_rucio, freeze_rucio]


def terms(seed: int, seconds: float) -> chaos.Terms:
    """The world of one history: two or three sites, ten to twenty blocks and what happened to them."""
    rng = random.Random(seed)
    return chaos.Terms(
        seconds=seconds,
        nodes=NODES[: rng.choice([2, 3, 3])],
        changes=rng.randint(40, 80),
        faults=FAULTS,
        limit=240,
        pace=(0.5, 2.0),
    )


def emptied(servers: Servers) -> Servers:
    """The same servers with nothing in them."""
    servers.rucio.reset()
    servers.broker.heal()
    return replace(servers, amqp_url=servers.broker.url(servers.broker.new_vhost()))


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/histories", description=__doc__)
    parser.add_argument("--number", type=int, default=30, help="how many histories")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the first one; the next has the next")
    parser.add_argument("--seconds", type=float, default=25, help="in which things happen, of each")
    parser.add_argument("--keep", type=Path, help="a folder for the logs of the histories that are not good")
    options = parser.parse_args()
    bad: list[int] = []
    with stage("histories", options.number * options.seconds / 60, options.seed) as (servers, folder):
        for seed in range(options.seed, options.seed + options.number):
            own = folder / str(seed)
            own.mkdir()
            found = chaos.play(emptied(servers), own, seed, terms(seed, options.seconds))
            print(f"history {seed}: {'good' if found.is_good else 'BAD'}; {chaos.summary(found)}", flush=True)
            print("".join(f"    {line}\n" for line in found.told), end="", flush=True)
            if not found.is_good:
                bad.append(seed)
                chaos.report(found)
                if options.keep:
                    keep(own, options.keep / str(seed))
    print(f"{options.number} histories, {len(bad)} not good{': seeds ' if bad else ''}{', '.join(map(str, bad))}")
    return 1 if bad else 0


def keep(own: Path, where: Path) -> None:
    """The logs and PhEDEx as it was at the end."""
    where.mkdir(parents=True, exist_ok=True)
    for file in own.iterdir():
        (where / file.name).write_bytes(file.read_bytes())


if __name__ == "__main__":
    sys.exit(main())
