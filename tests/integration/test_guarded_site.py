"""A site's removals from plan to mark on a real Rucio: what the guard lets pass, what it holds, what a person may."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from common.errors import Untrusted
from common.messages.commands import Command, SyncBlocks, SyncDataset, SyncSite, with_meta
from common.messages.events import GuardReport
from common.messages.meta import Meta
from common.outcome import Outcome
from common.phedex.trust import NodeMissing
from common.rucio import announcements
from common.settings.model import Settings, Site
from common.sync import approvals
from common.sync.limits import Limit
from common.sync.marks import GONE_CYCLE, GONE_WHY, SWEEPING, hold_of, parse_meta
from common.sync.plan import Plan
from consumers import sync_blocks, sync_dataset, sync_site
from consumers.engine.result import Failed, Result
from datasvc.build import Snapshot
from datasvc.serve import running
from tests.stack.rucio_server import RucioServer
from tests.two_sides import NODE, OTHER, TwoSides, block, close, files_of, two_sides

META = Meta(id="c-1", cycle="c-1", by="somebody@here")
FREE: dict[str, Any] = {"hold_nowhere": False}  # PhEDEx has these blocks at one node: what leaves is nowhere then
WAITS = Site(removal_grace=3600, **FREE)


@pytest.fixture
def sides(clean_rucio: RucioServer, tmp_path: Path) -> Iterator[TwoSides]:
    with two_sides(clean_rucio, tmp_path, nowhere_apart=0) as sides:
        yield sides


@dataclass
class Done:
    """The root's result, the batches in their order, and theirs."""

    root: Result
    batches: list[SyncBlocks] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)

    @property
    def guard(self) -> GuardReport:
        assert self.root.guard is not None
        return self.root.guard

    def names(self, key: str) -> list[str]:
        return sorted(name for result in self.results for name in result.names.get(key, []))


def synced(sides: TwoSides, site: Site = WAITS, **fields: Any) -> Done:
    """The site's plan and all its batches are carried out."""
    world = sides.world(site=site)
    todo: list[Command] = [SyncSite(**({"node": NODE, "meta": META} | fields))]
    done: Done | None = None
    try:
        while todo:
            command = todo.pop(0)
            if isinstance(command, SyncSite):
                result = sync_site.handle(command, world)
                done = done or Done(result)
            else:
                assert done is not None
                assert isinstance(command, SyncBlocks)
                result = sync_blocks.handle(command, world)
                done.batches.append(command)
                done.results.append(result)
            children = (child.command if isinstance(child, Failed) else child for child in result.follow)
            todo += [with_meta(child, META) for child in children]
    finally:
        close(world)
    assert done is not None
    return done


def planned(sides: TwoSides, site: Site = WAITS, **fields: Any) -> Plan:
    world = sides.world(site=site)
    try:
        return sync_site.plan_of(SyncSite(**({"node": NODE} | fields)), world)
    finally:
        close(world)


def filled(sides: TwoSides, number: int = 20) -> list[str]:
    """Blocks at the node, in both systems."""
    names = [sides.put(block(n), files_of(block(n), 2)) for n in range(number)]
    assert synced(sides).root.counts["to_add"] == number
    return names


def copied(sides: TwoSides, names: list[str]) -> list[str]:
    """The blocks are at the other node too, in both systems."""
    for name in names:
        sides.snapshot.add_replica(name, OTHER)
    assert synced(sides, node=OTHER).root.counts["to_add"] == len(names)
    return names


def gone(sides: TwoSides, *names: str) -> None:
    for name in names:
        sides.snapshot.remove_replica(name, NODE)


def marks(sides: TwoSides) -> dict[str, object]:
    """The cycle of each mark, by block."""
    rows = sides.root.list_account_rules("sync_t2_it_pisa")
    metas = {row["name"]: parse_meta(row["meta"]) for row in rows}
    return {name: meta[GONE_CYCLE] for name, meta in metas.items() if GONE_CYCLE in meta}


def test_within_the_limits_blocks_are_marked_by_batches_of_their_own(sides: TwoSides) -> None:
    names = filled(sides)
    gone(sides, names[3], names[8])
    new = sides.put(block(99))
    done = synced(sides)
    assert (done.root.outcome, done.root.guard) == (Outcome.CHANGED, None)
    assert {key: done.root.counts.get(key) for key in ("to_add", "to_mark", "to_remove", "held")} == {
        "to_add": 1,
        "to_mark": 2,
        "to_remove": 2,
        "held": None,
    }
    adds, removes = done.batches
    assert (adds.blocks, adds.removable_until) == ([new], None)
    assert removes.blocks == [names[3], names[8]]
    assert removes.removable_until is not None
    assert timedelta(0) < removes.removable_until - datetime.now(UTC) < timedelta(hours=1)
    assert marks(sides) == dict.fromkeys([names[3], names[8]], "c-1")
    again = synced(sides)
    assert (again.root.outcome, again.batches, again.root.counts["pending"]) == (Outcome.IN_SYNC, [], 2)
    plan = planned(sides)
    assert plan.in_sync
    assert [at is not None and at > datetime.now(UTC) for at in plan.pending.values()] == [True, True]
    due = synced(sides, Site(removal_grace=0, **FREE))
    assert (due.root.counts["to_sweep"], due.names("swept")) == (2, [names[3], names[8]])


