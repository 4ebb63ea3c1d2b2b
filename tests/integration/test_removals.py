"""Removals on a real Rucio: marked, then swept; never a last copy, never what others hold, nothing torn on the way."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from common.errors import RucioError
from common.messages.commands import SyncBlocks
from common.messages.meta import Meta
from common.outcome import Outcome
from common.settings.model import Settings, Site
from common.sync import approvals
from consumers import sync_blocks
from consumers.engine.result import Failed, Result
from consumers.engine.world import World
from datasvc.serve import running
from tests.integration.test_last_look import Meddled
from tests.stack.rucio_server import RucioServer
from tests.stack.world import make_account
from tests.two_sides import DATASET, NODE, OTHER, TwoSides, block, close, files_of, two_sides

AT_ONCE = Site(removal_grace=0, max_removal_share=1, hold_nowhere=False, hold_unknown=False)
ANCHOR = "/Anchor/Processed-v1/RAW#0"  # PhEDEx surely has it


@pytest.fixture
def sides(clean_rucio: RucioServer, tmp_path: Path) -> Iterator[TwoSides]:
    with two_sides(clean_rucio, tmp_path, nowhere_apart=0) as sides:
        sides.put(ANCHOR)
        yield sides
        assert sides.transfers() == 0, "Rucio was asked to transfer a file"


def soon() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


def meta(rule: dict[str, Any]) -> dict[str, Any]:
    text = rule["meta"]
    while isinstance(text, str):
        text = json.loads(text)
    return dict(text)


def lfns(*names: str) -> set[str]:
    return {lfn for name in names for lfn, *_ in files_of(name)}


def dids(*names: str) -> list[dict[str, str]]:
    return [{"scope": "cms", "name": name} for name in sorted(names)]


def at_both(sides: TwoSides, *numbers: int, dataset: str = DATASET) -> list[str]:
    """Blocks that are at two sites, in both systems."""
    names = [sides.put(block(n, dataset)) for n in numbers]
    for name in names:
        sides.snapshot.add_replica(name, OTHER)
    for node in (NODE, OTHER):
        assert sides.sync(*names, node=node).counts["added"] == len(names)
    return names


def gone(sides: TwoSides, *names: str, node: str = NODE) -> None:
    for name in names:
        sides.snapshot.remove_replica(name, node)


def removing(sides: TwoSides, *names: str, site: Site = AT_ONCE, node: str = NODE, **fields: Any) -> Result:
    made = sides.world(site=site)
    fields = {"removable_until": soon(), "controls": [ANCHOR], "meta": Meta(cycle="c-1", by="somebody")} | fields
    return sides.sync(*names, node=node, world=made, **fields)


def rule_at(sides: TwoSides, name: str, rse: str = NODE) -> dict[str, Any]:
    return next(rule for rule in sides.rules(name) if rule["rse_expression"] == rse)


def tombstones(sides: TwoSides) -> list[Any]:
    return sides.rucio.sql("SELECT name FROM replicas WHERE tombstone IS NOT NULL")


def test_mark_then_sweep_then_cleaned(sides: TwoSides) -> None:
    (name,) = at_both(sides, 1)
    before = rule_at(sides, name)
    gone(sides, name)
    waits = Site(removal_grace=3600, max_removal_share=1)
    result = removing(sides, name, site=waits)
    assert (result.outcome, result.names, result.counts["marked"]) == (Outcome.CHANGED, {"marked": [name]}, 1)
    marked = rule_at(sides, name)
    note = meta(marked)
    assert abs(note.pop("phedex_gone_since") - datetime.now(UTC).timestamp()) < 60
    assert note == meta(before) | {
        "phedex_gone_cycle": "c-1",
        "phedex_gone_why": "moved",
        "phedex_gone_by": "somebody",
    }
    unchanged = {key: value for key, value in before.items() if key not in ("meta", "updated_at")}
    assert {key: marked[key] for key in unchanged} == unchanged
    assert set(sides.replicas()) == lfns(name)
    result = removing(sides, name, site=waits)
    assert (result.outcome, result.counts["pending"]) == (Outcome.IN_SYNC, 1)
    assert rule_at(sides, name) == marked
    result = removing(sides, name)
    assert (result.outcome, result.names) == (Outcome.CHANGED, {"swept": [name]})
    assert {k: v for k, v in result.counts.items() if "removed" in k} == {"files_removed": 3, "bytes_removed": 3003}
    assert sides.replicas() == {}
    assert set(sides.replicas(OTHER)) == lfns(name) == sides.inside(name)
    assert sides.inside(DATASET) == {name}
    assert rule_at(sides, name)["expires_at"] is not None
    assert removing(sides, name).outcome is Outcome.IN_SYNC
    sides.rucio.run_daemon("judge-evaluator")
    sides.rucio.run_daemon("judge-cleaner")
    assert [rule["rse_expression"] for rule in sides.rules(name)] == [OTHER]
    assert tombstones(sides) == []
    assert removing(sides, name).outcome is Outcome.IN_SYNC
    sides.snapshot.add_replica(name, NODE)
    assert sides.sync(name).counts["added"] == 1
    assert set(sides.rucio.sql("SELECT lock_cnt FROM replicas")) == {(1,)}


@pytest.mark.parametrize(
    ("pattern", "narrowed", "marked"),
    [(DATASET, "", True), ("/Primary/*/*", "", True), ("/Other/Processed-v1/RAW", "", False), (DATASET, "0a", False)],
)
def test_an_approval_of_a_batch_is_of_blocks_that_its_code_was_given_for(
    sides: TwoSides, pattern: str, narrowed: str, marked: bool
) -> None:
    """A code of another dataset approves nothing of this one, whatever blocks the message names."""
    (name,) = at_both(sides, 1)
    rule = rule_at(sides, name)
    gone(sides, name)
    held = {"since": time.time() - 60, "why": "moved", "custodial": True}
    text = json.dumps({**meta(rule), "phedex_custodial": True, "phedex_hold": held})
    sides.root.update_replication_rule(rule["id"], {"meta": text})
    code = approvals.code_of(datetime.now(UTC), approvals.scope_of(NODE, pattern))
    waits = Site(removal_grace=3600, max_removal_share=1)
    result = removing(sides, name, site=waits, approved=code, approved_for=pattern, approved_narrowed=narrowed)
    assert ("marked" in result.counts) is marked


def test_a_batch_does_not_sweep_what_is_custodial_since_it_was_marked(sides: TwoSides) -> None:
    """Whatever a plan says; but what lost replicas to its sweep only goes forward."""
    (name,) = at_both(sides, 1)
    left = [lfn for lfn, *_ in files_of(name)[:2]]
    sides.snapshot.set_replica_files(name, NODE, left)
    assert removing(sides, name, site=Site(removal_grace=3600, max_removal_share=1)).counts["marked"] == 1
    sides.snapshot.add_replica(name, NODE, left, custodial=True)
    said = f"{name}: incomplete, custodial: not swept before a person approves it"
    assert said in removing(sides, name).notes
    rule = rule_at(sides, name)
    sides.root.update_replication_rule(rule["id"], {"meta": json.dumps({**meta(rule), "phedex_sweeping": 1})})
    assert said in removing(sides, name).notes  # it says so, and no replica went
    assert set(sides.replicas()) == lfns(name)
    sides.root.delete_replicas(NODE, dids(left[0]))
    assert removing(sides, name).names == {"swept": [name]}


@pytest.mark.parametrize(
    ("policy", "switch", "fields"),
    [
        (AT_ONCE, "adds-only", {}),
        (AT_ONCE, "frozen", {}),
        (AT_ONCE, "On", {}),
        (AT_ONCE, "on", {"removable_until": None}),
        (AT_ONCE, "on", {"removable_until": datetime.now(UTC) - timedelta(seconds=1)}),
        (AT_ONCE, "on", {"removable_until": datetime.now(UTC) + timedelta(days=1)}),
        (AT_ONCE, "on", {"adds_only": True}),
        (AT_ONCE, "on", {"dry": True}),
        (AT_ONCE, "on", {"deep": True}),
        (Site(removal_grace=0, max_removal_share=1, adds_only=True), "on", {}),
        (Site(removal_grace=0, dry=True), "on", {}),
        (Site(removal_grace=0, run=False), "on", {}),
    ],
)
def test_what_forbids_removals(sides: TwoSides, policy: Site, switch: str, fields: dict[str, Any]) -> None:
    (name,) = at_both(sides, 1)
    gone(sides, name)
    before = sides.rules(name)
    sides.root.add_rse_attribute(NODE, "phedex_sync", switch)
    result = removing(sides, name, site=policy, **fields)
    assert not {"marked", "swept"} & result.names.keys()
    assert (sides.rules(name), set(sides.replicas())) == (before, lfns(name))


def test_the_switch_is_read_again_before_the_first_removal(sides: TwoSides) -> None:
    (name,) = at_both(sides, 1)
    gone(sides, name)
    before = sides.rules(name)
    world = sides.world(site=AT_ONCE)
    phedex = world.phedex

    class Late:
        """PhEDEx, and a person who turns the switch while it answers where the blocks are."""

        def __getattr__(self, name: str) -> Any:
            return getattr(phedex, name)

        def whereabouts(self, blocks: list[str], controls: list[str]) -> Any:
            sides.root.add_rse_attribute(NODE, "phedex_sync", "adds-only")
            return phedex.whereabouts(blocks, controls)

    late: Any = Late()
    result = sides.sync(name, world=replace(world, phedex=late), removable_until=soon())
    assert (result.outcome, result.counts["pending"]) == (Outcome.IN_SYNC, 1)
    assert "adds-only" in result.notes[0]
    assert (sides.rules(name), set(sides.replicas())) == (before, lfns(name))


def test_a_block_that_is_still_there_is_not_removed(sides: TwoSides) -> None:
    names = at_both(sides, 1, 2)
    assert removing(sides, *names).outcome is Outcome.IN_SYNC
    assert "phedex_gone_since" not in meta(rule_at(sides, names[0]))


@pytest.mark.parametrize("incomplete", ["remove", "keep"])
def test_an_incomplete_block_follows_the_policy(sides: TwoSides, incomplete: Any) -> None:
    (name,) = at_both(sides, 1)
    sides.snapshot.set_replica_files(name, NODE, [files_of(name)[0][0]])
    site = Site(removal_grace=3600, incomplete=incomplete, max_removal_share=1)
    result = removing(sides, name, site=site)
    expected = "incomplete" if incomplete == "remove" else None
    assert (meta(rule_at(sides, name)).get("phedex_gone_why"), "marked" in result.counts) == (expected, bool(expected))


def test_a_block_that_comes_back_loses_its_mark(sides: TwoSides) -> None:
    (name,) = at_both(sides, 1)
    before = rule_at(sides, name)
    gone(sides, name)
    removing(sides, name, site=Site(max_removal_share=1))
    sides.snapshot.add_replica(name, NODE)
    assert removing(sides, name).counts["updated"] == 1
    after = rule_at(sides, name)
    assert abs(meta(after).pop("phedex_seen") - time.time()) < 60
    assert {k: v for k, v in meta(after).items() if k != "phedex_seen"} == meta(before)
    assert {k: v for k, v in after.items() if k not in ("meta", "updated_at")} == {
        k: v for k, v in before.items() if k not in ("meta", "updated_at")
    }


def test_a_block_that_comes_back_before_the_cleaner_waits_for_it(sides: TwoSides) -> None:
    (name,) = at_both(sides, 1)
    gone(sides, name)
    removing(sides, name)
    sides.snapshot.add_replica(name, NODE)
    result = removing(sides, name)
    assert (result.outcome, result.counts["withheld"]) == (Outcome.HELD, 1)
    assert sides.replicas() == {}
    sides.rucio.run_daemon("judge-cleaner")
    assert removing(sides, name).counts["added"] == 1
    assert set(sides.rucio.sql("SELECT lock_cnt FROM replicas")) == {(1,)}


def test_the_last_copy_stays_and_another_place_is_asked_for(sides: TwoSides) -> None:
    name = sides.put(block(1))
    sides.sync(name)
    sides.snapshot.add_replica(name, OTHER)
    gone(sides, name)
    result = removing(sides, name)
    assert (result.outcome, result.counts["kept_last_copy"], result.names["held"]) == (Outcome.HELD, 1, [name])
    (child,) = result.follow
    assert child == SyncBlocks(node=OTHER, blocks=[name], adds_only=True)
    assert set(sides.replicas()) == lfns(name)
    assert rule_at(sides, name)["expires_at"] is None
    again = removing(sides, name)
    assert (again.outcome, again.counts["kept_last_copy"], again.names["held"]) == (Outcome.IN_SYNC, 1, [name])
    assert sides.sync(name, node=OTHER).counts["added"] == 1
    assert removing(sides, name).names == {"swept": [name]}
    assert set(sides.replicas(OTHER)) == sides.inside(name) == lfns(name)
    assert sides.inside(DATASET) == {name}


@pytest.mark.parametrize("how", ["partial here", "partial there", "one file unavailable there", "no rule there"])
def test_one_last_file_keeps_the_block(sides: TwoSides, how: str) -> None:
    (name,) = at_both(sides, 1)
    first = files_of(name)[0][0]
    if how == "partial here":
        gone(sides, name, node=OTHER)
        sides.snapshot.set_replica_files(name, NODE, [first])
    else:
        gone(sides, name)
    if how == "partial there":
        sides.snapshot.set_replica_files(name, OTHER, [first])
    elif how == "one file unavailable there":
        sides.root.update_replicas_states(OTHER, [{**dids(first)[0], "state": "U"}])
    elif how == "no rule there":
        sides.root.update_replication_rule(rule_at(sides, name, OTHER)["id"], {"lifetime": 0})
        sides.rucio.run_daemon("judge-cleaner")
    before = sides.replicas()
    result = removing(sides, name)
    assert result.counts["kept_last_copy"] == 1
    assert ("may be the last copy" if how == "partial there" else "no other place") in result.notes[0]
    assert len(list(result.follow)) == (how in ("one file unavailable there", "no rule there"))
    assert (sides.replicas(), rule_at(sides, name)["expires_at"]) == (before, None)
    if how == "one file unavailable there":
        sides.root.update_replicas_states(OTHER, [{**dids(first)[0], "state": "A"}])
        sides.rucio.run_daemon("judge-repairer")


@pytest.mark.parametrize("known", [True, False])
def test_what_is_nowhere_goes_and_its_container_stays_whole(sides: TwoSides, known: bool) -> None:
    names = [sides.put(block(n)) for n in (1, 2)]
    sides.sync(*names)
    gone(sides, names[0])
    if not known:
        sides.snapshot.remove_block(names[0])
    result = removing(sides, names[0])
    assert result.counts["files_removed"] == 3
    assert set(sides.replicas()) == lfns(names[1])
    assert sides.rucio.sql("SELECT name FROM dids WHERE did_type = 'F' AND name LIKE %s", ("%00001/%",)) == []
    assert sides.inside(DATASET) == set(names)
    for daemon in ("judge-evaluator", "judge-cleaner"):
        sides.rucio.run_daemon(daemon)
    assert (sides.rules(names[0]), tombstones(sides)) == ([], [])
    assert rule_at(sides, names[1])["locks_ok_cnt"] == 3


def test_a_file_that_phedex_lists_no_more_leaves_before_the_block_that_it_keeps(sides: TwoSides) -> None:
    (name,) = at_both(sides, 1)
    lost = files_of(name)[0][0]
    sides.root.delete_replicas(OTHER, dids(lost))
    sides.snapshot.remove_file(lost)
    gone(sides, name)
    kept = removing(sides, name)
    assert (kept.counts["kept_last_copy"], lost in kept.notes[0]) == (1, True)
    for _ in range(2):  # one reading is remembered, the second one acts
        assert lost in sides.replicas()
        sides.sync(name, node=OTHER, world=sides.world(site=AT_ONCE), files_until=soon())
    assert set(sides.replicas()) == lfns(name) - {lost}
    settle(sides)
    assert removing(sides, name).names == {"swept": [name]}
    assert sides.replicas() == {}
    assert sides.inside(name) == set(sides.replicas(OTHER)) == lfns(name) - {lost}
    assert sides.inside(DATASET) == {name}


def test_others_rules_locks_and_replicas_stay(sides: TwoSides) -> None:
    names = at_both(sides, 1, 2, 3, 4)
    make_account(sides.root, "somebody", NODE)
    sides.root.add_scope("somebody", "user.somebody")
    mine = {"scope": "user.somebody", "name": "/Mine/Mine-v1/USER#1"}
    shared, single = files_of(names[1])[0][0], files_of(names[2])[0][0]
    sides.root.add_dataset(**mine)
    sides.root.attach_dids(*mine.values(), dids(shared))
    held = [
        *sides.root.add_replication_rule(dids(names[0]), 1, NODE, account="somebody"),
        *sides.root.add_replication_rule([mine], 1, NODE, account="somebody"),
        *sides.root.add_replication_rule(dids(single), 1, NODE, account="somebody"),
        *sides.root.add_replication_rule(dids(names[3]), 1, NODE, account="somebody", grouping="NONE"),
    ]
    before = [sides.root.get_replication_rule(rule) for rule in held]
    gone(sides, *names)
    result = removing(sides, *names)
    assert (result.names, result.counts["foreign"], result.counts["files_removed"]) == ({"swept": names}, 8, 4)
    assert set(sides.replicas()) == lfns(names[0], names[3]) | {shared, single}
    sides.rucio.run_daemon("judge-cleaner")
    after = [sides.root.get_replication_rule(rule) for rule in held]
    assert after == before
    assert {
        row[0]
        for row in sides.rucio.sql(
            "SELECT lock_cnt FROM replicas r JOIN rses s ON s.id = r.rse_id WHERE rse = %s", (NODE,)
        )
    } == {1}
    assert tombstones(sides) == []


def test_a_block_without_our_rule_is_left_alone(sides: TwoSides) -> None:
    name = block(1)
    make_account(sides.root, "somebody", NODE)
    sides.root.add_dataset("cms", name)
    rows = [{"scope": "cms", "name": lfn, "bytes": size, "adler32": adler} for lfn, size, adler in files_of(name)]
    sides.root.add_files_to_dataset("cms", name, rows, rse=NODE)
    sides.root.add_replication_rule(dids(name), 1, NODE, account="somebody")
    before = sides.rules(name)
    result = removing(sides, name, block(2))
    assert (result.outcome, result.counts["not_at_node"]) == (Outcome.IN_SYNC, 2)
    assert (sides.rules(name), set(sides.replicas())) == (before, lfns(name))


def test_what_a_person_keeps_is_not_marked_again(sides: TwoSides) -> None:
    (name,) = at_both(sides, 1)
    gone(sides, name)
    rule = rule_at(sides, name)
    sides.root.update_replication_rule(rule["id"], {"meta": {**meta(rule), "phedex_keep": "somebody"}})
    before = rule_at(sides, name)
    assert removing(sides, name).outcome is Outcome.IN_SYNC
    assert rule_at(sides, name) == before


def test_both_forms_of_an_older_rule_go_together(sides: TwoSides) -> None:
    (name,) = at_both(sides, 1)
    sides.root.add_replication_rule(dids(name), 1, f"rse={NODE}", account="sync_t2_it_pisa")
    gone(sides, name)
    assert removing(sides, name).names == {"swept": [name]}
    sides.rucio.run_daemon("judge-cleaner")
    assert [rule["rse_expression"] for rule in sides.rules(name)] == [OTHER]
    assert tombstones(sides) == []


def test_requests(sides: TwoSides) -> None:
    """A sweep that is in no hurry: where Rucio is slow fewer blocks are looked at at once, which takes more of them."""
    sides = replace(sides, main=msgspec.structs.replace(sides.main, sweep_within=60))
    names = at_both(sides, *range(30))
    gone(sides, *names)
    marked = removing(sides, *names, site=Site(max_removal_share=1)).counts
    assert (marked["marked"], marked["phedex_requests"] <= 5) == (30, True)
    assert marked["rucio_requests"] <= 3 * 30 + 12
    swept = removing(sides, *names).counts
    assert (swept["swept"], swept["files_removed"]) == (30, 90)
    assert swept["rucio_requests"] <= 7 * 30 + 20


class Killed(Exception):
    """The process is gone, as if by SIGKILL."""


WRITES = ("update_replication_rule", "delete_r", "detach_dids", "add_", "attach_dids_to_dids")


def dying(world: World, number: int, after: bool) -> World:
    """The world of a process that dies just before or just after its number-th write to Rucio."""
    count = itertools.count()
    rucio = world.rucio

    class Dying:
        def __getattr__(self, name: str) -> Any:
            return getattr(rucio, name)

        def call(self, verb: str, *args: Any, **options: Any) -> Any:
            return self._cut(verb, lambda: rucio.call(verb, *args, **options))

        def call_by(self, limit: float, verb: str, *args: Any, **options: Any) -> Any:
            return self._cut(verb, lambda: rucio.call_by(limit, verb, *args, **options))

        def _cut(self, verb: str, action: Any) -> Any:
            now = verb.startswith(WRITES) and next(count) == number
            if now and not after:
                raise Killed
            result = action()
            if now:
                raise Killed
            return result

    door: Any = Dying()
    return replace(world, rucio=door)


def state(sides: TwoSides, dataset: str) -> list[list[str]]:
    """What the tables say of one dataset, its own name left out."""
    primary = dataset.split("/")[2]
    queries = (
        "SELECT name, account, locks_ok_cnt FROM rules WHERE name LIKE %s",
        "SELECT name, child_name FROM contents WHERE name LIKE %s",
        "SELECT name, rse, lock_cnt FROM replicas r JOIN rses s ON s.id = r.rse_id WHERE name LIKE %s",
        "SELECT name, did_type FROM dids WHERE name LIKE %s",
    )
    rows = [sides.rucio.sql(query, (f"%{primary}%",)) for query in queries]
    return [sorted(str(row).replace(primary, "") for row in found) for found in rows]


def lasting(sides: TwoSides, dataset: str) -> list[str]:
    """Two blocks at two sites and one that is nowhere are to go; one is to stay."""
    names = [sides.put(block(n, dataset)) for n in range(4)]
    for name in names[:2]:
        sides.snapshot.add_replica(name, OTHER)
    sides.sync(*names)
    sides.sync(*names[:2], node=OTHER)
    gone(sides, *names[:3])
    sides.snapshot.remove_block(names[2])
    return names


def expire(sides: TwoSides) -> None:
    """The announcements that killed processes left are as old as if an hour had passed."""
    for rse in (NODE, OTHER):
        for key, value in sides.root.list_rse_attributes(rse).items():
            if key.startswith("phedex_sweeping."):
                sides.root.add_rse_attribute(rse, key, json.dumps(json.loads(value) | {"at": 1}))


def settle(sides: TwoSides) -> None:
    """Rucio's daemons have followed all that was changed, which takes rounds: each takes a part of what there is."""
    for daemon, todo in (("evaluator", "updated_dids"), ("cleaner", "rules WHERE expires_at IS NOT NULL")):
        for _ in range(10):
            sides.rucio.run_daemon(f"judge-{daemon}")
            if not sides.rucio.sql(f"SELECT count(*) FROM {todo}")[0][0]:
                break


