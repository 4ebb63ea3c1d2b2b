"""Does the client read a real data service, and never believe one that misbehaves?"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.errors import PhedexBadRequest, PhedexStatus, PhedexUnreachable, UnknownNode, UsageError
from common.phedex import trust
from common.phedex.client import Phedex
from common.phedex.inventory import read_node
from common.phedex.transport import PhedexBusy, ReplyTooLarge
from common.settings.model import Main
from common.sync.catalogue import BlockAtNode, File
from datasvc.build import Snapshot
from datasvc.serve import running

PISA, BARI, EMPTY = "T2_IT_Pisa", "T2_IT_Bari", "T2_IT_Rome"
FULL = "/Alpha/Run2018A-v1/RAW#11111111-aaaa"
PART = "/Alpha/Run2018A-v1/RAW#22222222-bbbb"
OPEN = "/Beta/Run2018B-v1/AOD#33333333-cccc"
ELSEWHERE = "/Beta/Run2018B-v1/AOD#44444444-dddd"
NOWHERE = "/Beta/Run2018B-v1/AOD#55555555-eeee"
NEVER = "/Never/Run2018B-v1/AOD#66666666-ffff"
ODD = "/TAC-TIBTOB-120-DAQ-EDM/CMSSW_1_3_0_pre6-DIGI-RECO-Run-0005855#1"
WRONG = "/Gamma/Run2018B-v1/AOD#77777777-abcd"


class Service:
    """A data service that misbehaves as told, and a client of it."""

    def __init__(self, url: str, faults: Path) -> None:
        self.url = url
        self._faults = faults
        self.waited: list[float] = []

    def misbehave(self, *entries: dict[str, Any]) -> None:
        self._faults.write_text(json.dumps(entries))

    def client(self, **settings: Any) -> Phedex:
        return Phedex(Main(phedex_url=self.url, **{"phedex_tries": 2, **settings}), sleep=self.waited.append)


def _fill(snapshot: Snapshot) -> None:
    for node in (PISA, BARI, EMPTY):
        snapshot.add_node(node)
    for number, block in enumerate((FULL, PART, ELSEWHERE, NOWHERE)):
        snapshot.add_block(block, [(_lfn(number, n), 10 + n, "a952185") for n in range(3)])
    snapshot.add_block(OPEN, [(_lfn(9, 0), 5, None)], is_open=True)
    snapshot.add_block(WRONG, [(_lfn(8, 0) + "?bad", 5, None)])
    snapshot.add_block(ODD, [(_lfn(7, 0), 5, None)], dataset="/TAC-TIBTOB-120-DAQ-EDM/RECO")
    snapshot.add_replica(FULL, PISA, group="DataOps", custodial=True)
    snapshot.add_replica(FULL, BARI)
    snapshot.add_replica(PART, PISA, [_lfn(1, 0)])
    for block in (OPEN, WRONG, ODD):
        snapshot.add_replica(block, PISA)
    snapshot.add_replica(ELSEWHERE, BARI)


def _lfn(block: int, number: int) -> str:
    return f"/store/data/Run2018/Alpha/RAW/v1/{block}/{number}.root"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("phedex")
    with Snapshot(folder / "snapshot.db") as snapshot:
        _fill(snapshot)
    faults = folder / "faults.json"
    with running(folder / "snapshot.db", faults) as url:
        yield Service(url, faults)


@pytest.fixture
def service(shared: Service) -> Iterator[Service]:
    shared.waited.clear()
    yield shared
    shared.misbehave()


@pytest.fixture
def phedex(service: Service) -> Iterator[Phedex]:
    with service.client() as client:
        yield client


def test_a_node_is_read_whole(phedex: Phedex) -> None:
    reading = read_node(phedex, PISA, "/*/*/*", split=False)
    assert reading.blocks == {
        FULL: BlockAtNode(3, 33, 3, True, False, "DataOps", True),
        PART: BlockAtNode(3, 33, 1, False, False),
        OPEN: BlockAtNode(1, 5, 1, False, True),
        WRONG: BlockAtNode(1, 5, 1, True, False),
    }
    assert (reading.doubts, reading.node) == ([], PISA)
    assert reading.as_of is not None
    assert phedex.requests == 2  # nodes, blockreplicas


def test_a_split_reading_is_the_same(phedex: Phedex) -> None:
    checked = []
    reading = read_node(phedex, PISA, "*", split=True, checkpoint=lambda: checked.append(1))
    assert reading.blocks == read_node(phedex, PISA, "*", split=False).blocks
    assert len(checked) == 64


def test_a_pattern_or_dataset_is_asked_as_it_is(phedex: Phedex) -> None:
    assert list(read_node(phedex, PISA, "/Bet*/*/AOD", split=True).blocks) == [OPEN]
    assert list(read_node(phedex, PISA, "/Alpha/Run2018A-v1/RAW", split=True).blocks) == [FULL, PART]
    assert phedex.requests == 3


def test_an_empty_node_is_read_as_empty_and_an_unknown_one_is_not(phedex: Phedex) -> None:
    assert read_node(phedex, EMPTY, "*", split=False).blocks == {}
    with pytest.raises(UnknownNode, match="T2_IT_Nowhere"):
        read_node(phedex, "T2_IT_Nowhere", "*", split=False)
    with pytest.raises(UnknownNode):
        phedex.blocks_at("T2_IT_Nowhere", [FULL])
    with pytest.raises(UnknownNode):
        phedex.files_at("T2_IT_Nowhere", [FULL])


def test_a_name_that_does_not_parse_is_not_among_the_blocks(phedex: Phedex) -> None:
    assert ODD not in read_node(phedex, PISA, "*", split=False).blocks


def test_blocks_at_a_node(service: Service) -> None:
    with service.client(phedex_blocks=2) as phedex:
        found = phedex.blocks_at(PISA, [FULL, PART, OPEN, ELSEWHERE, NEVER, FULL])
        assert phedex.requests == 4
    assert {name: (block.complete, block.here) for name, block in found.items()} == {
        FULL: (True, 3),
        PART: (False, 1),
        OPEN: (False, 1),
    }


def test_files_at_a_node(service: Service) -> None:
    with service.client(phedex_blocks=2) as phedex:
        found, doubts = phedex.files_at(PISA, [FULL, PART, OPEN, ELSEWHERE, WRONG])
    assert found == {
        FULL: [File(_lfn(0, n), 10 + n, "0a952185") for n in range(3)],
        OPEN: [File(_lfn(9, 0), 5, None)],
    }
    assert {name: type(doubt) for name, doubt in doubts.items()} == {
        PART: trust.FilesMissing,
        ELSEWHERE: trust.FilesMissing,
        WRONG: trust.BadFile,
    }


def test_known_blocks_and_places(phedex: Phedex) -> None:
    assert phedex.known_blocks([FULL, NOWHERE, NEVER]) == {FULL, NOWHERE}
    assert phedex.nodes_with("/Alpha/*/*") == {PISA: [FULL], BARI: [FULL]}
    assert phedex.nodes_with_blocks([FULL, PART, ELSEWHERE, NOWHERE, NEVER]) == {PISA: [FULL], BARI: [FULL, ELSEWHERE]}
    assert set(phedex.nodes()) == {PISA, BARI, EMPTY}


BROKEN = [
    ("status", None, PhedexBusy, 2),
    ("status", 429, PhedexBusy, 2),
    ("status", 401, PhedexStatus, 1),
    ("status", 302, trust.Redirected, 2),
    ("status", 404, PhedexBadRequest, 1),
    ("login", None, trust.LoginPage, 2),
    ("truncated", None, trust.Truncated, 2),
    ("torn", None, PhedexUnreachable, 2),
    ("no_call_time", None, trust.Unfinished, 2),
    ("error_document", None, trust.ErrorDocument, 2),
    ("other_rows", BARI, trust.OtherNode, 1),
    ("other_instance", None, trust.WrongInstance, 1),
    ("other_call", None, trust.WrongCall, 1),
    ("stale", None, trust.Stale, 1),
    ("stale", -3600, trust.FromTheFuture, 1),
]


@pytest.mark.parametrize(("kind", "value", "expected", "tries"), BROKEN)
def test_a_fault_is_named_and_retried_where_that_may_help(
    service: Service, phedex: Phedex, kind: str, value: Any, expected: type[Exception], tries: int
) -> None:
    phedex.check_node(PISA)
    service.misbehave({"call": "blockreplicas", "kind": kind, "value": value})
    with pytest.raises(expected) as caught:
        read_node(phedex, PISA, "*", split=False)
    assert type(caught.value) is expected
    assert phedex.requests - 1 == tries
    assert len(service.waited) == tries - 1
    assert str(caught.value).startswith("blockreplicas?node=T2_IT_Pisa&dataset=/*/*/*: ")


@pytest.mark.parametrize("kind", ["status", "login", "truncated", "torn", "no_call_time", "error_document"])
def test_a_passing_fault_is_not_noticed(service: Service, phedex: Phedex, kind: str) -> None:
    service.misbehave({"call": "*", "kind": kind, "count": 1})
    assert FULL in read_node(phedex, PISA, "*", split=False).blocks


def test_a_frozen_service_ends_with_the_time_limit(service: Service) -> None:
    service.misbehave({"call": "nodes", "kind": "freeze"})
    with service.client(phedex_timeout=0.3, phedex_tries=1) as phedex, pytest.raises(PhedexUnreachable):
        phedex.nodes()


def test_rows_of_another_node_are_not_files_of_ours(service: Service, phedex: Phedex) -> None:
    service.misbehave({"call": "filereplicas", "kind": "other_rows", "value": BARI, "match": f"node={PISA}"})
    with pytest.raises((trust.OtherNode, trust.OtherBlock, PhedexBadRequest)):
        phedex.files_at(PISA, [FULL])


def test_one_doubted_part_leaves_the_rest(service: Service, phedex: Phedex) -> None:
    service.misbehave({"call": "blockreplicas", "kind": "stale", "match": "/A*/"})
    reading = read_node(phedex, PISA, "*", split=True)
    assert set(reading.blocks) == {OPEN, WRONG}
    assert [doubt.pattern for doubt in reading.doubts] == ["/A*/*/*"]
    assert reading.doubts[0].reason.startswith("Stale: blockreplicas?node=T2_IT_Pisa&dataset=/A*/*/*: ")


def test_an_outage_in_the_middle_is_no_doubt_but_an_outage(service: Service, phedex: Phedex) -> None:
    service.misbehave({"call": "blockreplicas", "kind": "status", "match": "/A*/"})
    with pytest.raises(PhedexStatus):
        read_node(phedex, PISA, "*", split=True)


def test_a_listing_that_is_too_large_is_split_until_it_fits(service: Service) -> None:
    with service.client(phedex_reply_bytes=1400) as phedex:
        reading = read_node(phedex, PISA, "*", split=False)
        assert set(reading.blocks) == {FULL, PART, OPEN, WRONG}
        assert reading.doubts == []
        assert phedex.requests > 60


def test_what_cannot_be_split_is_doubted(service: Service) -> None:
    with service.client(phedex_reply_bytes=700) as phedex:
        with pytest.raises(ReplyTooLarge, match="more than 700 bytes"):
            read_node(phedex, PISA, "/Alpha/Run2018A-v1/RAW", split=False)
        assert phedex.blocks_at(EMPTY, [FULL]) == {}


def test_a_file_list_that_is_too_large_is_asked_in_parts(service: Service) -> None:
    with service.client(phedex_reply_bytes=2000) as phedex:
        found, doubts = phedex.files_at(PISA, [FULL, OPEN, WRONG])
    assert set(found) == {FULL, OPEN}
    assert set(doubts) == {WRONG}
    with service.client(phedex_reply_bytes=1200) as phedex:
        found, doubts = phedex.files_at(PISA, [FULL, OPEN])
    assert set(found) == {OPEN}
    assert "more than 1200 bytes" in str(doubts[FULL])


def test_nodes_are_kept_but_a_new_one_is_found(service: Service, phedex: Phedex) -> None:
    phedex.check_node(PISA)
    phedex.check_node(BARI)
    assert phedex.requests == 1
    with pytest.raises(UnknownNode):
        phedex.check_node("T2_IT_Nowhere")
    assert phedex.requests == 2


def test_half_a_day_is_fresh_for_nodes_only(service: Service, phedex: Phedex) -> None:
    service.misbehave({"call": "*", "kind": "stale", "value": 36_000})
    assert PISA in phedex.nodes()
    with pytest.raises(trust.Stale):
        phedex.blocks_at(PISA, [FULL])


def test_a_list_of_no_nodes_is_not_believed(service: Service, phedex: Phedex) -> None:
    service.misbehave({"call": "nodes", "kind": "empty"})
    with pytest.raises(trust.NoNodes):
        read_node(phedex, PISA, "*", split=False)


def test_the_probe_asks_once(service: Service, phedex: Phedex) -> None:
    phedex.probe()
    service.misbehave({"call": "blockreplicas", "kind": "status"})
    with pytest.raises(PhedexStatus):
        phedex.probe()
    assert phedex.requests == 2


def test_a_bad_question_tells_phedex_own_words(phedex: Phedex) -> None:
    with pytest.raises(PhedexBadRequest, match="did not pass the 'dataset'"):
        phedex.nodes_with("/a/b")


def test_an_instance_that_is_not_there_is_a_bad_question(service: Service) -> None:
    with service.client(phedex_instance="debug") as phedex, pytest.raises(PhedexBadRequest, match="Invalid instance"):
        phedex.nodes()


def test_nobody_there_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with (
        Phedex(Main(phedex_url=f"http://127.0.0.1:{port}", phedex_tries=1)) as client,
        pytest.raises(PhedexUnreachable),
    ):
        client.probe()


@pytest.mark.parametrize("setting", ["phedex_ca", "phedex_cert", "phedex_key"])
def test_a_certificate_file_that_is_missing_is_told(setting: str) -> None:
    settings: dict[str, Any] = {setting: "/nowhere/file.pem"}
    with pytest.raises(UsageError, match=f"{setting}: there is no /nowhere/file.pem"):
        Phedex(Main(**settings))


def test_an_address_without_a_scheme_is_told() -> None:
    with (
        Phedex(Main(phedex_url="cmsweb.cern.ch/phedex/datasvc")) as client,
        pytest.raises(UsageError, match="phedex_url"),
    ):
        client.probe()
