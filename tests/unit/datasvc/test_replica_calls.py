"""What blockreplicas, blockreplicasummary and filereplicas answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.datasvc.asking import ask, names
from tests.unit.datasvc.worlds import ALPHA, BETA, BUFFER, FULL, NOWHERE, OPEN, PART, PISA, RETIRED, TAPE, lfn


def quoted(name: str) -> str:
    return name.replace("#", "%23")


def test_a_block_replica_has_the_recorded_shape_and_types(world: Path) -> None:
    reply = ask(world, "blockreplicas", f"block={quoted(FULL)}&node={PISA}")
    assert reply["block"] == [
        {
            "id": "1",
            "name": FULL,
            "files": 3,
            "bytes": 33,
            "is_open": "n",
            "replica": [
                {
                    "node": PISA,
                    "node_id": "52",
                    "se": "storm.pi.infn.it",
                    "files": 3,
                    "bytes": 33,
                    "time_create": 1_400_000_000,
                    "time_update": 1_500_000_000.5,
                    "complete": "y",
                    "subscribed": "y",
                    "custodial": "n",
                    "group": "DataOps",
                }
            ],
        }
    ]
    assert isinstance(reply["call_time"], str)


@pytest.mark.parametrize(
    ("options", "blocks"),
    [
        (f"node={PISA}", [FULL, PART, OPEN]),
        ("node=T2_*", [FULL, PART, OPEN]),
        ("node=T?_IT_*", [FULL, PART, OPEN]),
        ("node=T2%25", [FULL, PART, OPEN]),
        ("node=T2_it_*", []),
        ("node=T2_IT%3FPisa", [FULL, PART, OPEN]),
        ("node=T2_ITxPisa", []),
        (f"node={TAPE};node={BUFFER}", [FULL]),
        (f"node={TAPE}&node={BUFFER}&op=node:and", []),
        (f"node=!{PISA}", [FULL, PART]),
        (f"node=T*&node=!{PISA}", [FULL]),
        ("node=T9_XX_None", []),
        (f"dataset={ALPHA}", [FULL, PART]),
        ("dataset=/A*/*/*", [FULL, PART]),
        ("dataset=/a*/*/*", []),
        ("dataset=/beta_x/*/*", [OPEN]),
        ("dataset=/betaxx/*/*", []),
        ("dataset=/*/*/*", [FULL, PART, OPEN]),
        (f"dataset=/A*/*/*&node={PISA}", [FULL, PART]),
        (f"block={quoted(PART)}", [PART]),
        (f"block={quoted(PART)}&block={quoted(FULL)}", [FULL, PART]),
        (f"block={quoted(ALPHA)}%23*", [FULL, PART]),
        (f"block={quoted(ALPHA)}%231*&block={quoted(OPEN)}", [FULL, OPEN]),
        ("block=*", [FULL, PART, OPEN]),
        (f"block={quoted(NOWHERE)}", []),
        (f"block={quoted(FULL)}&dataset={BETA}", []),
        ("block=*&se=storm.pi.infn.it", [FULL, PART, OPEN]),
        ("block=*&se=NULL", [FULL, PART]),
        ("block=*&se=!NULL", [FULL, PART, OPEN]),
        ("block=*&group=DataOps", [FULL]),
        ("block=*&group=b-*", [PART]),
        ("block=*&group=NULL", [FULL, PART, OPEN]),
        ("block=*&complete=y", [FULL]),
        ("block=*&complete=n", [PART, OPEN]),
        ("block=*&dist_complete=y", [FULL]),
        ("block=*&dist_complete=n", [PART, OPEN]),
        ("block=*&dist_complete=perhaps", [FULL, PART, OPEN]),
        ("block=*&subscribed=n", [FULL]),
        ("block=*&custodial=y", [FULL]),
        ("block=*&create_since=1500000000", [FULL, PART, OPEN]),
        ("block=*&create_since=1500000001", []),
        ("create_since=0", [FULL, PART, OPEN]),
        ("block=*&update_since=2030-01-01", []),
        ("", []),
        ("group=DataOps", []),
        ("node=", []),
    ],
)
def test_the_options_choose_the_blocks(world: Path, options: str, blocks: list[str]) -> None:
    assert names(ask(world, "blockreplicas", options)) == blocks
    if "group" not in options:
        assert names(ask(world, "blockreplicasummary", options)) == blocks


def test_without_names_only_replicas_of_the_last_day_are_answered(world: Path) -> None:
    assert names(ask(world, "blockreplicas", "", now=1_500_050_000.0)) == [FULL, PART, OPEN]
    assert names(ask(world, "blockreplicas", "", now=1_500_090_000.0)) == []


def test_only_replicas_that_pass_the_filters_are_listed(world: Path) -> None:
    listed = ask(world, "blockreplicas", f"block={quoted(FULL)}&custodial=n")["block"][0]["replica"]
    assert [replica["node"] for replica in listed] == [PISA, BUFFER]


def test_a_full_replica_of_an_open_block_is_not_complete(world: Path) -> None:
    assert ask(world, "blockreplicasummary", f"block={quoted(OPEN)}")["block"] == [
        {"name": OPEN, "replica": [{"node": PISA, "complete": "n"}]}
    ]


def test_a_replica_that_is_only_meant_to_be_there_and_a_retired_node_are_shown(world: Path) -> None:
    reply = ask(world, "blockreplicas", f"block={quoted(PART)}")
    here = {r["node"]: (r["files"], r["bytes"], r["complete"]) for r in reply["block"][0]["replica"]}
    assert here == {PISA: (1, 21, "n"), RETIRED: (0, 0, "n")}


def test_show_dataset_sums_only_when_a_batch_has_two_datasets(world: Path) -> None:
    two = ask(world, "blockreplicas", "block=*&show_dataset=y")["dataset"]
    assert [(d["name"], d["files"], d["bytes"], names(d)) for d in two] == [
        (ALPHA, 5, 74, [FULL, PART]),
        (BETA, 1, 5, [OPEN]),
    ]
    one = ask(world, "blockreplicas", f"dataset={ALPHA}&show_dataset=y")["dataset"]
    assert "files" not in one[0]
    assert "bytes" not in one[0]


def test_a_file_replica_has_the_recorded_shape_and_types(world: Path) -> None:
    reply = ask(world, "filereplicas", f"block={quoted(FULL)}&node={TAPE}")
    block = reply["block"][0]
    assert {key: block[key] for key in ("id", "name", "files", "bytes", "is_open")} == {
        "id": "1",
        "name": FULL,
        "files": 3,
        "bytes": 33,
        "is_open": "n",
    }
    assert block["file"][0] == {
        "id": "1",
        "name": lfn(1, 0),
        "bytes": 10,
        "checksum": "adler32:0a952185",
        "time_create": 1_500_000_000.5,
        "original_node": None,
        "replica": [
            {
                "node": TAPE,
                "node_id": "53",
                "se": None,
                "time_create": 1_500_000_000.5,
                "subscribed": "y",
                "custodial": "y",
                "group": "DataOps",
            }
        ],
    }


@pytest.mark.parametrize(
    ("options", "files"),
    [
        (f"block={quoted(PART)}&node={PISA}", {lfn(2, 1): [PISA]}),
        (f"block={quoted(PART)}", {lfn(2, 0): [], lfn(2, 1): [PISA]}),
        (f"lfn={lfn(2, 1)}", {lfn(2, 1): [PISA]}),
        ("lfn=/store/data/Run2018/?/0.root", {lfn(1, 0): [BUFFER, TAPE, PISA], lfn(2, 0): [], lfn(3, 0): [PISA]}),
        ("lfn=/store/data/nosuch.root", None),
        (f"dataset={BETA}", {lfn(3, 0): [PISA]}),
        (f"block={quoted(NOWHERE)}", None),
    ],
)
def test_files_are_listed_where_they_are(world: Path, options: str, files: dict[str, list[str]] | None) -> None:
    found = {
        file["name"]: sorted(replica["node"] for replica in file["replica"])
        for block in ask(world, "filereplicas", options)["block"]
        for file in block["file"]
    }
    assert found == (files or {})


def test_a_replica_at_rest_has_no_time_of_its_own(world: Path) -> None:
    file = ask(world, "filereplicas", f"lfn={lfn(1, 0)}")["block"][0]["file"][0]
    assert {r["node"]: r["time_create"] for r in file["replica"]} == {PISA: None, BUFFER: None, TAPE: 1_500_000_000.5}
