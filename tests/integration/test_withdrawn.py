"""What if another site's file joins a block just when our rule on it is made? Rucio's queued transfer is withdrawn."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from common.messages.meta import now
from common.outcome import Outcome
from common.settings.model import Site
from tests.stack.rucio_server import RucioServer
from tests.stack.world import make_account
from tests.two_sides import NODE, OTHER, TwoSides, block, files_of, two_sides


@pytest.fixture
def sides(clean_rucio: RucioServer, tmp_path: Path) -> Iterator[TwoSides]:
    with two_sides(clean_rucio, tmp_path) as sides:
        yield sides


def dids(*names: str) -> list[dict[str, str]]:
    return [{"scope": "cms", "name": name} for name in names]


def requests(sides: TwoSides) -> Any:
    return sides.rucio.sql("SELECT count(*) FROM requests")[0][0]


def ordering(sides: TwoSides, lfn: str, size: int, adler: str) -> str:
    """A block of two sites that a file has joined, which is at the other alone: Rucio has queued a transfer."""
    name = sides.put(block(1), [one for one in files_of(block(1)) if one[0] != lfn])
    sides.snapshot.add_replica(name, OTHER)
    for node in (NODE, OTHER):
        assert sides.sync(name, node=node).counts["added"] == 1
    sides.root.add_replicas(OTHER, [{"scope": "cms", "name": lfn, "bytes": size, "adler32": adler}])
    sides.root.attach_dids("cms", name, dids(lfn))
    sides.rucio.run_daemon("judge-evaluator")
    assert requests(sides) == 1
    return name


def grown(sides: TwoSides) -> str:
    """The same, and PhEDEx has the file at both."""
    lfn, size, adler = files_of(block(1))[2]
    assert adler is not None
    name = ordering(sides, lfn, size, adler)
    sides.snapshot.add_file(name, lfn, size, adler)
    return name


def test_what_rucio_was_about_to_transfer_is_there(sides: TwoSides) -> None:
    name = grown(sides)
    assert sides.sync(name).counts["updated"] == 1
    assert requests(sides) == 0
    sides.rucio.run_daemon("judge-repairer")  # Rucio's own miscount
    assert {(rule["locks_ok_cnt"], rule["state"]) for rule in sides.rules(name)} == {(3, "OK")}
    assert {state for *_, state in sides.replicas().values()} == {"A"}
    assert sides.sync(name).outcome is Outcome.IN_SYNC


def test_a_transfer_that_others_may_have_ordered_is_left_alone(sides: TwoSides) -> None:
    name = grown(sides)
    make_account(sides.root, "jdoe", NODE)
    sides.root.add_replication_rule(dids(name), 1, NODE, account="jdoe", ignore_availability=True)
    sides.sync(name)
    assert requests(sides) == 1


def test_a_replica_that_was_declared_bad_is_copied_anew_and_not_called_good(sides: TwoSides) -> None:
    name = sides.put(block(1))
    sides.snapshot.add_replica(name, OTHER)
    for node in (NODE, OTHER):
        sides.sync(name, node=node)
    file = files_of(name)[0][0]
    sides.rucio.client("root").declare_bad_file_replicas([{**dids(file)[0], "rse": OTHER}], "broken")
    sides.rucio.run_daemon("necromancer")
    assert (sides.replicas(OTHER)[file][2], requests(sides)) == ("C", 1)
    for _ in range(2):
        sides.sync(name, node=OTHER)
    assert (sides.replicas(OTHER)[file][2], requests(sides)) == ("C", 1)
    sides.snapshot.remove_replica(name, NODE)
    until = now() + timedelta(minutes=30)
    for _ in range(2):
        world = sides.world(site=Site(removal_grace=0, max_removal_share=1))
        assert sides.sync(name, world=world, removable_until=until).counts.get("swept", 0) == 0
    assert sides.replicas()[file][2] == "A"


def test_no_transfer_outlives_its_rule(sides: TwoSides) -> None:
    """Rucio's cleaner cancels none of a replica that went before."""
    name = ordering(sides, "/store/data/joined.root", 1, "00000001")
    sides.snapshot.remove_replica(name, NODE)
    world = sides.world(site=Site(removal_grace=0, max_removal_share=1))
    assert sides.sync(name, world=world, removable_until=now() + timedelta(minutes=30)).counts["swept"] == 1
    sides.rucio.run_daemon("judge-cleaner")
    assert requests(sides) == 0
    assert [rule["rse_expression"] for rule in sides.rules(name)] == [OTHER]
    assert sides.rucio.sql("SELECT name FROM replicas WHERE tombstone IS NOT NULL") == []


@pytest.mark.parametrize("on", ["the file", "his dataset"])
def test_a_transfer_that_somebody_ordered_of_one_file_is_left_alone(sides: TwoSides, on: str) -> None:
    """Rucio has one request for both rules: cancelled for ours, it would never come for his."""
    lfn, size, adler = "/store/data/his.root", 5, "00000005"
    ordering(sides, lfn, size, adler)
    make_account(sides.root, "jdoe", NODE)
    if on == "the file":
        (rule,) = sides.root.add_replication_rule(dids(lfn), 1, NODE, account="jdoe")
    else:
        his = {"scope": "user.jdoe", "name": "/His/His-v1/USER"}
        sides.root.add_scope("jdoe", his["scope"])
        sides.root.add_dataset(**his)
        sides.root.attach_dids(*his.values(), dids=dids(lfn))
        (rule,) = sides.root.add_replication_rule([his], 1, NODE, account="jdoe")
    assert sides.root.get_replication_rule(rule)["locks_replicating_cnt"] == 1
    sides.sync(block(1))
    assert requests(sides) == 1
    assert sides.root.get_replication_rule(rule)["locks_replicating_cnt"] == 1
