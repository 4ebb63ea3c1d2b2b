"""Where a block is, what was deleted of it, and where it is meant to be: asked of a service that may lie about it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from common.errors import UnknownNode
from common.phedex import trust
from common.phedex.client import Phedex
from common.settings.model import Main
from common.sync.whereabouts import Deletion
from datasvc.build import Snapshot
from datasvc.serve import running

PISA, BARI, ROME, RETIRED = "T2_IT_Pisa", "T2_IT_Bari", "T2_IT_Rome", "XT2_IT_Old"
ALPHA, BETA = "/Alpha/Run2018A-v1/RAW", "/Beta/Run2018B-v1/AOD"
FULL, PART, GONE, OLD = (f"{ALPHA}#{number}" for number in ("1-full", "2-part", "3-gone", "4-old"))
OPEN, LATE, NEVER = f"{BETA}#1-open", f"{BETA}#2-late", f"{BETA}#3-never"
LONG_AGO, THEN = 1_500_000_000.25, 1_500_000_600.5


def lfn(block: int, number: int) -> str:
    return f"/store/data/Run2018/Alpha/RAW/v1/{block}/{number}.root"


class Service:
    """A data service that lies as told, a client of it, and its snapshot."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.snapshot, self._faults = url, folder / "snapshot.db", folder / "faults.json"

    def lie(self, *entries: dict[str, Any]) -> None:
        self._faults.write_text(json.dumps(entries))

    def client(self, **settings: Any) -> Phedex:
        return Phedex(Main(phedex_url=self.url, **{"phedex_tries": 1, **settings}))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("whereabouts")
    with Snapshot(folder / "snapshot.db") as snapshot:
        for node in (PISA, BARI, ROME, RETIRED):
            snapshot.add_node(node)
        for number, block in enumerate((FULL, PART, GONE, OLD, LATE)):
            snapshot.add_block(block, [(lfn(number, n), 1000, "a952185") for n in range(10)])
        snapshot.add_block(OPEN, [(lfn(9, 0), 5, None)], is_open=True)
        snapshot.add_replica(FULL, PISA)
        snapshot.add_replica(FULL, BARI, subscribed=False)
        snapshot.add_replica(FULL, ROME, [])
        snapshot.add_replica(PART, BARI, [lfn(1, 0)])
        snapshot.add_replica(GONE, PISA)
        snapshot.add_replica(OLD, RETIRED, subscribed=False)
        snapshot.add_replica(OPEN, PISA, subscribed=False)
        snapshot.subscribe_dataset(BETA, ROME)
        snapshot.add_deletion(GONE, BARI, requested=LONG_AGO, completed=THEN)
        snapshot.add_deletion(GONE, BARI, requested=THEN + 1)
        snapshot.add_deletion(GONE, ROME, requested=LONG_AGO, completed=THEN)
        snapshot.remove_replica(GONE, PISA)
    with running(folder / "snapshot.db", folder / "faults.json") as url:
        yield Service(url, folder)


@pytest.fixture
def service(shared: Service) -> Service:
    shared.lie()
    return shared


@pytest.fixture
def phedex(service: Service) -> Iterator[Phedex]:
    with service.client() as client:
        yield client


def test_each_block_is_where_it_is_and_the_control_is_asked_each_time(service: Service) -> None:
    with service.client(phedex_blocks=2) as phedex:
        found = phedex.whereabouts([PART, GONE, OLD, OPEN, LATE, NEVER, PART], controls=[FULL])
        assert phedex.requests == 3
    places = {name: (set(one.complete), set(one.partial), set(one.meant)) for name, one in found.items()}
    assert places == {
        PART: (set(), {BARI}, set()),
        GONE: (set(), set(), set()),
        OLD: ({RETIRED}, set(), set()),
        OPEN: (set(), {PISA}, set()),
        LATE: (set(), set(), set()),
        NEVER: (set(), set(), set()),
    }
    assert all(one.controlled for one in found.values())
    assert {name for name, one in found.items() if one.somewhere} == {PART, OLD, OPEN}
    assert (found[PART].files, found[PART].bytes, found[GONE].files) == (10, 10_000, 0)
    assert abs(found[GONE].as_of.timestamp() - datetime.now(UTC).timestamp()) < 60


def test_without_a_control_a_missing_row_is_not_controlled(phedex: Phedex) -> None:
    found = phedex.whereabouts([GONE, FULL])
    assert (found[GONE].controlled, found[FULL].controlled) == (False, True)
    assert (found[FULL].complete, found[FULL].meant) == ({PISA, BARI}, {ROME})
    own = phedex.whereabouts([GONE, FULL], controls=[FULL])
    assert not own[GONE].controlled, "a block that is asked for is no control"


def test_a_reply_without_rows_is_no_answer_where_a_control_was_asked_for(service: Service, phedex: Phedex) -> None:
    service.lie({"call": "blockreplicas", "kind": "empty"})
    assert not phedex.whereabouts([FULL])[FULL].controlled
    with pytest.raises(trust.ControlMissing):
        phedex.whereabouts([GONE], controls=[FULL, PART])


def test_a_row_that_is_left_out_alone_is_not_found_out_by_the_control(service: Service, phedex: Phedex) -> None:
    """So one reply is never enough: what is left out of it looks like a block that is nowhere."""
    service.lie({"call": "blockreplicas", "kind": "missing_block", "value": "#1-full"})
    found = phedex.whereabouts([FULL], controls=[PART])[FULL]
    assert (found.controlled, found.listed, found.somewhere) == (True, False, False)
    assert phedex.known_blocks([FULL]) == {FULL}
    assert phedex.whereabouts([PART], controls=[FULL])[PART].partial == {BARI}
    service.lie({"call": "*", "kind": "missing_block", "value": "#1-full"})
    assert phedex.known_blocks([FULL, PART]) == {PART}
    assert FULL not in phedex.blocks_at(PISA, [FULL, OPEN])


