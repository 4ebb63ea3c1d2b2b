"""A file that joins a block which rules hold at two sites: it is at both at once, or nothing of it is anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from common.outcome import Outcome
from common.rucio.rses import Switch
from common.rucio.switch import Note, turn
from common.settings.model import Settings, Site
from common.sync.marks import GONE_SINCE, GONE_WHY, SWEEPING, hash_of, parse_meta
from tests.stack.rucio_server import RucioServer
from tests.stack.world import make_account
from tests.two_sides import NODE, OTHER, TwoSides, block, files_of, two_sides

NEW = ("/store/data/new.root", 77, "00000009")


@pytest.fixture
def sides(clean_rucio: RucioServer, tmp_path: Path) -> Iterator[TwoSides]:
    with two_sides(clean_rucio, tmp_path) as both:
        yield both


@pytest.fixture
def name(sides: TwoSides) -> str:
    """A block that is at both sites on both sides, and has grown by a file in PhEDEx."""
    name = sides.put(block(1))
    sides.snapshot.add_replica(name, OTHER)
    for node in (NODE, OTHER):
        assert sides.sync(name, node=node).counts["added"] == 1
    sides.snapshot.add_file(name, *NEW)
    return name


def locks(sides: TwoSides, name: str) -> set[tuple[str, int, str]]:
    sides.rucio.run_daemon("judge-evaluator")
    return {(rule["rse_expression"], rule["locks_ok_cnt"], rule["state"]) for rule in sides.rules(name)}


def test_it_joins_at_both_by_the_first_sync_of_either(sides: TwoSides, name: str) -> None:
    result = sides.sync(name)
    assert (result.outcome, result.counts["updated"]) == (Outcome.CHANGED, 1)
    assert sides.inside(name) == {file for file, *_ in [*files_of(name), NEW]}
    assert sides.replicas()[NEW[0]] == sides.replicas(OTHER)[NEW[0]] == (77, "00000009", "A")
    assert locks(sides, name) == {(NODE, 4, "OK"), (OTHER, 4, "OK")}
    assert sides.transfers() == 0
    assert sides.sync(name, node=OTHER).outcome is Outcome.IN_SYNC


def test_a_site_whose_rules_another_account_owns_counts_too(sides: TwoSides) -> None:
    make_account(sides.root, "cern_owner", OTHER)
    settings = Settings(main=sides.main, sites={OTHER: Site(account="cern_owner")})
    name = sides.put(block(1))
    sides.snapshot.add_replica(name, OTHER)
    for node in (NODE, OTHER):
        assert sides.sync(name, node=node, world=replace(sides.world(), settings=settings)).counts["added"] == 1
    sides.snapshot.add_file(name, *NEW)
    assert sides.sync(name, world=replace(sides.world(), settings=settings)).counts["updated"] == 1
    assert locks(sides, name) == {(NODE, 4, "OK"), (OTHER, 4, "OK")}
    assert sides.transfers() == 0


@pytest.mark.parametrize("why", ["phedex has it at one", "dry", "run off", "left out", "frozen", "its rule ends"])
def test_where_the_other_site_may_not_have_it_nothing_of_it_is_written(sides: TwoSides, name: str, why: str) -> None:
    policies = {"dry": Site(dry=True), "run off": Site(run=False), "left out": Site(ignore="/Primary/.*")}
    world = sides.world()
    settings = Settings(main=sides.main, sites={OTHER: policies.get(why, Site())})
    world = replace(world, settings=settings)
    if why == "phedex has it at one":
        sides.snapshot.set_replica_files(name, OTHER, [file for file, *_ in files_of(name)])
    if why == "frozen":
        turn(world.rucio, OTHER, Switch.FROZEN, Note(why="a test"))
    if why == "its rule ends":
        (rule,) = [rule for rule in sides.rules(name) if rule["rse_expression"] == OTHER]
        sides.root.update_replication_rule(rule["id"], {"lifetime": 0})
    result = sides.sync(name, world=world)
    assert (result.outcome, result.counts["withheld"]) == (Outcome.HELD, 1)
    assert result.notes == [f"{name}: 1 files, such as {NEW[0]}, wait to join it until PhEDEx has the block at {OTHER}"]
    assert NEW[0] not in sides.replicas().keys() | sides.replicas(OTHER).keys() | sides.inside(name)
    assert sides.transfers() == 0


def test_a_mark_goes_though_a_file_waits_and_a_sweep_was_about_to_begin(sides: TwoSides) -> None:
    """Others rely on no marked rule: the site that the file waits for would wait for this one."""
    name = sides.put(block(1))
    sides.snapshot.add_replica(name, OTHER)
    for node in (NODE, OTHER):
        assert sides.sync(name, node=node).counts["added"] == 1
    sides.snapshot.add_file(name, *NEW, nodes=[NODE])
    (rule,) = (row for row in sides.rules(name) if row["rse_expression"] == NODE)
    mark = {GONE_SINCE: 100, GONE_WHY: "moved", SWEEPING: {"at": 100, "file": hash_of(files_of(name)[0][0])}}
    sides.root.update_replication_rule(rule["id"], {"meta": json.dumps(parse_meta(rule["meta"]) | mark)})
    assert "wait to join it" in sides.sync(name).notes[0]
    (rule,) = (row for row in sides.rules(name) if row["rse_expression"] == NODE)
    assert parse_meta(rule["meta"]).keys().isdisjoint(mark)
