"""A batch of blocks on a real Rucio: what it adds, adopts, mends, withholds, and never does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from common.errors import NotFound, RucioError, Verdict
from common.messages.commands import SyncBlocks
from common.messages.meta import now
from common.outcome import Outcome
from common.phedex.client import Phedex
from common.settings.model import Site
from common.sync.catalogue import BlockAtNode, File
from consumers import sync_blocks
from consumers.engine.result import Failed, Result, Stop
from tests.stack.rucio_server import RucioServer
from tests.stack.world import make_account
from tests.two_sides import DATASET, NODE, OTHER, TwoSides, block, close, files_of, two_sides

ACCOUNT = "sync_t2_it_pisa"


@pytest.fixture
def sides(clean_rucio: RucioServer, tmp_path: Path) -> Iterator[TwoSides]:
    with two_sides(clean_rucio, tmp_path) as sides:
        yield sides
        assert sides.transfers() == 0, "Rucio was asked to transfer a file"


def meta(rule: dict[str, Any]) -> dict[str, Any]:
    text = rule["meta"]
    while isinstance(text, str):
        text = json.loads(text)
    return dict(text)


def dids(*names: str) -> list[dict[str, str]]:
    return [{"scope": "cms", "name": name} for name in names]


def test_new_blocks_are_whole_in_rucio(sides: TwoSides) -> None:
    names = [sides.put(block(n), group="DataOps", custodial=n == 1) for n in range(3)]
    result = sides.sync(*names)
    assert result.outcome is Outcome.CHANGED
    assert result.names == {"added": names}
    assert (result.counts["added"], result.counts["files"], result.counts["bytes"]) == (3, 9, 3 * 3003)
    assert sides.inside(DATASET) == set(names)
    for name in names:
        files = {lfn: (size, adler, "A") for lfn, size, adler in files_of(name)}
        assert sides.inside(name) == set(files)
        assert files.items() <= sides.replicas().items()
        (rule,) = sides.rules(name)
        assert (rule["account"], rule["rse_expression"], rule["state"], rule["locks_ok_cnt"]) == (
            ACCOUNT,
            NODE,
            "OK",
            3,
        )
        assert (rule["expires_at"], rule["copies"], rule["ignore_availability"]) == (None, 1, True)
        assert meta(rule) == {"phedex_group": "DataOps", "phedex_custodial": name == block(1)}


def test_twice_is_once(sides: TwoSides) -> None:
    name = sides.put(block(1))
    sides.sync(name)
    before = sides.rules(name)
    result = sides.sync(name)
    assert (result.outcome, result.counts["in_sync"]) == (Outcome.IN_SYNC, 1)
    assert sides.sync(name, deep=True).outcome is Outcome.IN_SYNC
    assert sides.rules(name) == before


def test_settings_that_changed_since_the_plan_hold_for_a_batch_that_waits(sides: TwoSides) -> None:
    names = [sides.put(block(n)) for n in range(3)]
    off = sides.sync(*names, world=sides.world(site=Site(run=False)))
    assert (off.outcome, off.counts) == (Outcome.SKIPPED, {})
    over = sides.sync(*names, world=sides.world(site=Site(run="until:2020-01-01:00:00:00")))
    assert over.outcome is Outcome.SKIPPED
    narrowed = sides.sync(*names, world=sides.world(site=Site(select="#0000[01]", ignore="#00001")))
    assert (narrowed.counts["added"], narrowed.counts["left_out"]) == (1, 2)
    assert [bool(sides.rules(name)) for name in names] == [True, False, False]
    until = now() + timedelta(minutes=5)
    sides.snapshot.remove_replica(names[0], NODE)
    kept = sides.sync(names[0], world=sides.world(site=Site(ignore="#00000")), removable_until=until)
    assert (kept.counts["left_out"], kept.counts.get("marked", 0)) == (1, 0)


def test_requests_for_new_blocks(sides: TwoSides) -> None:
    names = [sides.put(block(n), files_of(block(n), 20)) for n in range(100)]
    counts = sides.sync(*names).counts
    assert counts["added"] == 100
    assert counts["rucio_requests"] <= 15
    assert counts["phedex_requests"] <= 3


def test_a_block_that_another_site_has(sides: TwoSides) -> None:
    name = sides.put(block(1))
    sides.snapshot.add_replica(name, OTHER)
    sides.sync(name)
    assert sides.sync(name, node=OTHER).counts["added"] == 1
    assert {(rule["rse_expression"], rule["locks_ok_cnt"]) for rule in sides.rules(name)} == {(NODE, 3), (OTHER, 3)}
    assert sides.replicas(OTHER) == sides.replicas(NODE)


def test_a_block_that_is_not_or_not_wholly_at_the_node_is_left_alone(sides: TwoSides) -> None:
    name = sides.put(block(1), files=files_of(block(1)))
    sides.snapshot.set_replica_files(name, NODE, [files_of(name)[0][0]])
    opened = sides.put(block(2))
    sides.snapshot.set_open(opened, True)
    result = sides.sync(name, opened, block(3))
    assert (result.outcome, result.counts["not_at_node"]) == (Outcome.IN_SYNC, 3)
    assert sides.rucio.sql("SELECT name FROM dids") == []


def test_a_block_that_left_before_it_had_its_rule_gets_it(sides: TwoSides) -> None:
    """As after a worker that was killed between attaching and the rule; of another block only one file came."""
    names = [sides.put(block(number), node=OTHER) for number in range(2)] + [block(2)]
    sides.sync(*names[:2], node=OTHER)
    here = [*files_of(names[0]), files_of(names[1])[0]]
    rows = [{"scope": "cms", "name": name, "bytes": size, "adler32": adler} for name, size, adler in here]
    sides.root.add_replicas(NODE, rows)
    result = sides.sync(*names)
    assert (result.outcome, result.counts["ruled_late"], result.counts["not_at_node"]) == (Outcome.CHANGED, 1, 2)
    at_node = {name: [rule for rule in sides.rules(name) if rule["rse_expression"] == NODE] for name in names}
    assert [(rule["account"], rule["locks_ok_cnt"]) for rule in at_node[names[0]]] == [(f"sync_{NODE.lower()}", 3)]
    assert (at_node[names[1]], at_node[names[2]], sides.transfers()) == ([], [], 0)
    assert "ruled_late" not in sides.sync(*names).counts


def test_meta_follows_and_keeps_what_others_wrote(sides: TwoSides) -> None:
    name = sides.put(block(1), group="DataOps")
    sides.sync(name)
    (rule,) = sides.rules(name)
    sides.root.update_replication_rule(rule["id"], {"meta": {**meta(rule), "theirs": [1]}})
    sides.snapshot.add_replica(name, NODE, group="AnalysisOps", custodial=True)
    assert sides.sync(name).counts["updated"] == 1
    (rule,) = sides.rules(name)
    assert meta(rule) == {"phedex_group": "AnalysisOps", "phedex_custodial": True, "theirs": [1]}


@pytest.mark.parametrize("key", ["phedex_gone_since", "phedex_keep"])
def test_a_mark_goes_when_the_block_is_back(sides: TwoSides, key: str) -> None:
    name = sides.put(block(1))
    sides.sync(name)
    (rule,) = sides.rules(name)
    sides.root.update_replication_rule(rule["id"], {"meta": {**meta(rule), key: "2020-01-01T00:00:00Z"}})
    assert sides.sync(name).counts["updated"] == 1
    (rule,) = sides.rules(name)
    after = meta(rule)
    assert after.pop("phedex_seen") > 1_700_000_000  # when it was known to be here again
    assert after == {"phedex_group": "", "phedex_custodial": False}


def test_a_half_swept_block_that_is_back_is_whole_again(sides: TwoSides) -> None:
    name = sides.put(block(1))
    sides.sync(name)
    (rule,) = sides.rules(name)
    sides.root.update_replication_rule(rule["id"], {"meta": {**meta(rule), "phedex_gone_since": "2020"}})
    sides.root.delete_replicas(NODE, dids(*(lfn for lfn, *_ in files_of(name))))
    assert sides.sync(name).counts["updated"] == 1
    assert sides.inside(name) == set(sides.replicas()) == {lfn for lfn, *_ in files_of(name)}
    assert sides.inside(DATASET) == {name}
    assert "phedex_gone_since" not in meta(sides.rules(name)[0])
    sides.rucio.run_daemon("judge-evaluator")
    assert sides.sync(name, deep=True).outcome is Outcome.IN_SYNC


def test_a_rule_that_ends_is_revived(sides: TwoSides) -> None:
    name = sides.put(block(1))
    sides.sync(name)
    (rule,) = sides.rules(name)
    sides.root.delete_replication_rule(rule["id"])
    assert sides.sync(name).counts["revived"] == 1
    (after,) = sides.rules(name)
    assert (after["id"], after["expires_at"], after["locks_ok_cnt"]) == (rule["id"], None, 3)


def test_a_rule_that_ends_without_its_replicas_waits_for_the_cleaner(sides: TwoSides) -> None:
    name = sides.put(block(1))
    sides.snapshot.add_replica(name, OTHER)
    sides.sync(name)
    sides.sync(name, node=OTHER)
    rule = next(rule for rule in sides.rules(name) if rule["rse_expression"] == NODE)
    sides.root.delete_replicas(NODE, dids(*(lfn for lfn, *_ in files_of(name))))
    sides.root.update_replication_rule(rule["id"], {"lifetime": -1})
    result = sides.sync(name)
    assert (result.outcome, result.counts["withheld"], result.names) == (Outcome.HELD, 1, {"held": [name]})
    assert sides.replicas() == {}
    sides.rucio.run_daemon("judge-cleaner")
    assert sides.sync(name).counts["added"] == 1
    assert len(sides.replicas()) == 3


@pytest.mark.parametrize(
    ("expression", "account"), [("rse=" + NODE, ACCOUNT), (NODE, "sync_old"), ("rse=" + NODE, "sync_old")]
)
def test_an_older_rule_is_adopted(sides: TwoSides, expression: str, account: str) -> None:
    name = sides.put(block(1), group="DataOps")
    for owner in {account, "sync_t2_it_pisa_n"}:
        make_account(sides.root, owner, NODE)
    sides.root.add_container("cms", DATASET)
    sides.root.add_dataset("cms", name)
    rows = [{"scope": "cms", "name": lfn, "bytes": size, "adler32": adler} for lfn, size, adler in files_of(name)]
    sides.root.add_files_to_dataset("cms", name, rows, rse=NODE)
    # The old account is named after the node; here the settings name another owner, so that the two differ.
    owner = "sync_t2_it_pisa_n" if account == "sync_old" else ""
    written = ACCOUNT if account == "sync_old" else account
    sides.root.add_replication_rule(dids(name), 1, expression, account=written)
    result = sides.sync(name, world=sides.world(site=Site(account=owner)))
    (rule,) = sides.rules(name)
    assert (rule["rse_expression"], rule["account"], meta(rule)["phedex_group"]) == (expression, written, "DataOps")
    assert (result.counts["updated"], result.counts["adopted"]) == (1, 1)
    assert sides.sync(name, world=sides.world(site=Site(account=owner))).outcome is Outcome.IN_SYNC


def test_others_rules_and_replicas_are_untouched(sides: TwoSides) -> None:
    name = sides.put(block(1))
    make_account(sides.root, "somebody", NODE)
    sides.sync(name)
    (ours,) = sides.rules(name)
    sides.root.add_replication_rule(dids(name), 1, NODE, account="somebody", meta="{}", lifetime=3600)
    sides.root.update_replication_rule(ours["id"], {"lifetime": 3600})
    theirs = next(rule for rule in sides.rules(name) if rule["account"] == "somebody")
    stranger = {"scope": "cms", "name": "/store/user/theirs.root", "bytes": 5, "adler32": "00000005"}
    sides.root.add_replicas(NODE, [stranger])
    assert sides.sync(name).counts["revived"] == 1
    after = next(rule for rule in sides.rules(name) if rule["account"] == "somebody")
    assert after == theirs
    assert sides.replicas()["/store/user/theirs.root"] == (5, "00000005", "A")


def test_a_missing_file_is_attached_and_counted(sides: TwoSides) -> None:
    name = sides.put(block(1))
    sides.sync(name)
    lfn = files_of(name)[1][0]
    sides.root.detach_dids("cms", name, dids(lfn))
    sides.rucio.run_daemon("judge-evaluator")
    assert sides.rules(name)[0]["locks_ok_cnt"] == 2
    assert sides.sync(name).counts["updated"] == 1
    sides.rucio.run_daemon("judge-evaluator")
    (rule,) = sides.rules(name)
    assert (rule["locks_ok_cnt"], rule["state"]) == (3, "OK")
    assert sides.sync(name).outcome is Outcome.IN_SYNC


def test_a_file_that_somebody_took_out_of_a_block_of_two_sites_is_back_at_both(sides: TwoSides) -> None:
    name = sides.put(block(1))
    sides.snapshot.add_replica(name, OTHER)
    sides.sync(name)
    sides.sync(name, node=OTHER)
    lfn = files_of(name)[1][0]
    sides.root.detach_dids("cms", name, dids(lfn))
    for rse in (NODE, OTHER):
        sides.root.delete_replicas(rse, dids(lfn))
    sides.rucio.run_daemon("judge-evaluator")
    assert sides.sync(name).counts["updated"] == 1
    assert lfn in sides.inside(name) & sides.replicas().keys() & sides.replicas(OTHER).keys()
    sides.rucio.run_daemon("judge-evaluator")
    assert {rule["locks_ok_cnt"] for rule in sides.rules(name)} == {3}
    assert sides.sync(name, node=OTHER).outcome is sides.sync(name).outcome is Outcome.IN_SYNC


@pytest.mark.parametrize(("size", "adler"), [(7, "00000001"), (1001, "0000beef")])
def test_a_conflict_is_reported_and_nothing_is_overwritten(sides: TwoSides, size: int, adler: str) -> None:
    names = [sides.put(block(n)) for n in range(3)]
    lfn = files_of(names[1])[1][0]
    sides.root.add_replicas(OTHER, [{"scope": "cms", "name": lfn, "bytes": size, "adler32": adler}])
    result = sides.sync(*names)
    assert (result.counts["added"], result.counts["conflicts"]) == (2, 1)
    (note,) = result.notes
    assert names[1] in note
    assert lfn in note
    assert ("1001 bytes in PhEDEx, 7 in Rucio" if size == 7 else "00000001 in PhEDEx, 0000beef in Rucio") in note
    assert sides.replicas(OTHER)[lfn] == (size, adler, "A")
    assert lfn not in sides.replicas()
    assert sides.rules(names[1]) == []


@dataclass
class TwoSizes:
    """PhEDEx, but the last block lists a file of the first with another size, which the real one would not."""

    phedex: Phedex
    lfn: str

    @property
    def requests(self) -> int:
        return self.phedex.requests

    def blocks_at(self, node: str, blocks: list[str]) -> dict[str, BlockAtNode]:
        return self.phedex.blocks_at(node, blocks)

    def files_at(self, node: str, blocks: list[str], figures: Any) -> tuple[dict[str, list[File]], dict[str, Any]]:
        files, doubts = self.phedex.files_at(node, blocks)  # the figures would give the lie away
        files[max(files)][0] = File(self.lfn, 9)
        return files, doubts

    def close(self) -> None:
        self.phedex.close()


def test_one_name_in_two_blocks_with_two_sizes(sides: TwoSides) -> None:
    """Neither is in Rucio yet, so only the attachment itself shows it."""
    names = [sides.put(block(n)) for n in range(4)]
    world = sides.world()
    crooked: Any = TwoSizes(world.phedex, files_of(names[0])[0][0])
    result = sides.sync(*names, world=replace(world, phedex=crooked))
    assert (result.counts["added"], result.counts["conflicts"]) == (3, 1)
    assert names[3] in result.notes[0]


def test_no_rule_where_a_file_is_unavailable(sides: TwoSides) -> None:
    name = sides.put(block(1))
    lfn, size, adler = files_of(name)[0]
    sides.root.add_replicas(NODE, [{"scope": "cms", "name": lfn, "bytes": size, "adler32": adler, "state": "U"}])
    result = sides.sync(name)
    assert (result.outcome, result.counts["withheld"]) == (Outcome.HELD, 1)
    assert "2 of 3" in result.notes[0]
    assert sides.rules(name) == []


def test_no_rule_where_rucio_has_a_file_more(sides: TwoSides) -> None:
    name = sides.put(block(1))
    sides.root.add_dataset("cms", name)
    extra = {"scope": "cms", "name": "/store/data/extra.root", "bytes": 5, "adler32": "00000005"}
    sides.root.add_files_to_dataset("cms", name, [extra], rse=OTHER)
    result = sides.sync(name)
    assert (result.outcome, result.names["held"]) == (Outcome.HELD, [name])
    assert "/store/data/extra.root" in result.notes[0]
    assert sides.rules(name) == []


def test_a_file_without_checksum_on_either_side(sides: TwoSides) -> None:
    plain = files_of(block(1))
    name = sides.put(block(1), [(plain[0][0], 1, None), plain[1]])
    sides.root.add_replicas(OTHER, [{"scope": "cms", "name": plain[1][0], "bytes": plain[1][1]}])
    assert sides.sync(name).counts["added"] == 1
    assert sides.replicas()[plain[0][0]] == (1, None, "A")


def test_a_block_of_1001_files(sides: TwoSides) -> None:
    name = sides.put(block(1), files_of(block(1), 1001))
    result = sides.sync(name)
    assert (result.counts["added"], result.counts["files"]) == (1, 1001)
    assert sides.rules(name)[0]["locks_ok_cnt"] == 1001
    assert result.counts["rucio_requests"] <= 12
    sides.snapshot.add_replica(name, OTHER)
    other = sides.sync(name, node=OTHER)
    assert (other.counts["added"], other.counts["files"]) == (1, 1001)
    assert {rule["locks_ok_cnt"] for rule in sides.rules(name)} == {1001}
    assert other.counts["rucio_requests"] < result.counts["rucio_requests"]


def test_long_names(sides: TwoSides) -> None:
    dataset = f"/{'P' * 99}/{'q' * 199}/{'R' * 98}"
    name = f"{dataset}#{'s' * 100}"
    lfn = "/store/" + "f" * 493
    assert (len(name), len(lfn)) == (500, 500)
    sides.put(name, [(lfn, 5, "00000001")])
    assert sides.sync(name).counts["added"] == 1
    assert sides.inside(name) == {lfn}
    assert sides.sync(name, deep=True).outcome is Outcome.IN_SYNC


def test_a_bad_block_goes_on_alone(sides: TwoSides) -> None:
    names = [sides.put(block(n)) for n in range(8)]
    sides.root.add_dataset("cms", names[5])
    sides.root.set_status("cms", names[5], open=False)
    result = sides.sync(*names)
    assert result.counts["added"] == 7
    (failed,) = list(result.follow)
    assert isinstance(failed, Failed)
    assert isinstance(failed.command, SyncBlocks)
    assert failed.command.blocks == [names[5]]
    assert "closed" in str(failed.error)


def test_if_all_fail_alike_the_command_fails(sides: TwoSides) -> None:
    names = [sides.put(block(n)) for n in range(4)]
    with pytest.raises(NotFound, match="sync_nobody"):
        sides.sync(*names, world=sides.world(site=Site(account="sync_nobody")))
    assert sides.sync(*names).counts["added"] == 4


def test_without_its_database_rucio_is_away_and_not_asked_block_by_block(sides: TwoSides) -> None:
    names = [sides.put(block(n)) for n in range(50)]
    world = sides.world()
    asked: list[int] = []

    class Cut:
        """Rucio's client, until the batch wants to write: then the database is gone."""

        def __getattr__(self, name: str) -> Any:
            return getattr(world.rucio, name)

        def call(self, verb: str, *args: Any, **options: Any) -> Any:
            if verb == "add_dids":
                asked.append(world.rucio.requests)
                sides.rucio.postgres.stop()
            return world.rucio.call(verb, *args, **options)

    cut: Any = Cut()
    with pytest.raises(RucioError) as caught:
        sides.sync(*names, world=replace(world, rucio=cut))
    assert caught.value.verdict is Verdict.ASK
    assert world.rucio.requests - asked[0] <= 5
    sides.rucio.postgres.start()


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        ("on", Outcome.CHANGED),
        ("adds-only", Outcome.CHANGED),
        ("frozen", Outcome.SKIPPED),
        ("whatever", Outcome.SKIPPED),
    ],
)
def test_the_switch(sides: TwoSides, value: str, outcome: Outcome) -> None:
    sides.root.add_rse_attribute(NODE, "phedex_sync", value)
    assert sides.sync(sides.put(block(1))).outcome is outcome