@pytest.mark.timeout(1200)  # a site is built and cut for every write
@pytest.mark.parametrize("judged", [False, True])
def test_killed_at_any_write_the_next_batch_goes_on(sides: TwoSides, judged: bool) -> None:
    """A run that is cut before or after each of its writes, then one that is not: the same end as without the cut."""
    made: dict[str, list[str]] = {}
    cuts: dict[str, bool] = {}
    for number, after in itertools.product(range(-1, 12), {judged, True}):
        dataset = f"/Primary/Cut{number}{after}/RAW"
        made[dataset] = lasting(sides, dataset)
        world = dying(sides.world(site=AT_ONCE), number, after)
        try:
            sides.sync(*made[dataset], world=world, removable_until=soon())
        except Killed:
            cuts[dataset] = True
    if judged:
        settle(sides)
    expire(sides)
    for names in made.values():
        removing(sides, *names)
    settle(sides)
    assert tombstones(sides) == []
    assert len(made) * 2 / 3 <= len(cuts) < len(made)
    for dataset, names in made.items():
        assert sides.inside(dataset) == set(names)
        assert state(sides, dataset) == state(sides, "/Primary/Cut-1True/RAW"), dataset


def test_two_sites_that_remove_at_once_keep_one_copy(sides: TwoSides) -> None:
    for turn in range(4):
        dataset = f"/Primary/Turn-{turn}/RAW"
        names = at_both(sides, *range(4), dataset=dataset)
        if turn % 2:  # both lose it, PhEDEx keeps only a part somewhere
            gone(sides, *names, node=OTHER)
            for name in names:
                sides.snapshot.set_replica_files(name, NODE, [files_of(name)[0][0]])
        else:  # one loses it
            gone(sides, *names)
        results = at_once(sides, names)
        assert not [result for result in results if isinstance(result, Exception)]
        for name in names:
            there = set(sides.replicas(NODE)) | set(sides.replicas(OTHER))
            assert lfns(name) <= there
            assert sides.inside(name) == lfns(name)
        assert sides.inside(dataset) == set(names)