def test_over_the_share_nothing_is_marked_and_additions_go_on(sides: TwoSides) -> None:
    names = filled(sides)
    gone(sides, *names[:3])
    new = sides.put(block(99))
    done = synced(sides)
    assert done.root.outcome is Outcome.HELD
    assert done.root.names == {"held": names[:3]}
    assert done.names("added") == [new]
    assert (done.guard.limit, done.guard.number, done.guard.share, done.guard.most) == (Limit.SHARE, 3, 0.15, 0.1)
    assert done.guard.bytes == sum(size for _, size, _ in files_of(names[0], 2)) * 3
    assert done.guard.override.startswith(f"phedex-rucio sync site {NODE} --approve 2")
    assert any("would mark 3 of 20 rules (15 %), limit 10 %" in note for note in done.root.notes)
    assert any(done.guard.override in note for note in done.root.notes)
    assert marks(sides) == {}
    assert synced(sides).guard.checksum == done.guard.checksum


def code_of(report: GuardReport, command: str = "") -> str:
    """The code of the approval that the report offers."""
    words = shlex.split(command or report.override)
    return words[words.index("--approve") + 1]


def test_an_approval_covers_no_block_that_its_plan_did_not_show(sides: TwoSides) -> None:
    """The batches that put the blocks on record come late; one of them was back when the person looked."""
    names = filled(sides)
    gone(sides, *names[:4])
    world = sides.world(site=WAITS)
    plan = sync_site.handle(SyncSite(node=NODE, meta=META), world)
    late = [with_meta(one, META) for one in plan.follow if isinstance(one, SyncBlocks) and one.held_since is not None]
    sides.snapshot.add_replica(names[3], NODE)
    ruling = planned(sides).ruling
    assert ruling is not None
    assert sorted(ruling.held) == names[:3]
    gone(sides, names[3])
    for batch in late:
        sync_blocks.handle(batch, world)
    close(world)
    seen = shlex.split(ruling.command)
    assert synced(sides, approve=seen[seen.index("--approve") + 1]).names("marked") == []
    assert plan.guard is not None
    assert synced(sides, approve=code_of(plan.guard)).names("marked") == names[:4]  # it showed all four


def test_an_approval_covers_no_block_that_is_custodial_since(sides: TwoSides) -> None:
    names = copied(sides, filled(sides)[:3])
    left = {name: [files_of(name, 2)[0][0]] for name in names}
    for name in names:
        sides.snapshot.set_replica_files(name, NODE, left[name])
    synced(sides)
    code = code_of(synced(sides).guard)
    sides.snapshot.add_replica(names[0], NODE, left[names[0]], custodial=True)
    done = synced(sides, approve=code)
    assert (done.names("marked"), done.root.names) == (names[1:], {"held": names[:1]})
    code = code_of(synced(sides).guard)
    assert synced(sides, approve=code).names("marked") == names[:1]


def test_an_approval_lets_pass_what_was_held_then_and_is_so_still(sides: TwoSides) -> None:
    names = filled(sides)
    gone(sides, *names[:3])
    held = synced(sides)
    assert [(batch.blocks, batch.held_since is not None) for batch in held.batches] == [(names[:3], True)]
    code = code_of(held.guard)
    assert synced(sides).batches == []  # on record already
    gone(sides, names[4])  # one more does not void the approval, and is not covered by it
    sides.snapshot.add_replica(names[0], NODE)
    synced(sides)  # one came back: its hold is over
    gone(sides, names[0])
    synced(sides)
    done = synced(sides, approve=code, reason="they said so")
    assert (done.root.outcome, done.guard.approved_by, done.guard.reason) == (
        Outcome.HELD,
        "somebody@here",
        "they said so",
    )
    assert sorted(marks(sides)) == names[1:3]
    assert done.root.names["held"] == [names[0], names[4]]
    again = synced(sides, approve=code, reason="they said so")
    assert sorted(marks(sides)) == names[1:3]
    assert again.names("marked") == []
    at_once = synced(sides, Site(removal_grace=0, **FREE))
    assert at_once.names("swept") == names[1:3]