def test_no_rse_and_not_run_are_skipped(sides: TwoSides) -> None:
    sides.snapshot.add_node("T2_DE_DESY")
    assert sides.sync(block(1), node="T2_DE_DESY").outcome is Outcome.SKIPPED
    assert sides.sync(block(1), world=sides.world(site=Site(run=False))).outcome is Outcome.SKIPPED


@pytest.mark.parametrize(("fields", "policy"), [({"dry": True}, Site()), ({}, Site(dry=True))])
def test_dry_writes_nothing(sides: TwoSides, fields: dict[str, Any], policy: Site) -> None:
    result = sides.sync(sides.put(block(1)), world=sides.world(site=policy), **fields)
    assert (result.outcome, result.counts["would_add"]) == (Outcome.SKIPPED, 1)
    assert sides.rucio.sql("SELECT name FROM dids") == []


def test_a_stop_leaves_the_rest_as_a_child_or_passes(sides: TwoSides) -> None:
    names = [sides.put(block(n), files_of(block(n), 1500)) for n in range(2)]
    passed = iter([None, Stop()])

    def checkpoint() -> None:
        if (stop := next(passed)) is not None:
            raise stop

    result = sides.sync(*names, world=sides.world(checkpoint=checkpoint))
    assert (result.names["added"], [c.blocks for c in result.follow]) == ([names[0]], [[names[1]]])  # type: ignore[union-attr]
    passed = iter([Stop()])
    with pytest.raises(Stop):
        sides.sync(*names, world=sides.world(checkpoint=checkpoint))


