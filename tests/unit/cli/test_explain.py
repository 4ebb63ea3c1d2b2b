"""Which names `explain` takes, what it makes of a side's failure, and which messages are about a block."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from common.broker.dead_letters import Letter
from common.errors import NotAuthenticated, PhedexUnreachable, RucioError, System, UsageError
from common.messages.codec import as_dict, encode
from common.messages.commands import SyncBlocks, SyncDataset, SyncSite
from common.messages.events import Asked, Away, Back, Closed, Retrying
from common.messages.meta import Failure, child_id
from common.outcome import Outcome
from common.phedex.trust import LoginPage
from phedex_rucio.explain import check_names
from phedex_rucio.explained import trouble_of
from phedex_rucio.traces import Trace, is_about, letter_about

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
NODE, BLOCK, OTHER = "T2_IT_Pisa", "/A/B-v1/RAW#1", "/A/B-v1/RAW#2"
REFUSED = (
    'blockreplicas?block=x: no whole answer from http://127.0.0.1:9/p: ConnectionError(MaxRetryError("_HttpPool(host='
    "'127.0.0.1', port=9): Max retries exceeded (Caused by NewConnectionError('_Http: Failed to establish: "
    "[Errno 111] Connection refused'))\"))"
)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("/A/B-v1/RAW", NODE), "this is a dataset"),
        ((NODE, BLOCK), f"phedex-rucio explain '{BLOCK}' {NODE}"),
        (("/a/b", None), "not a block such as"),
        ((BLOCK, "Pisa"), "Pisa: not a node"),
    ],
)
def test_a_name_that_is_none_is_told_so(names: tuple[str, str | None], said: str) -> None:
    with pytest.raises(UsageError, match=r".+") as error:
        check_names(*names)
    assert said in str(error.value)
    check_names(BLOCK, None)


def test_a_failure_as_a_fact() -> None:
    away = trouble_of(PhedexUnreachable(REFUSED))
    assert (away.system, away.how, away.code) == ("phedex", "away", 5)
    assert away.reason == "blockreplicas?block=x: no whole answer from http://127.0.0.1:9/p: Connection refused"
    assert trouble_of(NotAuthenticated("no")).code == 6
    assert trouble_of(LoginPage("a page")).reason == "LoginPage: a page"
    assert len(trouble_of(RucioError("x" * 5000)).reason) == 400


@pytest.mark.parametrize(
    ("command", "about"),
    [
        (SyncBlocks(node=NODE, blocks=[OTHER, BLOCK]), True),
        (SyncBlocks(node=NODE, blocks=[OTHER]), False),
        (SyncBlocks(node="T2_CH_CERN", blocks=[BLOCK]), False),
        (SyncSite(node=NODE), True),
        (SyncSite(node=NODE, dataset="/A/*/RAW"), True),
        (SyncSite(node=NODE, dataset="/Z/*/RAW"), False),
        (SyncDataset(dataset="/A/*/*"), True),
        (SyncDataset(dataset="/A/*/*", nodes=["T2_CH_CERN"]), False),
    ],
)
def test_which_commands_are_about_a_block(command: Any, about: bool) -> None:
    assert is_about(as_dict(command), BLOCK, NODE) is about
    letter = Letter("sync.blocks.dead", 1, encode(command), "m", "", 1, 0)
    assert (letter_about(letter, BLOCK, NODE) is not None) is about


def test_a_letter_that_nobody_can_read_is_about_whom_it_names() -> None:
    def read(body: bytes) -> Any:
        return letter_about(Letter("sync.blocks.dead", 1, body, "m", "InvalidMessage: bad", 1, 0), BLOCK, NODE)

    assert read(b"\xff" + BLOCK.encode()) is None  # shown as base64: nobody can tell
    assert read(f"what? {BLOCK}".encode()).about_block
    assert not read(f"what? {NODE}".encode()).about_block
    assert read(b"what? T2_CH_CERN") is None


def closed(command: str, key: str, cycle: str = "c", **others: Any) -> Closed:
    made = {"id": others.pop("id", cycle), "run": "r", "outcome": Outcome.CHANGED, "at": AT} | others
    return Closed(cycle=cycle, command=command, key=key, **made)


def test_what_the_events_tell() -> None:
    trace = Trace(BLOCK, NODE)
    command = msgspec.to_builtins(SyncSite(node=NODE))
    child = child_id("c", "c", "r", 0)
    wrong = Failure(class_="RucioError", message="busy", at=AT)
    events: list[Any] = [
        Asked(id="x", cycle="x", command=msgspec.to_builtins(SyncSite(node="T2_CH_CERN")), at=AT),
        Asked(id="c", cycle="c", command=command, at=AT),
        closed("sync.site", NODE, children=1, notes=["a note of the plan"]),
        Retrying(id=child, cycle="c", attempt=1, next_at=AT + timedelta(minutes=5), error=wrong, at=AT),
        closed("sync.blocks", f"{NODE} {OTHER}", cycle="d", id="d1", names={"added": [OTHER, BLOCK]}),
        closed("sync.blocks", f"{NODE} {OTHER}", cycle="e", id="e1", names={"added": [OTHER]}),
        Away(system=System.RUCIO, worker="w", since=AT, at=AT, reason="r"),
        Away(system=System.PHEDEX, worker="w", since=AT, at=AT, reason="r"),
        Back(system=System.PHEDEX, worker="w", since=AT, at=AT + timedelta(minutes=1)),
    ]
    for event in events:
        trace.take(event)
    assert sorted(trace.state.by_name) == ["c", "d"]
    assert [(one.command, one.says) for one in trace.last] == [
        ("sync.site", ("a note of the plan",)),
        ("sync.blocks", ("the block was added",)),
    ]
    open_ = {one.cycle: one for one in trace.waiting()}
    assert set(open_) == {"c"}
    assert open_["c"].what == f"sync.site {NODE}"
    assert open_["c"].retry == "try 2 at 12:05 UTC after RucioError: busy"
    assert set(trace.away()) == {"rucio"}
    assert trace.until == AT + timedelta(minutes=1)
    trace.take(closed("sync.blocks", f"{NODE} {OTHER}", id=child))
    assert "c" not in {one.cycle for one in trace.waiting()}
