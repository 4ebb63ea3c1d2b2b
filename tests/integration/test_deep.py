"""What happens to a block behind our back, found by a deep look on a real Rucio and mended."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from common.outcome import Outcome
from common.settings.model import Site
from phedex_rucio.main import cli
from tests.stack.rucio_server import RucioServer
from tests.stack.world import make_account
from tests.two_sides import DATASET, NODE, OTHER, TwoSides, block, files_of, two_sides

ACCOUNT = "sync_t2_it_pisa"


@pytest.fixture
def sides(clean_rucio: RucioServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TwoSides]:
    with two_sides(clean_rucio, tmp_path) as sides:
        monkeypatch.setenv("PHEDEX_URL", sides.main.phedex_url)
        yield sides
        assert sides.transfers() == 0, "Rucio was asked to transfer a file"
        assert sides.rucio.sql("SELECT name FROM replicas WHERE tombstone IS NOT NULL") == []


def dids(*names: str) -> list[dict[str, str]]:
    return [{"scope": "cms", "name": name} for name in sorted(names)]


def settle(sides: TwoSides) -> None:
    for daemon in ("evaluator", "cleaner", "repairer"):
        sides.rucio.run_daemon(f"judge-{daemon}")


def verify(*arguments: str, code: int) -> dict[str, Any]:
    result = CliRunner().invoke(cli, ["verify", NODE, "--json", *arguments], standalone_mode=False)
    assert (result.exception, result.return_value) == (None, code), result.output
    said: dict[str, Any] = json.loads(result.stdout)
    return said


def kinds(said: dict[str, Any]) -> list[str]:
    return sorted(finding["kind"] for finding in said["nodes"][NODE]["findings"])


def put(sides: TwoSides) -> str:
    name = sides.put(block(1))
    sides.snapshot.add_replica(name, OTHER)
    for node in (NODE, OTHER):
        sides.sync(name, node=node)
    return name


def unavailable(sides: TwoSides, name: str) -> None:
    sides.root.update_replicas_states(NODE, [{**dids(files_of(name)[0][0])[0], "state": "U"}])


def deleted(sides: TwoSides, name: str) -> None:
    sides.root.delete_replicas(NODE, dids(files_of(name)[0][0]))


def detached(sides: TwoSides, name: str) -> None:
    sides.root.detach_dids("cms", name, dids(files_of(name)[0][0]))


def out_of_container(sides: TwoSides, name: str) -> None:
    sides.root.detach_dids("cms", DATASET, dids(name))


def rule_gone(sides: TwoSides, name: str) -> None:
    rule = next(rule for rule in sides.rules(name) if rule["rse_expression"] == NODE)
    sides.root.update_replication_rule(rule["id"], {"lifetime": -1})
    sides.rucio.run_daemon("judge-cleaner")


def doubled(sides: TwoSides, name: str) -> None:
    sides.root.add_replication_rule(dids(name), 1, f"rse={NODE}", account=ACCOUNT)


@pytest.mark.parametrize(
    ("harm", "found"),
    [
        (unavailable, "replica_unavailable"),
        (deleted, "replica_missing"),
        (detached, "file_missing"),
        (out_of_container, "not_in_container"),
        (rule_gone, "rule_missing"),
        (doubled, "rule_doubled"),
    ],
)
def test_what_happened_behind_our_back_is_found_and_mended(sides: TwoSides, harm: Any, found: str) -> None:
    name = put(sides)
    assert kinds(verify(code=0)) == []
    harm(sides, name)
    before = sides.rucio.sql("SELECT name, state, updated_at FROM replicas ORDER BY 1, 2")
    assert found in kinds(verify(code=3))
    assert sides.rucio.sql("SELECT name, state, updated_at FROM replicas ORDER BY 1, 2") == before
    assert sides.sync(name, deep=True).outcome is Outcome.CHANGED
    settle(sides)
    if harm is detached:  # two sites hold the block: each must have had its turn
        sides.sync(name, node=OTHER, deep=True)
        settle(sides)
    assert kinds(verify(code=0)) == []
    assert sides.sync(name, deep=True).outcome is Outcome.IN_SYNC
    assert {state for _, _, state in sides.replicas().values()} == {"A"}
    (rule,) = (rule for rule in sides.rules(name) if NODE in rule["rse_expression"])
    assert (rule["state"], rule["locks_ok_cnt"], rule["expires_at"], rule["rse_expression"]) == ("OK", 3, None, NODE)


def test_the_old_accounts_rule_ends_where_ours_covers_the_block(sides: TwoSides) -> None:
    name = sides.put(block(1))
    make_account(sides.root, "sync_new", NODE)
    sides.sync(name)
    owner = Site(account="sync_new")
    sides.root.add_replication_rule(dids(name), 1, NODE, account="sync_new")
    assert sides.sync(name, deep=True, world=sides.world(site=owner)).counts["surplus_rules"] == 1
    settle(sides)
    assert [(rule["account"], rule["locks_ok_cnt"]) for rule in sides.rules(name)] == [("sync_new", 3)]
    assert sides.rucio.sql("SELECT DISTINCT lock_cnt FROM replicas") == [(1,)]


def test_a_bad_replica_is_left_to_whoever_declared_it(sides: TwoSides) -> None:
    name = put(sides)
    lfn = files_of(name)[0][0]
    sides.rucio.sql("UPDATE replicas SET state = 'B' WHERE name = %s RETURNING 1", (lfn,))
    assert "files_revived" not in sides.sync(name, deep=True).counts
    assert kinds(verify(code=3)) == ["replica_unavailable"]


def test_a_file_that_phedex_lists_no_more_leaves_when_a_plan_permits(sides: TwoSides) -> None:
    name = put(sides)
    lost = files_of(name)[0][0]
    sides.snapshot.remove_file(lost)
    assert kinds(verify(code=3)) == ["file_unlisted", "rule_differs"]
    assert sides.sync(name, deep=True).counts["strangers"] == 1
    until = datetime.now(UTC) + timedelta(minutes=30)
    for node in (NODE, OTHER):  # remembered once for the block, by whoever comes first; and then not due for an hour
        assert "files_removed" not in sides.sync(name, node=node, files_until=until).counts
    assert lost in sides.replicas().keys() & sides.replicas(OTHER).keys() & sides.inside(name)
    world = sides.world(site=Site(removal_grace=0))
    counts = sides.sync(name, world=world, files_until=until).counts
    assert (counts["files_removed"], "strangers" in counts) == (1, False)
    assert lost not in sides.replicas().keys() | sides.replicas(OTHER).keys() | sides.inside(name)
    assert sides.rucio.sql("SELECT key FROM rse_attr_map WHERE key LIKE 'phedex_sweeping%'") == []
    settle(sides)
    assert sides.inside(DATASET) == {name}
    assert {rule["locks_ok_cnt"] for rule in sides.rules(name)} == {2}
    assert sides.sync(name, deep=True).outcome is Outcome.IN_SYNC
    assert kinds(verify(code=0)) == []


def test_a_file_list_shorter_than_the_block_is_not_believed(sides: TwoSides) -> None:
    name = sides.put(block(1))
    world = sides.world()
    phedex = world.phedex

    class Shorter:
        """PhEDEx, whose second answer is about a block that has lost a file meanwhile."""

        def __getattr__(self, verb: str) -> Any:
            return getattr(phedex, verb)

        def files_at(self, node: str, blocks: Any, figures: Any) -> Any:
            sides.snapshot.remove_file(files_of(name)[0][0])
            return phedex.files_at(node, blocks, figures)

    late: Any = Shorter()
    result = sides.sync(name, world=replace(world, phedex=late))
    assert (result.counts["doubtful"], sides.replicas()) == (1, {})
    assert "2 files" in result.notes[0]


def test_orphans_of_a_removal_cut_short_are_told_and_taken_where_a_plan_permits(sides: TwoSides) -> None:
    name = sides.put(block(1), files_of(block(1), 4))
    sides.sync(name)
    lost = files_of(name, 4)[3][0]
    sides.snapshot.remove_file(lost)
    sides.root.detach_dids("cms", name, dids(lost))
    counts = sides.sync(name, deep=True).counts
    assert counts["orphans"] == 1
    assert "orphan" in kinds(verify(code=3))
    assert lost in sides.replicas(), "nobody permitted it to go"
    soon = datetime.now(UTC) + timedelta(minutes=10)
    policy = Site(max_removal_share=1, removal_grace=0)
    for _ in range(2):  # one reading is remembered, the second one acts
        assert lost in sides.replicas()
        sides.sync(name, world=sides.world(site=policy), deep=True, files_until=soon)
    assert lost not in sides.replicas()
    assert len(sides.replicas()) == 3


def test_verify_writes_its_conflicts_to_a_table(sides: TwoSides, tmp_path: Path) -> None:
    name = sides.put(block(1))
    lfn, size, adler = files_of(name)[1]
    sides.root.add_replicas(OTHER, [{**dids(lfn)[0], "bytes": 7, "adler32": "0000beef"}])
    said = verify("--csv", str(tmp_path / "conflicts.csv"), code=3)
    assert "conflict" in kinds(said)
    with (tmp_path / "conflicts.csv").open(newline="") as table:
        (row,) = csv.DictReader(table)
    assert row == {
        "lfn": lfn,
        "node": NODE,
        "block": name,
        "phedex_bytes": str(size),
        "rucio_bytes": "7",
        "phedex_adler32": adler,
        "rucio_adler32": "0000beef",
        "rucio_rses": OTHER,
    }


def test_verify_tells_a_marked_block_from_a_surplus_one(sides: TwoSides) -> None:
    name = put(sides)
    sides.snapshot.remove_replica(name, NODE)
    assert kinds(verify(code=3)) == ["rule_surplus"]
    world = sides.world(site=Site(max_removal_share=1))
    sides.sync(name, world=world, removable_until=datetime.now(UTC) + timedelta(hours=1))
    said = verify(code=0)
    assert said["nodes"][NODE]["pending"] == 1
