"""Which queries are taken, and in which words are others refused?"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from datasvc import refusal, times
from datasvc.calls.table import CALLS
from datasvc.options import checked, pairs
from datasvc.refusal import Refusal

NOW = 1_500_000_000.9
BLOCK = "/A/B-v1/RAW#1"


def refused(call: str, options: str) -> str:
    with pytest.raises(Refusal) as caught:
        checked(CALLS[call].spec, pairs(options), NOW)
    assert caught.value.status == 400
    return caught.value.message


@pytest.mark.parametrize(
    ("call", "options", "message"),
    [
        (
            "nodes",
            "foo=1",
            "The following parameter was passed in the call to PHEDEX::Web::API::Nodes::nodes"
            " but was not listed in the validation options: foo",
        ),
        (
            "tfc",
            "node=NoWhere",
            "The 'node' parameter (\"NoWhere\") to PHEDEX::Web::API::TFC::tfc did not pass the 'node' callback",
        ),
        ("tfc", "", "Mandatory parameter 'node' missing in call to PHEDEX::Web::API::TFC::tfc"),
        ("tfc", "node=", "Mandatory parameter 'node' missing in call to PHEDEX::Web::API::TFC::tfc"),
        ("filereplicas", "", "invalid parameters: one of (block, lfn, dataset) are required"),
        ("filereplicas", "node=T2_IT_Pisa", "invalid parameters: one of (block, lfn, dataset) are required"),
    ],
)
def test_the_messages_are_those_of_the_real_service(call: str, options: str, message: str) -> None:
    assert refused(call, options) == message


@pytest.mark.parametrize(
    ("call", "options"),
    [
        ("agentlogs", ""),
        ("agentlogs", "host=a-b.ch"),
        ("nodes", "noempty=1"),
        ("nodes", "node=S1_%25"),
        ("nodes", "node=*"),
        ("nodes", "node=XT2_IT_Old"),
        ("tfc", "node=T2_A&node=T2_B"),
        ("blockreplicas", "block=/A/B-v1/RAW"),
        ("blockreplicas", "block=/A/B-v1/RAW<%231"),
        ("blockreplicas", "block=/TAC/CMSSW%231"),
        ("blockreplicas", "dataset=*"),
        ("blockreplicas", "dataset=/A/B"),
        ("blockreplicas", "complete=yes"),
        ("blockreplicas", "group=A&group=B"),
        ("blockreplicas", "create_since=yesterday"),
        ("blockreplicas", "op=node:xor&node=T2_A"),
        ("filereplicas", "lfn=/store/a+b"),
        ("filereplicas", "lfn=/store/a%20b"),
        ("filereplicas", "dataset=/A/B/C&dataset=/A/B/D"),
        ("data", "level=dataset&block=*"),
        ("links", "status=mi_down"),
        ("subscriptions", "priority=urgent"),
        ("subscriptions", "request=abc"),
        ("lfn2pfn", "node=T2_A&lfn=/store/a"),
    ],
)
def test_what_the_real_service_refused_is_refused(call: str, options: str) -> None:
    assert refused(call, options)


@pytest.mark.parametrize(
    ("call", "options"),
    [
        ("nodes", "nocache=1"),
        ("nodes", "NODE=T*"),
        ("nodes", "node=52"),
        ("nodes", "node=!T3_*"),
        ("blockreplicas", "block=*"),
        ("blockreplicas", "block=%25;complete=n"),
        ("blockreplicas", "dataset=/*/*/*&dist_complete=whatever"),
        ("blockreplicas", "node=T2_A&node=T2_B&op=node:and"),
        ("data", "file=/store/x*&create_since=whatever"),
    ],
)
def test_what_the_real_service_took_is_taken(call: str, options: str) -> None:
    assert checked(CALLS[call].spec, pairs(options), NOW)


def test_options_are_split_decoded_and_collected() -> None:
    query = checked(CALLS["blockreplicas"].spec, pairs("Block=/A/B-v1/RAW%231;node=T2_A&node=T2_B&se="), NOW)
    assert query.values == {"block": [BLOCK], "node": ["T2_A", "T2_B"]}


def epoch(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp())  # type: ignore[misc, arg-type]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1380000000", 1380000000),
        ("1380000000.5", 1380000000),
        ("0", 0),
        ("-1h", 1_500_000_000 - 3600),
        ("-7d", 1_500_000_000 - 7 * 86400),
        ("2d", 1_500_000_000 + 2 * 86400),
        ("now", 1_500_000_000),
        ("last_hour", 1_500_000_000 - 3600),
        ("last_12hours", 1_500_000_000 - 12 * 3600),
        ("last_day", 1_500_000_000 - 86400),
        ("last_week", 1_500_000_000 - 7 * 86400),
        ("last_180days", 1_500_000_000 - 180 * 86400),
        ("P1DT12H", 1_500_000_000 - 36 * 3600),
        ("P6M", 1_500_000_000 - 180 * 86400),
        ("P1Y", 1_500_000_000 - 365 * 86400),
        ("PT5M", 1_500_000_000 - 300),
        ("20190730Z1230", epoch(2019, 7, 30, 12, 30)),
        ("20190730Z123059", epoch(2019, 7, 30, 12, 30, 59)),
        ("2019-07-30", epoch(2019, 7, 30)),
        ("2019-07-30 12:30:59", epoch(2019, 7, 30, 12, 30, 59)),
        ("2019-07-30_12:30:59", epoch(2019, 7, 30, 12, 30, 59)),
        ("2019-02-30", None),
        ("-1w", None),
        ("-1.5h", None),
        ("P", None),
        ("PT", None),
        ("last_year", None),
        ("yesterday", None),
    ],
)
def test_a_time_is_read_in_each_of_phedex_forms(text: str, moment: int | None) -> None:
    assert times.moment(text, NOW) == moment


def test_an_error_is_the_bare_message_or_a_page_for_a_browser() -> None:
    assert refusal.body("a <b>\nc", 400, "python-requests/2") == ("a &lt;b&gt;\\nc", "text/plain")
    page, media_type = refusal.body("a <b>", 400, "Mozilla/5.0")
    assert page == (
        "<html><head><title>400 Bad Request</title></head>"
        "<body><h1>400 Bad Request</h1><p>a &lt;b&gt;</p></body></html>"
    )
    assert media_type == "text/html"