def test_a_hold_that_is_put_on_record_late_is_not_of_its_plans_time(sides: TwoSides) -> None:
    """Meanwhile the block may have come back and left again: the approval of what that plan showed is used up."""
    names = filled(sides)
    gone(sides, *names[:3])
    shown = datetime.now(UTC) - timedelta(minutes=6)
    late = SyncBlocks(
        v=3,
        node=NODE,
        blocks=names[:3],
        removable_until=datetime.now(UTC) + timedelta(minutes=30),
        held_since=shown,
        held_why="nowhere",
        controls=names[3:4],
    )
    world = sides.world(site=WAITS)
    try:
        sync_blocks.handle(late, world)
    finally:
        close(world)
    metas = [parse_meta(row["meta"]) for row in sides.root.list_account_rules("sync_t2_it_pisa")]
    times = [hold.since for meta in metas if (hold := hold_of(meta)) is not None]
    assert (len(times), min(times) > shown.timestamp() + 300) == (3, True)
    code = approvals.code_of(shown, approvals.scope_of(NODE, "*"))
    assert synced(sides, approve=code, reason="of before").guard.held == 3
    assert marks(sides) == {}


def test_an_approval_lapses_and_is_of_one_site_and_pattern(sides: TwoSides) -> None:
    names = filled(sides)
    gone(sides, *names[:3])
    code = code_of(synced(sides).guard)
    old = approvals.code_of(datetime.now(UTC) - timedelta(days=2), approvals.scope_of(NODE, "*"))
    elsewhere = approvals.code_of(datetime.now(UTC), approvals.scope_of(OTHER, "*"))
    for wrong, says in ((old, "has lapsed"), (elsewhere, "another site"), ("0" * 16, "is no approval code")):
        refused = synced(sides, approve=wrong, reason="really")
        assert (refused.root.outcome, refused.guard.limit) == (Outcome.HELD, Limit.APPROVAL)
        assert says in refused.guard.says[0]
    assert marks(sides) == {}
    assert synced(sides, approve=code, reason="really").names("marked") == names[:3]


def test_what_is_gone_everywhere_waits_for_one_approval_for_all_sites(sides: TwoSides) -> None:
    """A dataset that was deleted everywhere: held at each site, and one approval of the dataset lets all of it go."""
    strict = Site(removal_grace=3600)
    names = filled(sides)
    dataset = "/Other/Processed-v1/RAW"
    dead = [sides.put(block(n, dataset), files_of(block(n, dataset), 2)) for n in range(3)]
    for name in dead:
        sides.snapshot.add_replica(name, OTHER)
    for node in (NODE, OTHER):
        synced(sides, strict, node=node)
    sides.put(block(50), files_of(block(50), 2), node=OTHER)
    for name in dead:
        for node in (NODE, OTHER):
            sides.snapshot.remove_replica(name, node)
    reports = [synced(sides, strict, node=node).guard for node in (NODE, OTHER)]
    assert [(report.limit, report.held) for report in reports] == [(Limit.NOWHERE, 3)] * 2
    code = code_of(reports[1], reports[1].everywhere)  # of the later look, when both were on record
    world = sides.world(site=strict)
    fan = sync_dataset.handle(SyncDataset(v=2, dataset=dataset, approve=code, reason="deleted"), world)
    children = [child for child in fan.follow if isinstance(child, SyncSite)]
    close(world)
    assert [child.node for child in children] == [OTHER, NODE]
    for child in children:
        done = synced(sides, strict, node=child.node, dataset=dataset, approve=child.approve, reason=child.reason)
        assert done.names("marked") == dead, done.root.notes
    assert not set(marks(sides)) & set(names)
    for node in (NODE, OTHER):
        assert synced(sides, Site(removal_grace=0), node=node).names("swept") == dead
    assert not {lfn for name in dead for lfn, *_ in files_of(name, 2)} & {*sides.replicas(), *sides.replicas(OTHER)}


def test_a_second_rule_beside_a_held_one_is_put_on_record_and_approved_with_it(sides: TwoSides) -> None:
    """One of the form of an older tool: what its block is held for was looked at when both had it on record."""
    name, *_ = filled(sides)
    gone(sides, name)
    strict = Site(removal_grace=0)
    before = code_of(synced(sides, strict).guard)
    assert synced(sides, strict).batches == []
    sides.root.add_replication_rule([{"scope": "cms", "name": name}], 1, f"rse={NODE}", account="sync_t2_it_pisa")
    refused = synced(sides, strict, approve=before, reason="deleted")
    assert (refused.root.outcome, refused.guard.approved_by, refused.guard.limit) == (Outcome.HELD, "", Limit.NOWHERE)
    assert [batch.held_since is not None for batch in refused.batches] == [True]
    held = synced(sides, strict)
    assert (held.root.names, held.batches) == ({"held": [name]}, [])
    approved = synced(sides, strict, approve=code_of(held.guard), reason="deleted")
    assert (approved.root.outcome, approved.names("swept")) == (Outcome.CHANGED, [name])
    assert [row["expires_at"] is not None for row in sides.rules(name)] == [True, True]