def at_once(sides: TwoSides, names: list[str]) -> list[Result | Exception]:
    results: list[Result | Exception] = []
    barrier = threading.Barrier(2)

    def run(node: str, world: World) -> None:
        barrier.wait()
        try:
            results.append(sync_blocks.handle(SyncBlocks(node=node, blocks=names, removable_until=soon()), world))
        except RucioError as error:
            results.append(error)

    worlds = {node: sides.world(site=AT_ONCE) for node in (NODE, OTHER)}
    threads = [threading.Thread(target=run, args=item) for item in worlds.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for world in worlds.values():
        close(world)
    return results


def test_two_sites_and_a_block_that_phedex_has_nowhere(sides: TwoSides) -> None:
    for turn in range(4):
        dataset = f"/Primary/Turn-{turn}/RAW"
        names = at_both(sides, *range(4), dataset=dataset)
        for node in (NODE, OTHER):
            gone(sides, *names, node=node)
        for name in names:
            sides.snapshot.remove_block(name)
        for _ in range(3):  # of two that meet one steps back, and comes again
            results = at_once(sides, names)
            assert not [
                r for r in results if isinstance(r, Exception) or [f for f in r.follow if isinstance(f, Failed)]
            ]
            settle(sides)
        assert sides.inside(dataset) == set(names)
        assert [name for name in names if sides.rules(name)] == []
        assert not lfns(*names) & (set(sides.replicas(NODE)) | set(sides.replicas(OTHER)))


def test_twins_on_one_batch(sides: TwoSides) -> None:
    names = at_both(sides, *range(8))
    gone(sides, *names)
    worlds = [sides.world(site=AT_ONCE) for _ in range(2)]
    results: list[Result] = []
    barrier = threading.Barrier(2)

    def run(world: World) -> None:
        barrier.wait()
        results.append(sync_blocks.handle(SyncBlocks(node=NODE, blocks=names, removable_until=soon()), world))

    threads = [threading.Thread(target=run, args=(world,)) for world in worlds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for world in worlds:
        close(world)
    assert len(results) == 2
    assert sides.replicas() == {}
    assert set(sides.replicas(OTHER)) == lfns(*names)
    settle(sides)
    assert {rule["rse_expression"] for name in names for rule in sides.rules(name)} == {OTHER}
    assert tombstones(sides) == []


def test_tape_goes_by_its_inventory_node(sides: TwoSides) -> None:
    """What PhEDEx lists at another node may be at the RSE of the node that we serve: that one is a place to rely on."""
    (name,) = at_both(sides, 1)
    sides.snapshot.add_node("T2_CH_CERN_MSS")
    sides.snapshot.add_replica(name, "T2_CH_CERN_MSS")
    gone(sides, name)
    gone(sides, name, node=OTHER)
    world = sides.world(site=AT_ONCE)
    policies = {OTHER: Site(inventory_node="T2_CH_CERN_MSS")}
    settings = Settings(main=sides.main, default=AT_ONCE, sites=policies)
    result = sides.sync(name, world=replace(world, settings=settings), removable_until=soon())
    assert result.names == {"swept": [name]}


# --- two replies that differ ---------------------------------------------------------------------------------------


def without_row(sides: TwoSides, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A file of faults, and the one by which PhEDEx leaves the blocks out where it is asked for what is at the node."""
    faults = tmp_path / "faults.json"
    faults.write_text("[]")
    return faults, {"call": "blockreplicas", "kind": "missing_block", "match": f"node={NODE}", "value": "Primary"}


def test_a_block_that_is_back_by_one_of_two_replies_stays(sides: TwoSides, tmp_path: Path) -> None:
    """It comes back after the batch has read PhEDEx; the list of the node is short, the block's own row is not."""
    (name,) = at_both(sides, 1)
    gone(sides, name)
    removing(sides, name, site=Site(removal_grace=3600, max_removal_share=1))
    faults, short = without_row(sides, tmp_path)

    def back() -> None:
        sides.snapshot.add_replica(name, NODE)
        faults.write_text(json.dumps([short]))

    with running(sides.snapshot.path, faults) as url:
        world = replace(sides, main=msgspec.structs.replace(sides.main, phedex_url=url)).world(site=AT_ONCE)
        meddled: Any = Meddled(world.rucio, "add_rse_attribute", back)
        world = replace(world, rucio=meddled)
        fields: dict[str, Any] = {"removable_until": soon(), "controls": [ANCHOR], "meta": Meta(cycle="c-1")}
        result = sides.sync(name, world=world, **fields)
    assert result.counts["doubtful"] == 1
    assert any(f"PhEDEx says that it is complete at {NODE}, and that it is not" in note for note in result.notes)
    assert lfns(name) <= set(sides.replicas())


@pytest.mark.parametrize("incomplete", ["keep", "remove"])
def test_a_block_of_which_files_are_here_by_one_of_two_replies_stays(
    sides: TwoSides, tmp_path: Path, incomplete: Any
) -> None:
    (name,) = at_both(sides, 1)
    sides.snapshot.set_replica_files(name, NODE, [lfn for lfn, *_ in files_of(name)[:2]])
    faults, short = without_row(sides, tmp_path)
    faults.write_text(json.dumps([short]))
    with running(sides.snapshot.path, faults) as url:
        lied_to = replace(sides, main=msgspec.structs.replace(sides.main, phedex_url=url))
        result = removing(lied_to, name, site=Site(removal_grace=0, max_removal_share=1, incomplete=incomplete))
    assert result.counts["doubtful"] == 1
    assert any(f"PhEDEx says that it is at {NODE}, and that it is not" in note for note in result.notes)
    assert lfns(name) <= set(sides.replicas())


def test_a_file_of_another_block_stays_though_somebody_gave_that_ones_rule_an_end(sides: TwoSides) -> None:
    one, two = at_both(sides, 1, 2)
    shared = files_of(two)[0][0]
    sides.root.attach_dids("cms", one, dids(shared))
    sides.rucio.run_daemon("judge-evaluator")
    sides.root.update_replication_rule(rule_at(sides, two)["id"], {"lifetime": 30 * 86_400})
    gone(sides, one)
    result = removing(sides, one)
    assert (result.names, result.counts["foreign"]) == ({"swept": [one]}, 1)
    assert set(sides.replicas()) == lfns(two)