def test_twins_on_one_batch_and_two_sites_at_once(sides: TwoSides) -> None:
    for turn in range(4):
        names = [sides.put(block(n, f"/Primary/Turn-{turn}/RAW")) for n in range(12)]
        for name in names:
            sides.snapshot.add_replica(name, OTHER)
        nodes = [NODE, NODE] if turn % 2 else [NODE, OTHER]
        results = at_once(sides, names, nodes)
        assert not [error for error in results if isinstance(error, Exception)]
        for name in names:
            rules = sides.rules(name)
            assert sorted(rule["rse_expression"] for rule in rules) == sorted(set(nodes))
            assert {(rule["state"], rule["locks_ok_cnt"]) for rule in rules} == {("OK", 3)}
            assert sides.inside(name) == {lfn for lfn, *_ in files_of(name)}


def at_once(sides: TwoSides, names: list[str], nodes: list[str]) -> list[Result | Exception]:
    worlds = [sides.world() for _ in nodes]
    results: list[Result | Exception] = []
    barrier = threading.Barrier(len(nodes))

    def run(number: int) -> None:
        barrier.wait()
        try:
            results.append(sync_blocks.handle(SyncBlocks(node=nodes[number], blocks=names), worlds[number]))
        except RucioError as error:
            results.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(nodes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for world in worlds:
        close(world)
    return results
