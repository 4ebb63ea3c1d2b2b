"""Races of `undo` against a sweep on a real Rucio: none may end with a wrong word.

    scripts/races --number 200

Blocks at two sites are marked at the first one and due. One thread sweeps them, another takes marks back, in any order
and at any moment; then every word is held against what Rucio's tables say.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import tests.conftest as fixtures  # noqa: F401 -- first: it decides where the client's token files lie
from common.messages.meta import Meta
from common.rucio.rses import find_site
from common.rucio.session import Rucio
from common.rucio.undo import Order, undo
from common.settings.model import Site
from tests.stack.rucio_server import launch
from tests.two_sides import NODE, OTHER, TwoSides, block, files_of, two_sides

TURN = 40  # blocks that are raced for at a time


def prepared(sides: TwoSides, numbers: range) -> list[str]:
    """Blocks at both sites in both systems, then PhEDEx has them at the second one alone, and they are marked."""
    names = [sides.put(block(n)) for n in numbers]
    for name in names:
        sides.snapshot.add_replica(name, OTHER)
    for node in (NODE, OTHER):
        assert sides.sync(*names, node=node).counts["added"] == len(names)
    for name in names:
        sides.snapshot.remove_replica(name, NODE)
    assert removing(sides, names, grace=3600)["marked"] == len(names)
    return names


def removing(sides: TwoSides, names: list[str], grace: float) -> dict[str, int]:
    """The counts of a batch that may remove."""
    world = sides.world(site=Site(removal_grace=grace, max_removal_share=1))
    until = datetime.now(UTC) + timedelta(minutes=40)
    return sides.sync(*names, world=world, removable_until=until, meta=Meta(cycle="c-1", by="races")).counts


def raced(sides: TwoSides, names: list[str], rng: random.Random) -> dict[str, str]:
    """What undo said of each of the blocks while they were swept."""
    said: dict[str, str] = {}
    sweeper = threading.Thread(target=removing, args=(sides, names, 0))
    door = Rucio(sides.main)
    site = find_site(door, NODE, Site())
    assert site is not None
    sweeper.start()
    for name in rng.sample(names, len(names)):
        time.sleep(rng.uniform(0, 0.12))  # at any moment
        (one,) = undo(door, site, Order(asked=frozenset([name]), by="races", at="now", wait=20))
        said[name] = one.state
    sweeper.join()
    door.close()
    return said


def wrong(sides: TwoSides, said: dict[str, str]) -> list[str]:
    """The words that are not what Rucio says."""
    here = set(sides.replicas())
    found = []
    for name, word in said.items():
        files = {lfn for lfn, *_ in files_of(name)}
        ending = any(rule["expires_at"] for rule in sides.rules(name) if rule["rse_expression"] == NODE)
        if word == "kept" and (not files <= here or ending):
            found.append(f"{name}: kept was said, and {len(files - here)} of {len(files)} replicas are gone")
        if word in ("swept", "no_rule") and files <= here and not ending:
            found.append(f"{name}: {word} was said, and all of it is there")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/races", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--number", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    rng = random.Random(options.seed)
    words: Counter[str] = Counter()
    faults: list[str] = []
    with ExitStack() as stack:
        rucio = launch()
        stack.callback(rucio.close)
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        sides = stack.enter_context(two_sides(rucio, Path(folder)))
        for first in range(0, options.number, TURN):
            names = prepared(sides, range(first, min(first + TURN, options.number)))
            said = raced(sides, names, rng)
            words.update(said.values())
            faults += wrong(sides, said)
            print(f"{sum(words.values())} races: {dict(words)}, wrong words: {len(faults)}", flush=True)
    print("".join(f"  {line}\n" for line in faults), end="")
    enough = words["kept"] and words["swept"]  # else nothing was raced for
    print("no word was wrong" if enough and not faults else "not good")
    return 0 if enough and not faults else 1


if __name__ == "__main__":
    sys.exit(main())
