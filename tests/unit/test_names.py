"""Names are parsed once at the edge; the real ones pass and the hostile ones do not."""

import csv
import gzip
from collections.abc import Callable
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


@pytest.mark.parametrize(
    ("is_well_formed", "made", "most"),
    [
        (names.is_node, lambda part: f"T2_IT_{part}", 14),
        (names.is_dataset, lambda part: f"/{part}/q/T", 99),
        (names.is_dataset, lambda part: f"/p/{part}/T", 199),
        (names.is_dataset, lambda part: f"/p/q/{part}", 99),
        (names.is_block, lambda part: f"/{part}/q/T#s", 99),
        (names.is_block, lambda part: f"/p/{part}/T#s", 199),
        (names.is_block, lambda part: f"/p/q/{part}#s", 99),
        (names.is_block, lambda part: f"/p/q/T#{part}", 100),
        (names.is_block, lambda part: f"/{'P' * 99}/{'Q' * 199}/{'T' * 99}#{part}", 99),  # 500 in all
        (names.is_lfn, lambda part: f"/store/{part}", 493),  # 500 in all
    ],
)
def test_each_part_has_at_least_one_character_and_a_most(
    is_well_formed: Callable[[str], bool], made: Callable[[str], str], most: int
) -> None:
    fits = {length: is_well_formed(made("A" * length)) for length in (0, 1, 2, most - 1, most, most + 1)}
    assert fits == {0: False, 1: True, 2: True, most - 1: True, most: True, most + 1: False}


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Pisa",
        "T2_IT",
        "T2_IT_",
        "T2_it_Pisa",
        "T22_IT_Pisa",
        "t2_IT_Pisa",
        "T2_IT_Pisa_",
        "T2_IT__Pisa",
        "xT2_IT_Pisa",
    ],
)
def test_what_is_no_node(name: str) -> None:
    assert not names.is_node(name)


@pytest.mark.parametrize("name", ["", "/A/B", "/A/B-v1/AOD#1", "/A/B-v1/aod", "/A/*/AOD", "x/A/B/AOD", "/A/B-v1/AOD\n"])
def test_what_is_no_dataset(name: str) -> None:
    assert not names.is_dataset(name)


def test_the_longest_account_has_25_characters() -> None:
    assert names.sync_account("T2_XX_" + "A" * 14) == "sync_t2_xx_aaaaaaaaaaaaaa"
    with pytest.raises(ValueError, match="has 26 characters, Rucio takes 25"):
        names.sync_account("T2_XX_" + "A" * 15)


def test_names_that_follow_from_others() -> None:
    assert names.buffer_of("T1_US_FNAL_MSS") == "T1_US_FNAL_Buffer"
    assert names.dataset_of("/A/B-v1/AOD#1") == "/A/B-v1/AOD"
    assert names.full_pattern("*") == "/*/*/*"
    assert names.full_pattern("/A/*/*") == "/A/*/*"
    assert names.SCOPE == "cms"


@pytest.mark.parametrize(
    ("checksum", "adler32"),
    [
        ("cksum:1, adler32:2", "00000002"),  # a space before it
        ("adler32:00000000", "00000000"),
        ("adler32:", None),
        ("adler:1", None),
        ("adler32:x,adler32:3", "00000003"),
    ],
)
def test_adler32_in_unusual_texts(checksum: str, adler32: str | None) -> None:
    assert names.adler32_of(checksum) == adler32
