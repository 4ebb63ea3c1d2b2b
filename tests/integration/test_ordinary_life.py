"""An ordinary life on a real Rucio, and how many times it needs a person: data move, are deleted, sites go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from common.outcome import Outcome
from common.settings.model import Site
from tests.integration.test_guarded_site import Done, code_of, synced
from tests.stack.rucio_server import RucioServer
from tests.two_sides import NODE, OTHER, TwoSides, block, files_of, two_sides

OLD, NEW = "/Old/Processed-v1/RAW", "/New/Processed-v1/RAW"
NO_GRACE = Site(removal_grace=0)  # so that a cycle is a day


class Life:
    """Two sites that are synced in turn, and a person who approves what is held, and is counted."""

    def __init__(self, sides: TwoSides, policies: dict[str, Site]) -> None:
        self.sides, self.policies, self.approvals = sides, policies, 0

    def day(self, *nodes: str) -> list[Done]:
        done = [synced(self.sides, self.policies[node], node=node) for node in nodes or (NODE, OTHER)]
        for daemon in ("judge-evaluator", "judge-cleaner"):
            self.sides.rucio.run_daemon(daemon)
        return done

    def approve(self, held: Done, node: str) -> Done:
        self.approvals += 1
        code = code_of(held.guard)
        return synced(self.sides, self.policies[node], node=node, approve=code, reason="it is right")

    def has(self, node: str) -> set[str]:
        return set(self.sides.replicas(node))


@pytest.fixture
def life(clean_rucio: RucioServer, tmp_path: Path) -> Iterator[Life]:
    with two_sides(clean_rucio, tmp_path) as sides:
        yield Life(sides, {NODE: NO_GRACE, OTHER: NO_GRACE})
        assert sides.transfers() == 0
        assert sides.rucio.sql("SELECT name FROM replicas WHERE tombstone IS NOT NULL") == []


def lfns(*names: str) -> set[str]:
    return {lfn for name in names for lfn, *_ in files_of(name)}


def test_a_dataset_moves_from_site_to_site_without_anybody(life: Life) -> None:
    sides = life.sides
    staying = [sides.put(block(n, NEW)) for n in range(30)]
    moving = [sides.put(block(n, OLD)) for n in range(3)]
    sides.put(block(99, NEW), node=OTHER)
    life.day()
    for name in moving:
        sides.snapshot.add_replica(name, OTHER)
        sides.snapshot.remove_replica(name, NODE)
    for _ in range(3):
        life.day()
    assert (life.has(NODE), life.has(OTHER) >= lfns(*moving)) == (lfns(*staying), True)
    assert {done.root.outcome for done in life.day()} == {Outcome.IN_SYNC}
    assert life.approvals == 0


def test_a_site_is_decommissioned_with_one_approval(life: Life) -> None:
    sides = life.sides
    life.policies[NODE] = Site(removal_grace=0, allow_clean=True)
    both = [sides.put(block(n, NEW)) for n in range(6)]  # at both sites in both systems
    here = [sides.put(block(n, OLD)) for n in range(6)]  # moves to the other, which has to have it in Rucio first
    dead = [sides.put(block(n, OLD)) for n in range(6, 8)]  # deleted everywhere
    for name in both:
        sides.snapshot.add_replica(name, OTHER)
    life.day()
    for name in here:
        sides.snapshot.add_replica(name, OTHER)
    for name in (*both, *here, *dead):
        sides.snapshot.remove_replica(name, NODE)
    (held,) = life.day(NODE)
    assert held.root.outcome is Outcome.HELD
    life.approve(held, NODE)
    for _ in range(3):
        life.day()
    assert (life.has(NODE), life.has(OTHER)) == (set(), lfns(*both, *here))
    (done,) = life.day(NODE)
    assert done.root.outcome is Outcome.IN_SYNC
    assert life.approvals == 1
