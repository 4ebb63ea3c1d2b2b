"""Each condition of a reply, broken one at a time: the error that is named after it is raised, and no other."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from common.phedex import one_block, rows, trust
from common.phedex.replies import BlockReplicas, Data, FileReplicas, Nodes
from common.sync.catalogue import BlockAtNode, File
from common.sync.selection import like
from tests.unit.phedex import good
from tests.unit.phedex.good import FRESH, FULL, NODE, NOW, OPEN, PART, body

Document = dict[str, Any]


def test_a_good_listing_is_read() -> None:
    found = good.listing(body(good.blockreplicas()))
    assert found.blocks == {
        FULL: BlockAtNode(3, 3000, 3, True, False, "DataOps"),
        PART: BlockAtNode(4, 4000, 1, False, False, "DataOps"),
        OPEN: BlockAtNode(2, 2000, 2, False, True, "DataOps"),
    }
    assert found.ignored == []
    assert found.as_of == datetime.fromtimestamp(NOW + 0.57439, UTC)


def test_group_and_custodial_are_read_of_the_replica() -> None:
    listed = [good.block(FULL, 3, 3, custodial="y", group=None), good.block(PART, 4, 1, custodial="n")]
    found = good.listing(body(good.envelope("blockreplicas", block=listed))).blocks
    assert found[FULL] == BlockAtNode(3, 3000, 3, True, False, "", True)
    assert found[PART] == BlockAtNode(4, 4000, 1, False, False, "DataOps", False)


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ([], "is listed with no replica instead of"),
        (["T2_IT_Bari"], "is listed with T2_IT_Bari instead of"),
        ([NODE, "T2_IT_Bari"], f"is listed with {NODE}, T2_IT_Bari instead of"),
    ],
)
def test_a_block_at_another_node_is_told_with_all_its_nodes(others: list[str], said: str) -> None:
    row = good.block(FULL, 3, 3)
    row["replica"] = [good.block(FULL, 3, 3, node=node)["replica"][0] for node in others]
    with pytest.raises(trust.OtherNode, match=f"{said} {NODE}"):
        good.listing(body(good.envelope("blockreplicas", block=[row])))


def test_an_empty_listing_is_legal() -> None:
    assert good.listing(body(good.envelope("blockreplicas", block=[]))).blocks == {}


def test_all_numbers_may_be_strings() -> None:
    document = good.blockreplicas()
    plain = good.listing(body(document))
    for row in document["phedex"]["block"]:
        for part in (row, row["replica"][0]):
            part.update(files=str(part["files"]), bytes=str(part["bytes"]))
    document["phedex"].update(request_timestamp=str(document["phedex"]["request_timestamp"]), call_time=0.00231)
    assert good.listing(body(document)) == plain


def test_a_name_that_does_not_parse_is_ignored_and_reported() -> None:
    document = good.blockreplicas()
    odd = "/TAC-TIBTOB-120-DAQ-EDM/RECO#1"
    document["phedex"]["block"].append(good.block(odd, 1, 1))
    found = good.listing(body(document))
    assert found.ignored == [odd]
    assert list(found.blocks) == [FULL, PART, OPEN]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", trust.Truncated),
        (body(good.blockreplicas())[:-1], trust.Truncated),
        (body(good.blockreplicas())[:500], trust.Truncated),
        (b"failed", trust.NotJson),
        (body(good.blockreplicas()) + b'{"error":"database"}', trust.NotJson),
        (b"\n<!DOCTYPE html><html><head><title>CERN Single Sign-On</title></head></html>", trust.LoginPage),
        (b"<html><body>maintenance</body></html>", trust.LoginPage),
        (b"<error>Unsupported format 'yaml'</error>", trust.ErrorDocument),
        (b"<?xml version='1.0'?><error>Unsupported</error>", trust.ErrorDocument),
        (b"<?xml version='1.0'?><note>Unsupported</note>", trust.NotJson),
        (b"failed with <error>", trust.NotJson),
        (b" " * 4091 + b"<html", trust.LoginPage),
        (b" " * 4092 + b"<html", trust.NotJson),  # so far nobody looks
        (b'{"error":"API call was not defined."}', trust.ErrorDocument),
        (b'{"phedex":{"error":"database away"}}', trust.ErrorDocument),
        (body({**good.blockreplicas(), "error": "late"}), trust.ErrorDocument),
        (b"[]", trust.Malformed),
        (b"null", trust.Malformed),
        (b"{}", trust.Malformed),
        (b'{"phedex":[]}', trust.Malformed),
        (b'{"phedex":{"block":5,"request_call":"\xff"}}', trust.Malformed),
        (b'{"phedex":{"block":5,"x":' + b"[" * 100_000, trust.Malformed),
        (body(good.blockreplicas()).replace(b"DataOps", b"\xff\xfe"), trust.Malformed),
        (b'{"x":' + b"[" * 100_000, trust.Malformed),
    ],
)
def test_a_body_that_is_no_reply_is_refused_by_name(content: bytes, expected: type[Exception]) -> None:
    with pytest.raises(expected) as caught:
        good.listing(content)
    assert type(caught.value) is expected
    assert str(caught.value).startswith("blockreplicas?node=T2_IT_Pisa&dataset=/A*/*/*: ")
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 500


def _envelope(**values: Any) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        for key, value in values.items():
            document["phedex"][key] = value

    return change


def _without(key: str) -> Callable[[Document], None]:
    return lambda document: document["phedex"].pop(key)


def _row(number: int, **values: Any) -> Callable[[Document], None]:
    return lambda document: document["phedex"]["block"][number].update(values)


def _replica(number: int, **values: Any) -> Callable[[Document], None]:
    return lambda document: document["phedex"]["block"][number]["replica"][0].update(values)


def _twice(document: Document) -> None:
    document["phedex"]["block"].append(document["phedex"]["block"][0])


def _replica_twice(document: Document) -> None:
    document["phedex"]["block"][0]["replica"] *= 2


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_without("call_time"), trust.Unfinished),
        (_without("block"), trust.Malformed),
        (_without("request_timestamp"), trust.Malformed),
        (_without("request_call"), trust.Malformed),
        (_without("instance"), trust.Malformed),
        (_envelope(call_time=None), trust.Malformed),
        (_envelope(request_call="filereplicas"), trust.WrongCall),
        (_envelope(request_call="nodes", block=[{"name": "x"}]), trust.WrongCall),
        (_envelope(instance="debug"), trust.WrongInstance),
        (_envelope(request_timestamp=NOW - 601), trust.Stale),
        (_envelope(request_timestamp=0), trust.Stale),
        (_envelope(request_timestamp=NOW + 302), trust.FromTheFuture),
        (_envelope(request_timestamp="nan"), trust.FromTheFuture),
        (_envelope(request_timestamp="inf"), trust.FromTheFuture),
        (_replica(1, node="T2_IT_Bari"), trust.OtherNode),
        (_replica(1, node="t2_it_pisa"), trust.OtherNode),
        (_row(1, replica=[]), trust.OtherNode),
        (_row(1, name="/Beta/Run2018A-v1/RAW#1"), trust.OtherBlock),
        (_twice, trust.Repeated),
        (_replica_twice, trust.Repeated),
        (_row(0, files=4), trust.Contradiction),
        (_replica(0, files=2), trust.Contradiction),
        (_replica(0, complete="n"), trust.Contradiction),
        (_replica(1, complete="y"), trust.Contradiction),
        (_row(0, is_open="y"), trust.Contradiction),
        (_row(0, is_open=None), trust.Malformed),
        (_row(0, files=-3), trust.Malformed),
        (_row(0, files="three"), trust.Malformed),
        (_replica(0, files=None), trust.Malformed),
    ],
)
def test_a_listing_with_one_thing_wrong_is_refused_by_name(
    change: Callable[[Document], None], expected: type[Exception]
) -> None:
    document = good.blockreplicas()
    change(document)
    with pytest.raises(expected) as caught:
        good.listing(body(document))
    assert type(caught.value) is expected


@pytest.mark.parametrize("timestamp", [NOW - 600, NOW, NOW + 301])
def test_a_reply_within_cache_age_and_clock_skew_is_fresh(timestamp: float) -> None:
    document = good.blockreplicas()
    document["phedex"]["request_timestamp"] = timestamp
    assert len(good.listing(body(document)).blocks) == 3


def test_a_redirect_is_refused_and_only_its_host_is_told() -> None:
    with pytest.raises(trust.Redirected, match=r"status 302 to login\.example\.org instead") as caught:
        good.listing(b"", status=302, location="https://login.example.org/auth?token=secret")
    assert "secret" not in str(caught.value)


def test_a_status_that_is_no_redirect_is_told_without_a_host() -> None:
    asked = good.question(BlockReplicas)
    with pytest.raises(trust.Redirected, match="status 204 to None instead of a reply"):
        trust.read(BlockReplicas, asked, trust.Answer(204, b"", NOW, NOW), FRESH)


def test_the_outer_one_of_two_errors_is_told() -> None:
    with pytest.raises(trust.ErrorDocument, match='PhEDEx says "outer"'):
        good.listing(b'{"phedex":{"error":"inner"},"error":"outer"}')
    with pytest.raises(trust.ErrorDocument, match='PhEDEx says "inner"'):
        good.listing(b'{"phedex":{"error":"inner"}}')


@pytest.mark.parametrize(("asked", "came"), [("prod", "PROD"), ("Prod", "prod")])
def test_an_instance_may_be_written_in_any_case(asked: str, came: str) -> None:
    document = good.blockreplicas()
    document["phedex"]["instance"] = came
    question = trust.Question("blockreplicas", asked, ())
    assert trust.read(BlockReplicas, question, good.answer(body(document)), FRESH).instance == came


def test_a_text_from_outside_is_one_line_of_200_characters() -> None:
    assert trust.cut("a\n b\t\tc") == "a b c"
    assert (trust.cut("x" * 200), trust.cut("x" * 201)) == ("x" * 200, "x" * 199 + "…")


def test_a_login_page_shows_its_title_only() -> None:
    page = b"<html><head><title>Sign in</title></head><body><input name=token value=secret></body></html>"
    with pytest.raises(trust.LoginPage, match="'Sign in'") as caught:
        good.listing(page)
    assert "secret" not in str(caught.value)


def test_a_call_may_be_repeated_as_it_was_written() -> None:
    document = good.blockreplicas()
    document["phedex"]["request_call"] = "blockReplicas"  # as recorded in 2009
    assert len(good.listing(body(document)).blocks) == 3


def test_good_file_lists_are_read_and_a_partial_one_is_doubted() -> None:
    found, doubts = good.file_lists(body(good.filereplicas()))
    assert found == {FULL: [File(good.lfn(n), 10, "0a952185") for n in range(3)]}
    assert {name: str(doubt) for name, doubt in doubts.items()} == {
        PART: f"block {PART}: 2 of 4 files are listed at {NODE}"
    }
    assert type(doubts[PART]) is trust.FilesMissing


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"name": "/store/../etc/passwd"}, trust.BadFile),
        ({"name": "relative.root"}, trust.BadFile),
        ({"name": good.lfn(1)}, trust.BadFile),
        ({"bytes": -1}, trust.BadFile),
        ({"replica": []}, trust.BadFile),
    ],
)
def test_one_bad_file_costs_its_block_alone(values: dict[str, Any], expected: type[Exception]) -> None:
    document = good.filereplicas()
    other = document["phedex"]["block"][1]
    other["file"] = [good.file(good.lfn(10 + n)) for n in range(4)]
    document["phedex"]["block"][0]["file"][2].update(values)
    found, doubts = good.file_lists(body(document))
    assert list(found) == [PART]
    assert [type(doubt) for doubt in doubts.values()] == [expected]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"bytes": 31}, "3 files of 30 bytes are listed, the block has 3 of 31"),
        ({"bytes": "29"}, "3 files of 30 bytes are listed, the block has 3 of 29"),
        ({"bytes": 0}, "3 files of 30 bytes are listed, the block has 3 of 0"),
    ],
)
def test_a_list_that_does_not_add_up_to_its_own_block_is_doubted(row: dict[str, Any], said: str) -> None:
    document = good.filereplicas()
    document["phedex"]["block"][0].update(row)
    found, doubts = good.file_lists(body(document))
    assert found == {}
    assert (type(doubts[FULL]), str(doubts[FULL])) == (trust.FilesMissing, f"block {FULL}: {said} at {NODE}")


@pytest.mark.parametrize("figures", [(6, 60), (3, 31), (3, 0), (0, 0), (2, 30)])
def test_a_list_that_is_not_what_blockreplicas_says_is_doubted(figures: tuple[int, int]) -> None:
    found, doubts = good.file_lists(body(good.filereplicas()), {FULL: figures})
    assert found == {}
    assert type(doubts[FULL]) is trust.FilesMissing
    assert f"3 files of 30 bytes are listed, the block has {figures[0]} of {figures[1]}" in str(doubts[FULL])


def test_a_list_that_is_what_blockreplicas_says_is_believed() -> None:
    found, _ = good.file_lists(body(good.filereplicas()), {FULL: (3, 30), OPEN: (7, 7)})
    assert list(found) == [FULL]


def _listed(document: Document, figures: tuple[int, int] | None = None) -> Any:
    asked = good.question(FileReplicas)
    document["phedex"]["block"] = document["phedex"]["block"][:1]
    reply = trust.read(FileReplicas, asked, good.answer(body(document)), FRESH)
    return one_block.listed(asked, reply, FULL, figures)


@pytest.mark.parametrize(
    ("row", "figures", "doubt"),
    [
        ({}, None, ""),
        ({}, (3, 30), ""),
        ({}, (6, 60), "3 files of 30 bytes are listed, the block has 6 of 60"),
        ({"bytes": "40"}, None, "3 files of 30 bytes are listed, the block has 3 of 40"),
        ({"files": 4}, (3, 30), "3 of 4 files are listed"),
    ],
)
def test_the_list_of_one_block_everywhere_has_to_add_up_too(
    row: dict[str, Any], figures: tuple[int, int] | None, doubt: str
) -> None:
    document = good.filereplicas()
    document["phedex"]["block"][0].update(row)
    assert _listed(document, figures).doubt == doubt


def test_a_file_without_adler32_has_none() -> None:
    document = good.filereplicas()
    document["phedex"]["block"][0]["file"][0]["checksum"] = "cksum:2470571517"
    document["phedex"]["block"][0]["file"][1]["checksum"] = None
    found, _ = good.file_lists(body(document))
    assert [file.adler32 for file in found[FULL]] == [None, None, "0a952185"]


def test_a_block_that_is_not_listed_is_doubted() -> None:
    found, doubts = good.file_lists(body(good.envelope("filereplicas", block=[])))
    assert found == {}
    assert [type(doubts[name]) for name in (FULL, PART)] == [trust.FilesMissing] * 2


def test_files_of_another_node_or_block_refuse_the_whole_reply() -> None:
    document = good.filereplicas()
    document["phedex"]["block"][0]["file"][0]["replica"][0]["node"] = "T2_IT_Bari"
    with pytest.raises(trust.OtherNode):
        good.file_lists(body(document))
    document = good.filereplicas()
    document["phedex"]["block"][0]["name"] = OPEN
    with pytest.raises(trust.OtherBlock):
        good.file_lists(body(document))
    document = good.filereplicas()
    document["phedex"]["block"].append(document["phedex"]["block"][1])
    with pytest.raises(trust.Repeated):
        good.file_lists(body(document))


@pytest.mark.parametrize("size", [0, 1])
def test_a_file_may_be_empty(size: int) -> None:
    document = good.filereplicas()
    document["phedex"]["block"][0].update(bytes=20 + size)
    document["phedex"]["block"][0]["file"][0]["bytes"] = size
    assert good.file_lists(body(document))[0][FULL][0] == File(good.lfn(0), size, "0a952185")


def test_nodes_are_read_by_name() -> None:
    listed = [{"name": name, "kind": "Disk", "se": None, "technology": "Other"} for name in (NODE, "T1_IT_CNAF_MSS")]
    asked = good.question(Nodes)
    reply = trust.read(Nodes, asked, good.answer(body(good.envelope("nodes", node=listed))), FRESH)
    assert {name: node.name for name, node in rows.nodes(asked, reply).items()} == {
        NODE: NODE,
        "T1_IT_CNAF_MSS": "T1_IT_CNAF_MSS",
    }


def test_no_nodes_at_all_are_not_believed() -> None:
    asked = good.question(Nodes)
    reply = trust.read(Nodes, asked, good.answer(body(good.envelope("nodes", node=[]))), FRESH)
    with pytest.raises(trust.NoNodes):
        rows.nodes(asked, reply)


def test_known_blocks_are_those_asked_for() -> None:
    listed = [{"name": FULL, "files": 3, "bytes": 30}]
    payload = [{"name": "dbs", "dataset": [{"name": "/Alpha/Run2018A-v1/RAW", "block": listed}]}]
    asked = good.question(Data)
    reply = trust.read(Data, asked, good.answer(body(good.envelope("data", dbs=payload))), FRESH)
    assert rows.known(asked, reply, {FULL, PART}) == {FULL: 30}
    with pytest.raises(trust.OtherBlock):
        rows.known(asked, reply, {PART})


def _placed(*listed: Document) -> dict[str, list[str]]:
    asked = good.question(BlockReplicas)
    document = good.envelope("blockreplicas", block=list(listed))
    reply = trust.read(BlockReplicas, asked, good.answer(body(document)), FRESH)
    return rows.placed(asked, reply, like(good.PATTERN))


def test_complete_blocks_are_placed_by_node_and_retired_nodes_left_out() -> None:
    row = good.block(FULL, 3, 3)
    row["replica"] += good.block(FULL, 3, 3, node="T1_IT_CNAF_MSS")["replica"]
    row["replica"] += good.block(FULL, 3, 3, node="XT1_TW_ASGC_MSS")["replica"]
    odd = good.block("/TAC-TIBTOB-120-DAQ-EDM/RECO#1", 1, 1)  # a name that does not parse
    assert _placed(odd, row, odd, good.block(PART, 1, 1)) == {NODE: [FULL, PART], "T1_IT_CNAF_MSS": [FULL]}


def test_a_placement_twice_at_a_node_is_refused() -> None:
    row = good.block(FULL, 3, 3)
    row["replica"] *= 2
    with pytest.raises(trust.Repeated, match=f"block {FULL} is listed twice at a node"):
        _placed(row)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (good.block(PART, 3, 2), trust.Contradiction),
        (good.block(PART, 3, 3, complete="n"), trust.Contradiction),
        (good.block(PART, 3, 2, complete="y"), trust.Contradiction),
        (good.block(PART, 3, 3, "y", complete="y"), trust.Contradiction),
        (good.block("/Beta/Run2018A-v1/RAW#1", 1, 1), trust.OtherBlock),
        (good.block(FULL, 3, 3), trust.Repeated),
    ],
)
def test_a_placement_with_one_thing_wrong_is_refused_by_name(row: Document, expected: type[Exception]) -> None:
    with pytest.raises(expected) as caught:
        _placed(good.block(FULL, 3, 3), row)
    assert type(caught.value) is expected


def test_what_another_try_may_mend_is_the_way_to_phedex() -> None:
    untrusted = {kind for kind in vars(trust).values() if isinstance(kind, type) and issubclass(kind, trust.Untrusted)}
    says = {trust.Malformed, trust.WrongCall, trust.WrongInstance, trust.FromTheFuture, trust.Stale}
    of_rows = untrusted - {trust.Untrusted} - says - set(trust.TRANSPORT)
    way = ["ErrorDocument", "LoginPage", "NotJson", "Redirected", "Truncated", "Unfinished"]
    assert sorted(kind.__name__ for kind in trust.TRANSPORT) == way
    assert {kind.__name__ for kind in of_rows} >= {"OtherBlock", "Repeated", "FilesMissing", "BadFile"}


RECORDED = Path(__file__).parents[2] / "data" / "replies"


@pytest.mark.parametrize(
    ("recording", "asked_at", "places"),
    [
        ("blockreplicas_2009-04-13_v1.3.1.json", 1239641469.0, ["T1_US_FNAL_Buffer", "T1_US_FNAL_MSS", "T2_CH_CAF"]),
        ("blockreplicas_2011-07-27_v2.1.8.json", 1311755259.0, ["T1_IT_CNAF_MSS"]),
    ],
)
def test_replies_of_the_real_service_are_read(recording: str, asked_at: float, places: list[str]) -> None:
    asked = good.question(BlockReplicas)
    answer = good.answer((RECORDED / recording).read_bytes(), asked_at=asked_at)
    reply = trust.read(BlockReplicas, asked, answer, FRESH)
    assert sorted(rows.placed(asked, reply, like("/*/*/*"))) == places
