"""What Rucio does, and does not, when a rule changes hands, and what it locks by itself at a tape RSE."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import NotFound
from common.rucio import handover, rules
from common.rucio.handover import Given
from common.rucio.rses import Site as RseSite
from common.rucio.rses import find_site
from common.rucio.session import Rucio
from common.settings.model import Site
from common.sync.handover import Held
from tests.stack.rucio_server import RucioServer
from tests.stack.world import make_site
from tests.two_sides import NODE, TwoSides, block, two_sides

TAPE = "T1_US_FNAL_Tape"


@pytest.fixture
def sides(clean_rucio: RucioServer, tmp_path: Path) -> Iterator[TwoSides]:
    with two_sides(clean_rucio, tmp_path) as sides:
        yield sides


@pytest.fixture
def door(sides: TwoSides) -> Iterator[Rucio]:
    door = Rucio(sides.main)
    yield door
    door.close()


def account(sides: TwoSides, name: str, limit: int | None) -> None:
    sides.root.add_account(name, "USER", "ops@example.org")
    if limit is not None:
        sides.root.set_local_account_limit(name, NODE, limit)


def held(door: Rucio) -> tuple[RseSite, dict[str, Held]]:
    site = find_site(door, NODE, Site())
    assert site is not None
    return site, {rule.name: rule for rule in handover.our_rules(door, site)}


def test_a_rule_changes_hands(sides: TwoSides, door: Rucio) -> None:
    names = [sides.put(block(n), group="Higgs") for n in range(5)]
    sides.sync(*names)
    for name, limit in (("ops", -1), ("poor", 10), ("none", None)):
        account(sides, name, limit)
    site, found = held(door)
    assert handover.sizes(door, NODE, found.values()) == dict.fromkeys(names, 3003)
    sides.rucio.run_daemon("abacus-collection-replica")
    asked = door.requests
    assert handover.sizes(door, NODE, found.values()) == dict.fromkeys(names, 3003)
    assert door.requests == asked + 1

    assert [handover.room(door, name, NODE) for name in ("ops", "poor", "none")] == [float("inf"), 10, 0]
    sides.root.add_account_attribute("none", "admin", "true")
    assert handover.room(door, "none", NODE) == float("inf")
    with pytest.raises(NotFound):
        handover.room(door, "nobody", NODE)

    before = rules.read(door, found[names[0]].id)
    assert handover.give(door, site, found[names[0]], "ops", "theirs") is Given.GIVEN
    after = rules.read(door, found[names[0]].id)
    changed = {key for key in after if after[key] != before[key]}
    assert changed - {"updated_at"} == {"account", "comments"}  # told in whole seconds: it may be the same one
    assert {lock.account for lock in rules.locks(door, [names[0]])} == {"ops"}
    assert handover.give(door, site, found[names[0]], "ops", "again") is Given.GONE

    sides.root.add_replication_rule([{"scope": "cms", "name": names[1]}], 1, NODE, account="ops")
    assert handover.give(door, site, found[names[1]], "ops", "theirs") is Given.CONFLICT
    with pytest.raises(NotFound):
        handover.give(door, site, found[names[2]], "nobody", "theirs")
    rules.change(door, found[names[3]].id, {"meta": '{"phedex_gone_since": 5}'})
    assert handover.give(door, site, found[names[3]], "ops", "theirs") is Given.GONE
    assert {rule.name for rule in held(door)[1].values()} == set(names[1:])


def test_rucio_does_not_look_at_limits_until_it_is_too_late(sides: TwoSides, door: Rucio) -> None:
    name = sides.put(block(1))
    sides.sync(name)
    account(sides, "poor", 10)
    site, found = held(door)
    assert handover.give(door, site, found[name], "poor", "theirs") is Given.GIVEN
    assert rules.read(door, found[name].id)["state"] == "OK"
    sides.rucio.run_daemon("judge-evaluator")
    assert rules.read(door, found[name].id)["state"] == "STUCK"


def test_a_rule_at_a_tape_rse_is_locked_and_ends_all_the_same(sides: TwoSides, door: Rucio) -> None:
    make_site(sides.rucio, "T1_US_FNAL_Buffer", TAPE, "TAPE")
    sides.snapshot.add_node("T1_US_FNAL_Buffer")
    name = sides.put(block(1), node="T1_US_FNAL_Buffer")
    sides.sync(name, node="T1_US_FNAL_Buffer")
    (rule,) = sides.rules(name)
    assert rule["locked"] is True
    rules.change(door, rule["id"], {"lifetime": -1})
    sides.rucio.run_daemon("judge-cleaner")
    assert len(sides.rules(name)) == 1
    rules.change(door, rule["id"], {"lifetime": None})
    rules.end(door, rule["id"], unlock=True)
    sides.rucio.run_daemon("judge-cleaner")
    assert sides.rules(name) == []
