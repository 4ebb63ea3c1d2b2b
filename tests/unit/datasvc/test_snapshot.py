"""Snapshots: built by hand, imported from recordings, generated, and changed; their sums always fit."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import UsageError
from datasvc import change, contents, invented, made, store
from datasvc.build import Snapshot, kind_of
from datasvc.generate import Size, generate, node_names
from datasvc.made import Block
from datasvc.recording import load
from tests.unit.datasvc.asking import ask, names
from tests.unit.datasvc.worlds import FULL, NOWHERE, OPEN, PART, PISA, TAPE, fill, lfn


def assert_sound(path: Path) -> None:
    """Counts and bytes of blocks and replicas are those of their files; nothing refers to what is not there."""
    connection = store.reader(path)
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    numbers = [row[0] for row in connection.execute("SELECT id FROM block").fetchall()]
    for number in numbers:
        assert_block_sound(connection, number)
    connection.close()


def assert_block_sound(connection: sqlite3.Connection, number: int) -> None:
    block = contents.block_numbered(connection, number)
    assert block is not None
    files = {file.id: file for file in contents.files_of(connection, block)}
    absent = contents.absent_of(connection, number)
    assert (len(files), sum(f.bytes for f in files.values())) == (block.files, block.bytes)
    for node, count, size in connection.execute(
        "SELECT node_id, files, bytes FROM replica WHERE block_id = ? AND dataset_id = ?", (number, block.dataset_id)
    ):
        missing = absent.pop(node, set())
        assert missing <= set(files)
        there = [file.bytes for key, file in files.items() if key not in missing]
        assert (len(there), sum(there)) == (count, size)
    assert absent == {}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Snapshot(tmp_path / "world.db", now=1_500_000_000.0) as snapshot:
        fill(snapshot)
    return tmp_path / "world.db"


def test_a_built_snapshot_is_sound(path: Path) -> None:
    assert_sound(path)


def test_made_files_add_up_and_are_found_by_name() -> None:
    block = Block(4582432, 1, "/A/Run2016H-v1/RAW#x", 2804, 811_000_000_001, False, 1.5, None, True)
    files = list(made.files(block, "/A/Run2016H-v1/RAW"))
    assert files == list(made.files(block, "/A/Run2016H-v1/RAW"))
    assert sum(file.bytes for file in files) == block.bytes
    assert len({file.name for file in files}) == len({file.id for file in files}) == 2804
    assert {made.block_id(file.name) for file in files} == {block.id}
    assert files[0].name.startswith("/store/data/Run2016H/A/RAW/v1/004/582/432/00000/")
    assert made.block_id("/store/data/other.root") is None


@pytest.mark.parametrize(
    ("dataset", "folder"),
    [
        ("/JetHT/Run2015B-PromptReco-v1/MINIAOD", "/store/data/Run2015B/JetHT/MINIAOD/PromptReco-v1/000/000/007/"),
        ("/MinBias/Summer09-MC_31X_V3-v1/GEN-SIM", "/store/mc/Summer09/MinBias/GEN-SIM/MC_31X_V3-v1/00000/"),
        ("/QCD/jdoe-mine-0123/USER", "/store/user/jdoe/QCD/mine-0123/00000/"),
        ("/TAC-TIF-120-DAQ-EDM/RAW", "/store/data/Unnamed/TAC-TIF-120-DAQ-EDM/RAW/v1/000/000/007/"),
    ],
)
def test_a_made_name_lies_where_cms_would_put_it(dataset: str, folder: str) -> None:
    block = Block(7, 1, f"{dataset}#x", 1, 10, False, 1.5, None, True)
    assert next(made.files(block, dataset)).name.startswith(folder)


def test_what_is_not_there_is_refused_by_name(path: Path) -> None:
    with Snapshot(path) as snapshot:
        with pytest.raises(UsageError, match="node T2_IT_Bari is not in"):
            snapshot.add_replica(FULL, "T2_IT_Bari")
        with pytest.raises(UsageError, match="block /X/Y/Z#1 is not in"):
            snapshot.remove_block("/X/Y/Z#1")
        with pytest.raises(UsageError, match="has no replica at"):
            snapshot.remove_replica(OPEN, TAPE)
        with pytest.raises(UsageError, match="has no file /store/nosuch"):
            snapshot.set_replica_files(FULL, PISA, ["/store/nosuch"])
        with pytest.raises(UsageError, match=f"node {PISA} cannot be added"):
            snapshot.add_node(PISA)
    assert_sound(path)


def test_an_existing_file_is_not_written_over(path: Path) -> None:
    with pytest.raises(UsageError, match="exists"):
        load(path)


def test_a_failed_import_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="0 files match"):
        load(tmp_path / "new.db", tables=tmp_path / "empty")
    assert [entry.name for entry in tmp_path.iterdir()] == ["empty"]


def test_another_file_is_no_snapshot(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, and long enough to be looked at " * 50)
    with pytest.raises(UsageError, match="not a snapshot"):
        store.reader(tmp_path / "text")


def test_a_transaction_that_fails_changes_nothing(path: Path) -> None:
    def break_off(snapshot: Snapshot) -> None:
        with snapshot.transaction():
            snapshot.remove_block(FULL)
            raise KeyError("stop")

    with Snapshot(path) as snapshot, pytest.raises(KeyError):
        break_off(snapshot)
    assert names(ask(path, "blockreplicas", "block=*")) == [FULL, PART, OPEN]


def state(path: Path, block: str) -> dict[str, tuple[int, str]]:
    """Of the block, by node: files there, and whether it is complete."""
    found = ask(path, "blockreplicas", f"block={block.replace('#', '%23')}")["block"]
    return {r["node"]: (r["files"], r["complete"]) for b in found for r in b["replica"]}


def test_each_kind_of_change_does_what_it_says(path: Path) -> None:
    with Snapshot(path) as snapshot:
        change.come(snapshot, NOWHERE, PISA)
        assert state(path, NOWHERE) == {PISA: (4, "y")}
        change.incomplete(snapshot, NOWHERE, PISA, snapshot.files(NOWHERE)[2].name)
        assert state(path, NOWHERE) == {PISA: (3, "n")}
        change.complete(snapshot, NOWHERE, PISA)
        change.move(snapshot, NOWHERE, PISA, TAPE)
        assert state(path, NOWHERE) == {TAPE: (4, "y")}
        change.shrink(snapshot, NOWHERE, snapshot.files(NOWHERE)[0].name)
        assert state(path, NOWHERE) == {TAPE: (3, "y")}
        change.go(snapshot, NOWHERE, TAPE)
        assert state(path, NOWHERE) == {}
        change.grow(snapshot, OPEN, "/store/data/more.root")
        assert state(path, OPEN) == {PISA: (2, "n")}
        change.close(snapshot, OPEN)
        assert state(path, OPEN) == {PISA: (2, "y")}
        change.new(snapshot, "/A/B-v1/RAW#n", PISA, files=2)
        assert state(path, "/A/B-v1/RAW#n") == {PISA: (2, "n")}
        change.unknown(snapshot, FULL)
        assert ask(path, "data", f"block={FULL.replace('#', '%23')}")["dbs"] == []
        assert ask(path, "data", f"file={lfn(1, 0)}")["dbs"] == []
    assert_sound(path)


def test_a_made_block_keeps_its_files_when_they_are_stored(path: Path) -> None:
    with Snapshot(path) as snapshot:
        before = snapshot.files(NOWHERE)
        with snapshot.transaction() as connection:
            stored = contents.store_files(connection, snapshot.block(NOWHERE))
        assert not stored.made
        assert snapshot.files(NOWHERE) == before


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000))
def test_any_walk_of_changes_leaves_a_sound_snapshot(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    paths = [tmp_path_factory.mktemp("walk") / "world.db" for _ in range(2)]
    for path in paths:
        with Snapshot(path, now=1_500_000_000.0) as snapshot:
            fill(snapshot)
    first, second = (change.apply(path, seed, 25, now=1_500_000_001.0) for path in paths)
    assert first == second
    assert_sound(paths[0])


def test_all_kinds_of_change_happen(tmp_path: Path) -> None:
    generate(tmp_path / "g.db", Size(10, 60, 4), 1)
    done = change.apply(tmp_path / "g.db", 3, 120)
    assert {step.kind for step in done} == set(change.Kind)
    assert_sound(tmp_path / "g.db")


def test_the_recorded_sample_is_imported_as_recorded(tmp_path: Path) -> None:
    counts = load(tmp_path / "s.db")
    assert (counts.nodes, counts.datasets, counts.blocks, counts.replicas) == (181, 376, 3710, 10_000)
    assert_sound(tmp_path / "s.db")
    odd = ask(tmp_path / "s.db", "blockreplicas", "node=T2_*&node=T1_*&node=T0_*")["block"]
    two_parts = [block["name"] for block in odd if block["name"].startswith("/TAC-TIBTOB-120-DAQ-EDM/CMSSW_1_3_0")]
    assert two_parts
    named = ask(tmp_path / "s.db", "blockreplicas", "dataset=/*/*/*")["block"]
    assert len({block["id"] for block in named}) == 2955
    tape = {r["group"] is None for block in odd for r in block["replica"] if r["node"].endswith("_Buffer")}
    assert tape == {True}


def test_a_generated_snapshot_is_sound_and_the_same_for_the_same_seed(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        generate(tmp_path / name, Size(12, 200, 3), seed)
    assert_sound(tmp_path / "a")
    rows = [ask(tmp_path / name, "blockreplicas", "block=*")["block"] for name in "abc"]
    assert rows[0] == rows[1] != rows[2]
    assert any(block["is_open"] == "y" for block in rows[0])
    assert {r["complete"] for block in rows[0] for r in block["replica"]} == {"y", "n"}


@pytest.mark.parametrize("count", [1, 2, 3, 30])
def test_few_nodes_are_enough(tmp_path: Path, count: int) -> None:
    assert generate(tmp_path / "g.db", Size(count, 20, 2), 1) >= 20


def test_node_names_fit_phedex_schema() -> None:
    many = node_names(400)
    assert len(set(many)) == 400
    assert max(len(name) for name in many) <= 20
    assert [kind_of(name) for name in many[:6]] == ["Disk", "Buffer", "MSS"] * 2


@pytest.mark.parametrize(
    ("node", "kind", "site"),
    [
        ("T1_US_FNAL_MSS", "MSS", "T1_US_FNAL"),
        ("T0_CH_CERN_Export", "Buffer", "T0_CH_CERN"),
        ("T1_US_FNAL_Disk", "Disk", "T1_US_FNAL"),
        ("T3_US_Princeton_ICSE", "Disk", "T3_US_Princeton_ICSE"),
    ],
)
def test_kind_and_site_follow_from_the_name(node: str, kind: str, site: str) -> None:
    assert (kind_of(node), invented.site_of(node)) == (kind, site)


def test_made_links_leave_out_retired_nodes_and_foreign_tapes() -> None:
    links = list(invented.links(["T1_IT_CNAF_MSS", "T1_IT_CNAF_Buffer", "T2_IT_Pisa", "T2_DE_DESY", "XT2_IT_Old"]))
    pairs = {(link.source, link.sink): link.distance for link in links}
    assert pairs == {
        ("T1_IT_CNAF_MSS", "T1_IT_CNAF_Buffer"): 0,
        ("T1_IT_CNAF_Buffer", "T1_IT_CNAF_MSS"): 0,
        ("T1_IT_CNAF_Buffer", "T2_IT_Pisa"): 1,
        ("T2_IT_Pisa", "T1_IT_CNAF_Buffer"): 1,
        ("T1_IT_CNAF_Buffer", "T2_DE_DESY"): 2,
        ("T2_DE_DESY", "T1_IT_CNAF_Buffer"): 2,
        ("T2_IT_Pisa", "T2_DE_DESY"): 3,
        ("T2_DE_DESY", "T2_IT_Pisa"): 3,
    }