def test_replicas_of_a_retired_node_count_and_its_files_cannot_be_asked_for(phedex: Phedex) -> None:
    assert phedex.replicas_of([FULL, PART, GONE, OLD, OPEN]) == {
        FULL: {BARI: True, PISA: True},
        PART: {BARI: False},
        GONE: {},
        OLD: {RETIRED: True},
        OPEN: {PISA: False},
    }
    found, doubts = phedex.files_at(RETIRED, [OLD])
    assert (found, str(doubts[OLD])) == ({}, f"block {OLD}: {RETIRED} cannot be asked for its files by name")
    with pytest.raises(UnknownNode):
        phedex.files_at("T2_IT_Nowhere", [OLD])


def test_the_newest_deletions_are_told_by_node(service: Service) -> None:
    with service.client(phedex_blocks=2) as phedex:
        found = phedex.deletions_of([FULL, GONE, NEVER])
        assert phedex.requests == 2
    assert found.keys() == {FULL, GONE, NEVER}
    assert (found[FULL], found[NEVER]) == ({}, {})
    now = found[GONE].pop(PISA)
    assert now.completed == now.requested
    assert found[GONE] == {
        BARI: Deletion(datetime.fromtimestamp(THEN + 1, UTC)),
        ROME: Deletion(datetime.fromtimestamp(LONG_AGO, UTC), datetime.fromtimestamp(THEN, UTC)),
    }


def test_deletions_may_be_an_hour_old_and_block_replicas_not(service: Service, phedex: Phedex) -> None:
    service.lie({"call": "*", "kind": "stale", "value": 3500})
    assert phedex.deletions_of([GONE])[GONE]
    with pytest.raises(trust.Stale):
        phedex.whereabouts([GONE])
    service.lie({"call": "*", "kind": "stale", "value": 3600 + 400})
    with pytest.raises(trust.Stale):
        phedex.deletions_of([GONE])
    with service.client(phedex_cache_age=7200) as patient:
        assert patient.deletions_of([FULL]) == {FULL: {}}
        with pytest.raises(trust.Contradiction, match="complete=y"):
            patient.deletions_of([GONE])  # one of them was done after the reply says that it was made


def test_deletions_may_be_made_up_or_kept_back(service: Service, phedex: Phedex) -> None:
    service.lie({"call": "*", "kind": "false_deletions"})
    found = phedex.deletions_of([FULL, LATE, NEVER])
    assert found[FULL].keys() == found[LATE].keys() == {PISA, BARI, ROME}
    assert all(one.completed is not None for one in found[FULL].values())
    assert found[NEVER] == {}
    assert phedex.whereabouts([FULL])[FULL].somewhere, "the other calls are right"
    service.lie({"call": "*", "kind": "no_deletions"})
    assert phedex.deletions_of([GONE]) == {GONE: {}}
    service.lie({"call": "deletions", "kind": "missing_block", "value": "gone"})
    assert phedex.deletions_of([GONE]) == {GONE: {}}


def test_what_is_subscribed_by_block_and_by_dataset(service: Service) -> None:
    with service.client(phedex_blocks=3) as phedex:
        found = phedex.subscribed([FULL, PART, GONE, OLD, OPEN, LATE])
        assert phedex.requests == 4
    assert found == {
        FULL: {PISA, ROME},
        PART: {BARI},
        GONE: frozenset(),
        OLD: frozenset(),
        OPEN: {ROME},
        LATE: {ROME},
    }


def test_half_a_list_of_files_is_believed_only_without_the_figures(service: Service, phedex: Phedex) -> None:
    where = phedex.whereabouts([FULL])[FULL]
    figures = {FULL: (where.files, where.bytes)}
    assert len(phedex.files_at(PISA, [FULL], figures)[0][FULL]) == 10
    assert phedex.files_everywhere(FULL, figures[FULL]).doubt == ""
    service.lie({"call": "*", "kind": "half_files"})
    assert len(phedex.files_at(PISA, [FULL])[0][FULL]) == 5, "it agrees with itself"
    found, doubts = phedex.files_at(PISA, [FULL], figures)
    assert found == {}
    assert type(doubts[FULL]) is trust.FilesMissing
    assert "5 files of 5000 bytes are listed, the block has 10 of 10000" in str(doubts[FULL])
    assert "5 files of 5000 bytes" in phedex.files_everywhere(FULL, figures[FULL]).doubt


def test_other_figures_agree_with_themselves_and_not_with_the_files(service: Service, phedex: Phedex) -> None:
    service.lie({"call": "*", "kind": "other_figures"})
    where = phedex.whereabouts([FULL, PART])
    assert (where[FULL].files, where[FULL].bytes, where[FULL].complete) == (9, 9000, {PISA, BARI})
    assert where[PART].meant == {BARI}
    found, doubts = phedex.files_at(PISA, [FULL], {FULL: (9, 9000)})
    assert found == {}
    assert "10 files of 10000 bytes are listed, the block has 9 of 9000" in str(doubts[FULL])


@pytest.mark.parametrize("call", ["deletions", "subscriptions"])
def test_a_broken_reply_is_refused_by_name(service: Service, phedex: Phedex, call: str) -> None:
    ask = {"deletions": phedex.deletions_of, "subscriptions": phedex.subscribed}[call]
    for kind, expected in (
        ("truncated", trust.Truncated),
        ("no_call_time", trust.Unfinished),
        ("other_call", trust.WrongCall),
        ("error_document", trust.ErrorDocument),
    ):
        service.lie({"call": call, "kind": kind})
        with pytest.raises(expected):
            ask([GONE])