def test_without_word_of_a_deletion_nothing_is_nowhere(sides: TwoSides) -> None:
    """Rows that just vanish prove nothing, also where the settings let go what is gone everywhere."""
    names = filled(sides)
    sides.snapshot.remove_replica(names[0], NODE, deleted=False)
    done = synced(sides)
    assert (done.guard.limit, done.root.names) == (Limit.UNPROVEN, {"held": [names[0]]})
    assert marks(sides) == {}
    sides.snapshot.add_replica(names[0], NODE)
    assert synced(sides).names("updated") == [names[0]]  # its hold is over
    gone(sides, names[0])
    assert synced(sides).names("marked") == [names[0]]
    assert [meta[GONE_WHY] for meta in metas(sides).values() if GONE_WHY in meta] == ["nowhere"]


def test_a_rule_that_a_person_locked_is_neither_marked_nor_swept(sides: TwoSides) -> None:
    names = filled(sides)
    rules = {row["name"]: row["id"] for row in sides.root.list_account_rules("sync_t2_it_pisa")}
    gone(sides, names[0])
    synced(sides)
    for name in names[:2]:
        sides.root.update_replication_rule(rules[name], {"locked": True})
    gone(sides, names[1])
    at_once = Site(removal_grace=0, **FREE)
    done = synced(sides, at_once)
    assert (done.root.outcome, done.guard.limit, done.root.names) == (Outcome.HELD, Limit.LOCKED, {"held": names[:2]})
    assert (done.guard.override, done.batches) == ("", [])
    code = approvals.code_of(datetime.now(UTC), approvals.scope_of(NODE, "*"))
    assert synced(sides, at_once, approve=code, reason="really").batches == []
    sides.root.update_replication_rule(rules[names[0]], {"locked": False})
    assert synced(sides, at_once).names("swept") == [names[0]]


def metas(sides: TwoSides) -> dict[str, dict[str, object]]:
    return {row["name"]: parse_meta(row["meta"]) for row in sides.root.list_account_rules("sync_t2_it_pisa")}


def test_an_rse_that_is_closed_for_deletion_loses_nothing(sides: TwoSides) -> None:
    names = filled(sides)
    gone(sides, names[0])
    synced(sides)
    gone(sides, names[1])
    sides.root.update_rse(NODE, {"availability_delete": False})
    done = synced(sides, Site(removal_grace=0, **FREE))
    assert (done.batches, marks(sides)) == ([], {names[0]: "c-1"})
    assert "closed for deletion" in done.root.notes[-1]


def test_what_a_dead_process_announced_is_taken_back_and_its_blocks_are_looked_at(sides: TwoSides) -> None:
    names = filled(sides, 4)
    world = sides.world(site=WAITS)
    told = [(names[:2], 1), (names[2:], time.time())]  # one is over since long, one may still be carried out
    for number, (some, at) in enumerate(told):
        key = f"{announcements.PREFIX}{number}"
        announcements.announce(world.rucio, NODE, key, some, by="dead", cycle="c-0", at=at)
    sides.root.delete_replicas(NODE, [{"scope": "cms", "name": files_of(names[0], 2)[0][0]}])
    result = sync_site.handle(SyncSite(node=NODE, meta=META), world)
    batches = [child for child in result.follow if isinstance(child, SyncBlocks)]
    assert [(batch.blocks, batch.deep) for batch in batches] == [(names[:2], True)]
    assert len(announcements.of(sides.root.list_rse_attributes(NODE))) == 2
    result.done()
    assert [one.key[-1] for one in announcements.of(sides.root.list_rse_attributes(NODE))] == ["1"]
    mended = sync_blocks.handle(batches[0], world)
    assert mended.counts["files"] > 0
    assert len(sides.replicas()) == 8
    close(world)


def test_small_steps_add_up(sides: TwoSides) -> None:
    names = filled(sides)
    for name in names[:2]:
        gone(sides, name)
        assert synced(sides).names("marked") == [name]
    gone(sides, names[2])
    done = synced(sides)
    assert (done.guard.limit, done.guard.says) == (
        Limit.SHARE,
        ["would mark 3 of 20 rules, 2 of them marked already (15 %), limit 10 %"],
    )


