"""What the calls answer that are not about replicas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from datasvc.build import Snapshot
from datasvc.refusal import Refusal
from tests.unit.datasvc.asking import ask, names
from tests.unit.datasvc.worlds import ALPHA, BETA, BUFFER, FULL, NOWHERE, OPEN, PART, PISA, TAPE, fill, lfn

SRM = {"node": PISA, "protocol": "srmv2", "sename": "storm.pi.infn.it"}


def test_nodes_hides_retired_ones_and_writes_ids_as_strings(world: Path) -> None:
    reply = ask(world, "nodes")
    assert names(reply, "node") == [PISA, TAPE, BUFFER]
    assert reply["node"][0] == {
        "name": PISA,
        "id": "52",
        "se": "storm.pi.infn.it",
        "kind": "Disk",
        "technology": "StoRM",
    }
    assert isinstance(reply["call_time"], float)


def test_nodes_without_data_are_left_out_on_demand(world: Path, tmp_path: Path) -> None:
    assert names(ask(world, "nodes", "noempty=y&node=T1_*"), "node") == [TAPE, BUFFER]
    assert names(ask(world, "nodes", "node=T9_*"), "node") == []


def test_groups_are_sorted_by_name(world: Path) -> None:
    assert ask(world, "groups")["group"] == [{"name": "DataOps", "id": "18"}, {"name": "b-tagging", "id": "19"}]


@pytest.mark.parametrize(
    ("options", "records"),
    [
        ("", [SRM]),
        ("node=T2_IT-Pisa", None),
        ("node=T2*&protocol=srmv2&sename=storm.pi.infn.it", [SRM]),
        ("node=T__IT_Pisa", [SRM]),
        ("protocol=gsiftp", [{"node": None, "protocol": "gsiftp"}]),
        ("sename=other.host", [{"node": None, "senames": "other.host"}]),
    ],
)
def test_senames_come_from_the_catalogues(world: Path, options: str, records: list[Any] | None) -> None:
    if records is None:
        with pytest.raises(Refusal):
            ask(world, "senames", options)
    else:
        assert ask(world, "senames", options)["senames"] == records


def test_tfc_lists_rules_by_direction_and_protocol_with_its_own_spelling(world: Path) -> None:
    array = ask(world, "tfc", f"node={PISA}")["storage-mapping"]["array"]
    assert [(rule["element_name"], rule["protocol"], rule["path-match"]) for rule in array] == [
        ("lfn-to-pfn", "srmv2", "(.*)"),
        ("lfn-to-pfn", "direct", "/+store/(.*)"),
        ("lfn-to-pfn", "direct", "/+raw/(.*)"),
        ("pfn-to-lfn", "srmv2", ".*SFN=(.*)"),
    ]
    assert set(array[1]) == {"element_name", "protocol", "path-match", "result"}
    assert array[0] | {"result": ""} == {
        "element_name": "lfn-to-pfn",
        "protocol": "srmv2",
        "path-match": "(.*)",
        "result": "",
        "chain": "direct",
        "destination-match": ".*",
        "is_custodial": "n",
        "space_token": "DISK",
    }
    assert ask(world, "tfc", "node=T9_XX_None")["storage-mapping"]["array"] == []


def test_lfn2pfn_maps_each_lfn_at_each_node(world: Path) -> None:
    reply = ask(world, "lfn2pfn", f"node={PISA}&protocol=srmv2&lfn=/store/a&lfn=/foo&destination={TAPE}")
    common = {"node": PISA, "protocol": "srmv2", "destination": TAPE, "custodial": None}
    pfn = "srm://storm.pi.infn.it:8444/srm?SFN=/cms/store/a"
    assert reply["mapping"] == [
        common | {"lfn": "/store/a", "pfn": pfn, "space_token": "DISK"},
        common | {"lfn": "/foo", "pfn": None, "space_token": None},
    ]
    assert ask(world, "lfn2pfn", f"node={PISA}&protocol=srmv2&lfn=/store/a&custodial=y")["mapping"][0]["pfn"] is None


def test_lfn2pfn_refuses_a_node_that_is_not_there(world: Path) -> None:
    with pytest.raises(Refusal, match=r"^no nodes found for 'T9_XX_None'$"):
        ask(world, "lfn2pfn", "node=T9_XX_None&protocol=srmv2&lfn=/store/a")


def test_links_show_kinds_and_agents_that_fit_their_status(world: Path) -> None:
    links = ask(world, "links", now=1_600_000_000.0)["link"]
    assert [(k["from"], k["to"], k["kind"], k["status"], k["distance"]) for k in links] == [
        (PISA, TAPE, "WAN", "from_down", 2),
        (PISA, BUFFER, "WAN", "deactivated", 1),
        (TAPE, BUFFER, "Staging", "ok", 0),
        (BUFFER, TAPE, "Migration", "ok", 0),
    ]
    down = links[0]
    assert 1_600_000_000 - down["from_agent_update"] > 6300 > 1_600_000_000 - down["to_agent_update"]
    assert (down["from_kind"], down["to_kind"], down["from_agent_age"]) == ("Disk", "MSS", "17h30")


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ("status=ok", 2),
        ("status=ok&status=deactivated", 3),
        ("kind=WAN", 2),
        (f"from={PISA}&to=T1_*", 2),
        ("to=T2_*", 0),
    ],
)
def test_links_are_filtered(world: Path, options: str, count: int) -> None:
    assert len(ask(world, "links", options)["link"]) == count


def test_agentlogs_tell_the_fts_server_of_a_node(world: Path) -> None:
    agents = ask(world, "agentlogs", f"agent=FileDownload&node={PISA}", now=1_600_000_000.0)["agent"]
    assert [log["message"] for log in agents[0]["log"]] == [{"$t": "-backend FTS3 -service https://fts3.cern.ch:8446"}]
    assert (agents[0]["pid"], agents[0]["log"][0]["time"]) == ("4711", "1599996400")
    assert agents[0]["node"] == [{"name": PISA, "id": 52, "se": "storm.pi.infn.it"}]
    older = ask(world, "agentlogs", f"node={PISA}&update_since=0")["agent"]
    assert len(older[0]["log"]) == 2
    assert ask(world, "agentlogs", "agent=FileRemove")["agent"] == []


def test_data_knows_what_has_no_replica(world: Path) -> None:
    reply = ask(world, "data", f"block={NOWHERE.replace('#', '%23')}&level=block")
    [dbs] = reply["dbs"]
    [dataset] = dbs["dataset"]
    assert (dataset["name"], dataset["is_transient"], dataset["time_update"]) == (BETA, "n", None)
    assert [(b["name"], b["files"], b["bytes"], "file" in b) for b in dataset["block"]] == [(NOWHERE, 4, 1001, False)]
    assert isinstance(reply["call_time"], float)


def test_data_lists_files_with_their_own_key_names(world: Path) -> None:
    reply = ask(world, "data", f"file={lfn(2, 1)}")
    block = reply["dbs"][0]["dataset"][0]["block"][0]
    assert block["name"] == PART
    assert block["file"] == [
        {
            "lfn": lfn(2, 1),
            "size": 21,
            "checksum": "adler32:1,cksum:2",
            "time_create": 1_500_000_000.5,
            "node": None,
        }
    ]


@pytest.mark.parametrize(
    ("options", "now", "blocks"),
    [
        ("dataset=/*/*/*&level=block", 1_500_000_100.0, [FULL, PART, OPEN, NOWHERE]),
        ("dataset=/*/*/*&level=block", 1_500_090_000.0, []),
        ("dataset=/*/*/*&level=block&create_since=0", 1_600_000_000.0, [FULL, PART, OPEN, NOWHERE]),
        (f"dataset={ALPHA}", 1_600_000_000.0, [FULL, PART]),
        (f"block={ALPHA}%239999", 1_600_000_000.0, []),
        ("level=file", 1_500_000_100.0, [FULL, PART, OPEN, NOWHERE]),
        ("level=file", 1_600_000_000.0, []),
    ],
)
def test_data_is_of_the_last_day_unless_something_is_named(
    world: Path, options: str, now: float, blocks: list[str]
) -> None:
    dbs = ask(world, "data", options, now=now)["dbs"]
    assert [b["name"] for d in dbs for dataset in d["dataset"] for b in dataset["block"]] == blocks


def levels(reply: dict[str, Any]) -> list[tuple[str, list[str], list[str]]]:
    """Of each dataset: its name, the nodes subscribed to it whole, and its listed blocks."""
    return [
        (d["name"], [s["node"] for s in d.get("subscription", [])], [b["name"] for b in d.get("block", [])])
        for d in reply["dataset"]
    ]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (f"node={PISA}&create_since=0", [(ALPHA, [PISA], []), (BETA, [], [OPEN])]),
        (f"node={PISA}&create_since=0&collapse=n", [(ALPHA, [PISA], [FULL, PART]), (BETA, [], [OPEN])]),
        (f"node={PISA}&create_since=0&collapse=n&percent_min=100", [(ALPHA, [], [FULL]), (BETA, [], [OPEN])]),
        ("node=52&create_since=0&block=*&collapse=n&percent_max=99", [(ALPHA, [], [PART])]),
        (f"dataset={ALPHA}", [(ALPHA, [PISA], [])]),
        (f"dataset={BETA}", []),
        (f"block={ALPHA}%23*&node={TAPE}", [(ALPHA, [], [FULL])]),
        (f"node={PISA}", []),
        ("block=*&group=DataOps&custodial=y", [(ALPHA, [], [FULL])]),
        ("block=*&request=4711", []),
        ("block=*&move=y", []),
        (
            f"block=*&collapse=n&node={PISA}&percent_min=90&percent_max=60",
            [(ALPHA, [], [FULL, PART]), (BETA, [], [OPEN])],
        ),
    ],
)
def test_subscriptions_are_of_datasets_and_blocks(world: Path, options: str, found: list[Any]) -> None:
    assert levels(ask(world, "subscriptions", options)) == found


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (f"dataset={ALPHA}", [(ALPHA, [PISA, BUFFER], [])]),
        (f"dataset={BETA}", [(BETA, [TAPE], [])]),
        (f"node={TAPE}&create_since=0", [(ALPHA, [], [FULL]), (BETA, [TAPE], [])]),
        (f"node={BUFFER}&create_since=0&collapse=n", [(ALPHA, [BUFFER], [])]),
        (f"dataset={BETA}&node=53", [(BETA, [TAPE], [])]),
        (f"dataset={BETA}&custodial=n", [(BETA, [TAPE], [])]),
        (f"dataset={BETA}&custodial=y", []),
        (f"dataset={BETA}&group=DataOps", []),
        (f"dataset={BETA}&percent_min=1", []),
        (f"dataset={BETA}&create_since=1500000001", []),
        (f"block={BETA}%23*", [(BETA, [], [OPEN])]),
    ],
)
def test_a_dataset_is_subscribed_also_where_nothing_of_it_has_come(tmp_path: Path, options: str, found: Any) -> None:
    with Snapshot(tmp_path / "world.db", now=1_500_000_000.5) as snapshot:
        fill(snapshot)
        snapshot.subscribe_dataset(ALPHA, BUFFER)  # which has a block of it without any subscription
        snapshot.subscribe_dataset(BETA, TAPE)
    reply = ask(tmp_path / "world.db", "subscriptions", options)
    assert levels(reply) == found
    expected = [s for d in reply["dataset"] for s in d.get("subscription", []) if s["node"] in {TAPE, BUFFER}]
    assert all((s["level"], s["node_files"], s["percent_files"]) == ("DATASET", None, None) for s in expected)


def test_a_subscription_has_the_recorded_shape(world: Path) -> None:
    reply = ask(world, "subscriptions", f"block={ALPHA}%231111&node={TAPE}")
    [subscription] = reply["dataset"][0]["block"][0]["subscription"]
    assert subscription == {
        "level": "BLOCK",
        "node": TAPE,
        "node_id": "53",
        "node_files": 3,
        "node_bytes": 33,
        "request": None,
        "priority": "normal",
        "move": "n",
        "suspended": "n",
        "custodial": "y",
        "group": "DataOps",
        "suspend_until": None,
        "time_create": 1_500_000_000.5,
        "time_update": 1_500_000_000.5,
        "time_start": None,
        "percent_files": 100,
        "percent_bytes": 100,
    }


def test_bounce_gives_back_what_it_got(world: Path) -> None:
    assert ask(world, "bounce", "A=1;b=x%20y&nocache=1&c=")["bounce"] == {"a": "1", "b": "x y"}
    with pytest.raises(Refusal, match=r"^error requested, dying$"):
        ask(world, "bounce", "die=now")
