"""What deletions answers, and which changes of a snapshot are on record as deletions."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from datasvc import change, store
from datasvc.build import Snapshot
from tests.unit.datasvc.asking import ask, names
from tests.unit.datasvc.test_snapshot import assert_sound, state
from tests.unit.datasvc.worlds import ALPHA, BETA, BUFFER, FULL, NOWHERE, OPEN, PART, PISA, RETIRED, TAPE, fill

NOW = 1_500_000_000.5


@pytest.fixture(scope="module")
def deleted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small world, with deletions: done, not done, done before it was asked for, at a retired node."""
    path = tmp_path_factory.mktemp("deletions") / "world.db"
    with Snapshot(path, now=NOW) as snapshot:
        fill(snapshot)
        snapshot.add_deletion(FULL, TAPE, requested=1_400_000_000.25, completed=1_400_000_100)
        snapshot.add_deletion(FULL, TAPE)
        snapshot.add_deletion(PART, PISA, requested=1_450_000_000, completed=1_440_000_000)
        snapshot.add_deletion(NOWHERE, PISA, requested=1_300_000_000, completed=1_300_000_000)
        snapshot.add_deletion(FULL, RETIRED, requested=1_300_000_000)
    return path


def test_a_deletion_has_the_recorded_shape_and_types(deleted: Path) -> None:
    reply = ask(deleted, "deletions", f"block={ALPHA}%231111&complete=y")
    assert reply["dataset"] == [
        {
            "id": "1",
            "name": ALPHA,
            "is_open": "n",
            "files": 3,
            "bytes": 33,
            "block": [
                {
                    "id": "1",
                    "name": FULL,
                    "files": 3,
                    "bytes": 33,
                    "deletion": [
                        {
                            "request": 1,
                            "node": TAPE,
                            "se": None,
                            "id": 53,
                            "time_request": "1400000000.25",
                            "time_complete": 1_400_000_100,
                            "complete": "y",
                        }
                    ],
                }
            ],
        }
    ]
    assert isinstance(reply["call_time"], str)


def listed(reply: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Block, node and `complete` of each deletion, in order."""
    return [
        (block["name"], row["node"], row["complete"])
        for dataset in reply["dataset"]
        for block in dataset["block"]
        for row in block["deletion"]
    ]


A, B, C, D = (FULL, TAPE, "y"), (FULL, TAPE, "n"), (PART, PISA, "n"), (NOWHERE, PISA, "y")


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("", [D, A, B, C]),
        ("node=T*", [D, A, B, C]),
        (f"node={PISA}", [D, C]),
        (f"node=!{PISA}", [A, B]),
        ("se=storm.pi.infn.it", [D, C]),
        ("se=NULL", [A, B]),
        (f"dataset={BETA}", [D]),
        ("dataset=/A*/*/*", [A, B, C]),
        (f"block={ALPHA}%232222", [C]),
        (f"block={ALPHA}%231111&block={BETA}%234444", [D, A, B]),
        (f"block={ALPHA}%23*&node={TAPE}", [A, B]),
        (f"block={ALPHA}%239999", []),
        ("id=2", [C]),
        ("id=1&id=4", [D, A, B]),
        ("request=2&request=3", [B, C]),
        ("request_since=1450000000", [B, C]),
        ("complete_since=1440000000", [C]),
        ("complete=y", [D, A]),
        ("complete=n", [B]),  # done before it was last asked for is neither
        ("node=T9_XX_None", []),
    ],
)
def test_the_options_choose_the_deletions(deleted: Path, options: str, found: list[Any]) -> None:
    assert listed(ask(deleted, "deletions", options)) == found


def test_the_newest_dataset_comes_first_with_the_sums_of_its_listed_blocks(deleted: Path) -> None:
    found = ask(deleted, "deletions")["dataset"]
    assert [(d["name"], d["files"], d["bytes"], names(d)) for d in found] == [
        (BETA, 4, 1001, [NOWHERE]),
        (ALPHA, 5, 74, [FULL, PART]),
    ]
    assert found[0]["block"][0]["deletion"][0]["time_request"] == "1300000000"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Snapshot(tmp_path / "world.db", now=NOW) as snapshot:
        fill(snapshot)
    return tmp_path / "world.db"


def test_what_goes_or_moves_is_on_record_as_deleted_now(path: Path) -> None:
    with Snapshot(path, now=NOW + 60) as snapshot:
        change.go(snapshot, FULL, TAPE)
        change.move(snapshot, OPEN, PISA, TAPE)
        snapshot.remove_replica(PART, PISA)
    rows = [row for d in ask(path, "deletions")["dataset"] for block in d["block"] for row in block["deletion"]]
    assert [(row["request"], row["node"], row["complete"]) for row in rows] == [
        (2, PISA, "y"),
        (1, TAPE, "y"),
        (3, PISA, "y"),
    ]
    assert {(row["time_request"], row["time_complete"]) for row in rows} == {("1500000060.5", NOW + 60)}


def test_a_record_may_just_vanish(path: Path) -> None:
    with Snapshot(path) as snapshot:
        snapshot.remove_replica(FULL, TAPE, deleted=False)
    assert TAPE not in state(path, FULL)
    assert ask(path, "deletions")["dataset"] == []


def test_a_block_that_comes_back_keeps_the_record_and_one_that_becomes_unknown_loses_it(path: Path) -> None:
    with Snapshot(path, now=NOW) as snapshot:
        change.go(snapshot, FULL, TAPE)
        change.come(snapshot, FULL, TAPE)
        assert listed(ask(path, "deletions")) == [A]
        change.unknown(snapshot, FULL)
    assert ask(path, "deletions")["dataset"] == []
    assert_sound(path)


def test_a_snapshot_of_an_earlier_version_is_served_and_written_to(path: Path) -> None:
    old = sqlite3.connect(path)
    old.execute("DROP TABLE deletion")
    old.close()
    assert ask(path, "deletions", f"block={ALPHA}%231111")["dataset"] == []
    assert len(state(path, FULL)) == 3
    connection = store.reader(path)
    assert not store.has_deletions(connection), "a reader leaves it as it is"
    connection.close()
    with Snapshot(path, now=NOW) as snapshot:
        change.go(snapshot, FULL, BUFFER)
    assert listed(ask(path, "deletions")) == [(FULL, BUFFER, "y")]