def test_what_phedex_does_not_know_at_all_waits_for_a_person_the_rest_does_not(sides: TwoSides) -> None:
    names = filled(sides)
    gone(sides, names[1])
    sides.snapshot.remove_block(names[0])
    done = synced(sides)
    assert (done.root.outcome, done.guard.limit, done.root.names) == (
        Outcome.HELD,
        Limit.UNKNOWN,
        {"held": [names[0]]},
    )
    assert sorted(marks(sides)) == [names[1]]
    assert planned(sides).remove == {names[0]: "unknown"}
    rerun = synced(sides)
    assert rerun.guard.checksum == done.guard.checksum
    synced(sides, approve=code_of(rerun.guard), reason="deleted everywhere")
    assert sorted(marks(sides)) == names[:2]


def test_custodial_blocks_and_tape_wait_for_a_person(sides: TwoSides) -> None:
    names = filled(sides, 19)
    name = sides.put(block(99), custodial=True)
    synced(sides)
    gone(sides, name)
    done = synced(sides)
    assert (done.guard.limit, done.root.names) == (Limit.CUSTODIAL, {"held": [name]})
    sides.snapshot.add_replica(name, NODE, custodial=True)
    gone(sides, names[0])
    sides.root.update_rse(NODE, {"rse_type": "TAPE"})
    done = synced(sides, Site(rse=NODE, **FREE))
    assert (done.guard.limit, done.root.names) == (Limit.TAPE, {"held": [names[0]]})
    free = synced(sides, Site(rse=NODE, hold_custodial=False, **FREE))
    assert (free.root.outcome, free.names("marked")) == (Outcome.CHANGED, [names[0]])


@pytest.mark.parametrize("custodial", [False, True])
def test_a_file_leaves_the_custodial_block_that_a_person_lets_go(sides: TwoSides, custodial: bool) -> None:
    """A custodial block moves, and a file of it is invalidated: it waits for its person alone, and then for nobody."""
    filled(sides, 19)
    name = sides.put(block(99), files_of(block(99), 2), custodial=True)
    synced(sides)
    invalid = files_of(name, 2)[0][0]
    sides.snapshot.remove_file(invalid)
    gone(sides, name)
    sides.snapshot.add_replica(name, OTHER, custodial=custodial)
    at_once = Site(removal_grace=0, max_removal_share=1, **FREE)
    held = synced(sides, at_once)
    assert (held.guard.limit, held.root.names) == (Limit.CUSTODIAL, {"held": [name]})
    for _ in range(2):
        there = synced(sides, at_once, node=OTHER)
        assert (there.results[0].counts["withheld"], invalid in sides.replicas()) == (1, True)
    synced(sides, at_once, approve=code_of(held.guard), reason="moved")
    for _ in range(2):  # remembered, then acted on
        synced(sides, at_once, node=OTHER)
    assert invalid not in sides.replicas()
    assert sides.inside(name) == set(sides.replicas(OTHER)) == {files_of(name, 2)[1][0]}
    assert synced(sides, at_once).names("swept") == [name]


def test_a_marked_block_that_becomes_custodial_waits_for_a_person(sides: TwoSides) -> None:
    """A mark says nothing of what the block is since: whatever it was marked for, nobody agreed to this."""
    (name,) = copied(sides, filled(sides)[:1])
    left = [files_of(name, 2)[0][0]]
    sides.snapshot.set_replica_files(name, NODE, left)
    assert synced(sides).names("marked") == [name]
    sides.snapshot.add_replica(name, NODE, left, custodial=True)
    at_once = Site(removal_grace=0, **FREE)
    held = synced(sides, at_once)
    assert (held.root.outcome, held.guard.limit, held.root.names) == (Outcome.HELD, Limit.CUSTODIAL, {"held": [name]})
    assert [(batch.blocks, batch.held_since is not None) for batch in held.batches] == [([name], True)]
    assert synced(sides, at_once, approve=code_of(held.guard)).names("swept") == []  # of before that was on record
    again = synced(sides, at_once)
    assert (again.guard.limit, again.batches, len(sides.replicas())) == (Limit.CUSTODIAL, [], 40)
    approved = synced(sides, at_once, approve=code_of(again.guard), reason="incomplete")
    assert (approved.root.outcome, approved.names("swept")) == (Outcome.CHANGED, [name])


