"""Names are parsed once at the edge; the real ones pass and the hostile ones do not."""

import csv
import gzip
from pathlib import Path

import pytest

import datasvc
from common import names

RECORDED = Path(datasvc.__file__).parent / "recorded" / "tables"


def recorded_nodes() -> list[str]:
    with (RECORDED / "nodes_2016.csv").open() as rows:
        return [row["name"] for row in csv.DictReader(rows)]


def test_every_recorded_live_node_is_a_node_and_has_an_account_of_its_own() -> None:
    live = [name for name in recorded_nodes() if not name.startswith("X")]
    assert len(live) == 150
    assert all(names.is_node(name) for name in live)
    assert len({names.sync_account(name) for name in live}) == 150


def test_recorded_block_names_parse_but_for_the_two_part_datasets() -> None:
    with gzip.open(RECORDED / "block_replicas_2016-07-05_sample.csv.gz", "rt") as rows:
        blocks = {(row["dataset_name"], row["block_name"]) for row in csv.DictReader(rows)}
    refused = {dataset for dataset, block in blocks if not (names.is_block(block) and names.is_dataset(dataset))}
    assert all(dataset.count("/") == 2 for dataset in refused)
    assert len(refused) == 7


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/A/B/C",
        "/A/B-v1/AOD#",
        "/A/B-v1/AOD#1#2",
        "/A/B-v1/AOD#a b",
        "/A/B-v1/AOD#1\n",
        "/A/../AOD#1é",
        "A/B/C#1",
        "/A/" + "b" * 500 + "/C#1",
        "/A/B<x>/AOD#1",
        "/A/B-v1/AOD#\x00",
    ],
)
def test_what_is_no_block(name: str) -> None:
    assert not names.is_block(name)


@pytest.mark.parametrize(
    "name", ["/store/../etc/passwd", "/store/a/../b.root", "/etc/passwd", "/store/a b", "/store/a\n"]
)
def test_what_is_no_lfn(name: str) -> None:
    assert not names.is_lfn(name)


@pytest.mark.parametrize(
    ("checksum", "adler32"),
    [
        ("adler32:0a952185,cksum:3710306270", "0a952185"),
        ("cksum:3710306270,adler32:A952185", "0a952185"),
        ("adler32:1", "00000001"),
        ("cksum:2470571517", None),
        ("adler32:xyz", None),
        ("adler32:123456789", None),
        (None, None),
        ("", None),
    ],
)
def test_adler32_is_padded_or_absent(checksum: str | None, adler32: str | None) -> None:
    assert names.adler32_of(checksum) == adler32


def test_an_account_that_does_not_fit_is_refused_and_never_cut() -> None:
    with pytest.raises(ValueError, match="set `account:`"):
        names.sync_account("T2_XX_ANameOfTwentyOneC_Buffer")