def test_marked_blocks_of_a_site_that_becomes_tape_wait_for_a_person(sides: TwoSides) -> None:
    names = copied(sides, filled(sides)[:2])
    gone(sides, *names)
    assert synced(sides).names("marked") == names
    sides.root.update_rse(NODE, {"rse_type": "TAPE"})
    at_once = Site(removal_grace=0, **FREE)
    held = synced(sides, at_once)
    assert (held.guard.limit, held.root.names, held.batches) == (Limit.TAPE, {"held": names}, [])
    # A block that lost replicas to its sweep only goes forward.
    row = next(row for row in sides.rules(names[1]) if row["rse_expression"] == NODE)
    meta = {**parse_meta(row["meta"]), SWEEPING: int(time.time())}
    sides.root.update_replication_rule(row["id"], {"meta": json.dumps(meta)})
    assert synced(sides, at_once).root.names == {"held": names}  # said, and none of them went
    sides.root.delete_replicas(NODE, [{"scope": "cms", "name": files_of(names[1], 2)[0][0]}])
    forward = synced(sides, at_once)
    assert (forward.root.names, forward.names("swept")) == ({"held": names[:1]}, [names[1]])
    approved = synced(sides, at_once, approve=code_of(forward.guard), reason="moved")
    assert approved.names("swept") == names[:1]


def test_a_hold_is_over_when_files_are_back_where_incomplete_blocks_stay(sides: TwoSides) -> None:
    """An approval of before is of no use when they leave again."""
    names = filled(sides)
    keeps = Site(removal_grace=3600, incomplete="keep", **FREE)
    gone(sides, *names[:3])
    code = code_of(synced(sides, keeps).guard)
    for name in names[:3]:
        sides.snapshot.add_replica(name, NODE)
        sides.snapshot.set_replica_files(name, NODE, [files_of(name, 2)[0][0]])
    assert synced(sides, keeps).root.names == {}
    gone(sides, *names[:3])
    done = synced(sides, keeps, approve=code, reason="as before")
    assert (done.root.names, marks(sides)) == ({"held": names[:3]}, {})
    again = synced(sides, keeps, approve=code_of(done.guard), reason="as now")
    assert sorted(marks(sides)) == again.names("marked") == names[:3]


def test_an_empty_list_marks_and_sweeps_nothing(sides: TwoSides) -> None:
    names = filled(sides, 10)
    gone(sides, names[0])
    synced(sides)
    gone(sides, *names[1:])
    at_once = Site(removal_grace=0, max_removal_share=1, **FREE)
    done = synced(sides, at_once)
    assert (done.root.outcome, done.guard.limit, done.guard.override) == (Outcome.HELD, Limit.EMPTY, "")
    code = approvals.code_of(datetime.now(UTC), approvals.scope_of(NODE, "*"))
    refused = synced(sides, at_once, approve=code, reason="really")
    assert (refused.root.outcome, refused.guard.limit, refused.batches) == (Outcome.HELD, Limit.EMPTY, [])
    assert sorted(marks(sides)) == names[:1]
    allowed = Site(allow_clean=True, **FREE)
    held = synced(sides, allowed)
    assert held.guard.override
    assert (
        synced(sides, allowed, approve=code_of(held.guard), reason="closed").names("marked") == names
    )  # the first anew


def test_who_says_adds_only_and_who_is_a_canary_removes_nothing(sides: TwoSides) -> None:
    names = filled(sides)
    gone(sides, names[0])
    for site, fields in ((WAITS, {"adds_only": True}), (Site(adds_only=True), {}), (WAITS, {"limit": 5})):
        done = synced(sides, site, **fields)
        assert (done.root.outcome, done.batches, done.root.counts["to_remove"]) == (Outcome.IN_SYNC, [], 1)
        assert "left alone: 1 blocks" in done.root.notes[-1]
    dry = synced(sides, dry=True)
    assert (dry.batches, dry.root.notes) == ([], ["dry: would add 0, update 0, mark 1, sweep 0"])
    sides.root.add_rse_attribute(NODE, "phedex_sync", "adds-only")
    assert "adds-only" in synced(sides).root.notes[-1]
    assert marks(sides) == {}


def test_incomplete_blocks_go_or_stay_as_the_policy_says(sides: TwoSides) -> None:
    names = filled(sides)
    sides.snapshot.set_replica_files(names[0], NODE, [files_of(names[0])[0][0]])
    keep = planned(sides, Site(incomplete="keep", **FREE))
    assert (keep.remove, keep.same, keep.in_sync) == ({}, 20, True)
    assert synced(sides, Site(incomplete="keep", **FREE)).batches == []
    assert planned(sides).remove == {names[0]: "incomplete (1 of 2 files left)"}
    assert synced(sides).names("marked") == [names[0]]
    kept = synced(sides, Site(incomplete="keep", removal_grace=0, **FREE))
    assert (kept.root.outcome, kept.batches) == (Outcome.IN_SYNC, [])


def test_only_the_first_page_removes_and_it_does_for_the_whole_site(sides: TwoSides) -> None:
    names = filled(sides)
    gone(sides, names[0], names[19])
    for n in range(30, 35):
        sides.put(block(n))
    done = synced(sides, Site(chunck=2, batch_blocks=1, **FREE))
    removing = [batch.blocks for batch in done.batches if batch.removable_until]
    assert removing == [[names[0]], [names[19]]]
    assert [batch.blocks[0] for batch in done.batches] == [
        block(30), block(31), names[0], names[19], block(32), block(33), block(34)
    ]  # fmt: skip
    assert sorted(marks(sides)) == [names[0], names[19]]


def test_the_code_of_a_narrowed_plan_approves_no_more_than_it_showed(sides: TwoSides) -> None:
    names = filled(sides)
    gone(sides, *names[:3])
    synced(sides)  # all on record
    narrow: dict[str, Any] = {"select": "#0000[01]$", "ignore": "0$"}
    one = synced(sides, Site(max_removal_share=0, removal_grace=3600, **FREE), **narrow)
    assert (one.guard.held, one.root.names) == (1, {"held": names[1:2]})
    approval: dict[str, Any] = {"approve": code_of(one.guard), "reason": "this one"}
    others: tuple[dict[str, Any], ...] = ({}, {"select": narrow["select"]})
    for other in others:
        refused = synced(sides, **approval, **other)
        assert (refused.guard.limit, marks(sides)) == (Limit.APPROVAL, {})
        assert "was given for another site or pattern than" in refused.guard.says[0]
    done = synced(sides, **approval, **narrow)
    assert done.names("marked") == names[1:2]
    (batch,) = done.batches
    assert (batch.v, batch.approved_narrowed) == (4, approvals.narrowing(**narrow))
    assert sorted(marks(sides)) == names[1:2]


def test_a_dataset_command_decides_by_the_site_and_by_the_dataset(sides: TwoSides) -> None:
    names = filled(sides, 30)
    other = "/Other/Processed-v1/RAW"
    few = [sides.put(block(n, other)) for n in range(10)]
    synced(sides)
    gone(sides, *few[:2])
    done = synced(sides, dataset=other)
    assert (done.guard.limit, done.root.names["held"]) == (Limit.DATASET_SHARE, few[:2])
    assert f"--dataset {other} --approve" in done.guard.override
    one = synced(sides, dataset=other, select="#00001$")
    assert (one.guard.limit, one.guard.held) == (Limit.SHRUNK, 1)
    assert "--select '#00001$' --approve" in one.guard.override
    asked = {"dataset": other, "select": "#00001$", "approve": code_of(one.guard), "reason": "this one"}
    assert synced(sides, **asked).names("marked") == [few[1]]
    gone(sides, *few[2:])
    nothing = synced(sides, dataset=other)
    assert nothing.guard.limit is Limit.SHARE  # of each block there is word that it was deleted: no wonder
    for name in few:
        sides.snapshot.remove_block(name)
    nothing = synced(sides, dataset=other)
    assert (nothing.guard.limit, nothing.guard.override) == (Limit.EMPTY, "")
    assert sorted(marks(sides)) == [few[1]]
    assert len(names) == 30


def test_two_plans_of_one_reading_do_not_sweep_more_than_the_budget(sides: TwoSides) -> None:
    """Each kept to the budget and saw nothing of the other: what they marked together waits for a person."""
    other = "/Other/Processed-v1/RAW"
    names = filled(sides) + [sides.put(block(n, other), files_of(block(n, other), 2)) for n in range(5)]
    synced(sides)
    lost = [*names[:2], *names[20:22]]
    gone(sides, *lost)
    worlds = [sides.world(site=WAITS) for _ in range(2)]
    patterns = ("/Primary/*/*", other)
    plans = [
        sync_site.handle(SyncSite(node=NODE, dataset=pattern, select="#0000[01]$", meta=META), world)
        for pattern, world in zip(patterns, worlds, strict=True)
    ]
    wide = Site(removal_grace=3600, max_removal_share=0.2, **FREE)
    batches = [list(plan.follow) for plan in plans]
    for some, world in zip(batches, worlds, strict=True):
        for batch in some:
            assert isinstance(batch, SyncBlocks)
            sync_blocks.handle(batch, world)
    assert sorted(marks(sides)) == lost[:2]  # the second batch looks at the site's limits itself
    for batch in batches[1]:
        assert isinstance(batch, SyncBlocks)
        sync_blocks.handle(batch, replace(worlds[1], settings=Settings(main=sides.main, default=wide)))
    for world in worlds:
        close(world)
    assert sorted(marks(sides)) == sorted(lost)
    at_once = Site(removal_grace=0, **FREE)
    held = synced(sides, at_once)
    assert (held.root.outcome, held.guard.limit, held.batches) == (Outcome.HELD, Limit.MARKED, [])
    assert held.guard.says == ["4 marks that nobody approved: 16 % of 25 rules, limit 10 %"]
    assert held.root.names == {"held": sorted(lost)}
    assert held.guard.override.startswith(f"phedex-rucio sync site {NODE} --approve 2")
    assert synced(sides).guard.checksum == held.guard.checksum  # said before they are due, too
    assert synced(sides, wide).root.outcome is Outcome.IN_SYNC
    code = code_of(held.guard)
    looked = synced(sides, approve=code, reason="two plans, both right")
    assert (looked.root.outcome, looked.guard.approved_by) == (Outcome.CHANGED, "somebody@here")
    assert [batch.approved for batch in looked.batches] == [code]
    gone(sides, names[5])
    assert synced(sides).guard.limit is Limit.SHARE  # what was approved is spent all the same
    sides.snapshot.add_replica(names[5], NODE)
    assert synced(sides, at_once).names("swept") == sorted(lost)


def test_every_page_of_a_deep_look_takes_away_what_phedex_lists_no_more(sides: TwoSides) -> None:
    names = [sides.put(block(n), files_of(block(n), 12)) for n in range(6)]
    synced(sides)
    lost = files_of(names[5])[0][0]
    sides.snapshot.remove_file(lost)
    paged: dict[str, Any] = {"chunck": 2, "batch_blocks": 2}
    for forbidden in (Site(adds_only=True, **paged), Site(max_removal_share=0, **paged, **FREE)):
        synced(sides, forbidden, deep=True)
    gone(sides, *names[:3])  # the list has shrunk: nothing is taken away by it
    assert synced(sides, Site(**paged, **FREE), deep=True).guard.limit is Limit.SHARE
    for name in names[:3]:
        sides.snapshot.add_replica(name, NODE)
    assert lost in sides.replicas()
    for _ in range(2):  # the first reading is remembered, the second one acts
        assert lost in sides.replicas()
        done = synced(sides, Site(**paged, **FREE, removal_grace=0), deep=True)
    assert [batch.blocks for batch in done.batches] == [names[:2], names[2:4], names[4:]]
    assert all(batch.deep and batch.files_until and not batch.adds_only for batch in done.batches)
    assert lost not in sides.replicas().keys() | sides.inside(names[5])
    assert marks(sides) == {}
    assert len(sides.replicas()) == 6 * 12 - 1


def test_a_part_of_a_lying_phedex_is_left_alone_and_the_rest_goes_on(sides: TwoSides, tmp_path: Path) -> None:
    """One letter's reply is wrong in each of PhEDEx's ways: nothing leaves there, elsewhere all goes on."""
    other, faults = "/Quark/Processed-v1/RAW", tmp_path / "faults.json"
    names = filled(sides, 10)
    doubted = [sides.put(block(n, other), files_of(block(n, other), 2)) for n in range(10)]
    synced(sides)
    gone(sides, names[0], doubted[0])
    sides.put(block(50, other), node=OTHER)  # rows for who is asked about another node
    by_letter = Site(removal_grace=3600, multi_das_calls=True, **FREE)
    with running(sides.snapshot.path, faults) as url:
        main = msgspec.structs.replace(sides.main, phedex_url=url, phedex_tries=1)
        lying = replace(sides, main=main)
        for kind in ("truncated", "no_call_time", "error_document", "other_rows", "other_call", "stale", "login"):
            faults.write_text(json.dumps([{"call": "blockreplicas", "kind": kind, "match": "dataset=/Q"}]))
            done = synced(lying, by_letter)
            assert (done.root.outcome, done.root.counts["doubts"]) == (Outcome.HELD, 1), kind
            assert sorted(marks(sides)) == [names[0]], kind
        faults.write_text(json.dumps([{"call": "filereplicas", "kind": "no_call_time"}]))
        new = sides.put(block(99, other))
        with pytest.raises(Untrusted):
            synced(lying, by_letter, adds_only=True)
        faults.write_text("[]")
        assert synced(lying, by_letter).names("added") == [new]
    assert sorted(marks(sides)) == sorted([names[0], doubted[0]])
    assert len(sides.replicas()) == 2 * 20 + 3


@pytest.mark.parametrize("command", ["a plan", "a batch"])
def test_a_list_of_nodes_without_a_site_of_rucios_is_short_and_its_name_is_right(
    sides: TwoSides, tmp_path: Path, command: str
) -> None:
    names = filled(sides, 1)
    copy = tmp_path / "other.db"
    with Snapshot(copy) as other:
        other.add_node(OTHER)
        with running(other.path) as url:
            lied_to = replace(sides, main=msgspec.structs.replace(sides.main, phedex_url=url))
            with pytest.raises(NodeMissing, match=f"no node {NODE}.*Rucio has it as RSE {NODE}") as caught:
                synced(lied_to) if command == "a plan" else lied_to.sync(*names)
    assert isinstance(caught.value, Untrusted)  # tried again, where a mistyped name is a dead letter
