"""What does an approval's code say, for how long and where is it good, and what does it cover?"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest

from common.sync.approvals import (
    EVERYWHERE,
    NARROWED,
    code_of,
    covers,
    is_everywhere,
    narrowing,
    problem_of,
    scope_of,
    time_of,
)
from common.sync.marks import Hold, Removal, moment

NODE = "T2_IT_Pisa"
AT = datetime(2026, 11, 28, 0, 45, 10, 123_456, tzinfo=UTC)
SINCE = moment(AT)


def test_a_code_tells_when_somebody_looked() -> None:
    code = code_of(AT, scope_of(NODE, "*"))
    assert code.startswith("20261128T004510123-")
    assert time_of(code) == SINCE
    assert SINCE <= AT.timestamp() < SINCE + 0.001  # never later than it was
    assert code_of(AT.astimezone(timezone(timedelta(hours=1))), scope_of(NODE, "*")) == code


def test_a_code_is_the_same_in_each_version() -> None:
    """A person may type it to a worker that is older or newer than what showed it."""
    assert code_of(AT, scope_of(NODE, "*")) == "20261128T004510123-8af635"
    assert code_of(AT, scope_of(EVERYWHERE, "/A/B/RAW")) == "20261128T004510123-b1759b"
    assert narrowing("#00001$", "") == "efdb11ef433deb17"
    assert narrowing("", "a") == "1958ef6f7fededf4"


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
def test_a_code_is_read_the_same_in_each_time_zone(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert time_of("20261128T004510123-8af635") == SINCE
        assert code_of(AT, scope_of(NODE, "*")) == "20261128T004510123-8af635"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("microsecond", [0, 999, 1000, 998_999, 999_000, 999_999])
def test_a_code_has_all_milliseconds(microsecond: int) -> None:
    at = AT.replace(microsecond=microsecond)
    assert time_of(code_of(at, "")) == moment(at)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cafa77efed4c3e95",
        "20261128T004510123",
        "20261128T004510-1a2b3c",
        "20261128T004510123-1a2b3",
        "20261128T00451012\u0663-1a2b3c",  # a digit, and not one of ours
        "20261128T004510123-1a2b3c4",
        "20261128T004510123-1A2B3C",
        " 20261128T004510123-1a2b3c",
        "20261128T004510123-1a2b3c\n",
        "20261328T004510123-1a2b3c",  # no such month
        "19700101T000000000-1a2b3c",
    ],
)
def test_what_is_no_code(text: str) -> None:
    assert time_of(text) == 0
    problem = problem_of(text, NODE, "*", at=SINCE, lifetime=3600)
    assert problem == f"{text!r} is no approval code such as 20261128T004510123-1a2b3c"


def problem(node: str = NODE, dataset: str = "*", *, scope: str = scope_of(NODE, "*"), after: float = 0) -> str:
    return problem_of(code_of(AT, scope), node, dataset, at=SINCE + after, lifetime=7200)


def test_a_code_is_good_where_it_was_given_and_in_its_time() -> None:
    assert problem() == ""
    assert problem(dataset="/*/*/*") == ""  # everything, however it is written
    assert problem(dataset="/A/B/RAW", scope=scope_of(NODE, "/A/B/RAW")) == ""
    assert problem(dataset="/A/B/RAW", scope=scope_of(EVERYWHERE, "/A/B/RAW")) == ""
    assert problem("T2_US_MIT", "/A/B/RAW", scope=scope_of(EVERYWHERE, "/A/B/RAW")) == ""


@pytest.mark.parametrize(
    ("node", "dataset", "scope"),
    [
        ("T2_US_MIT", "*", scope_of(NODE, "*")),
        (NODE, "/A/B/RAW", scope_of(NODE, "*")),
        (NODE, "*", scope_of(NODE, "/A/B/RAW")),
        (NODE, "/A/B/AOD", scope_of(EVERYWHERE, "/A/B/RAW")),
    ],
)
def test_a_code_of_another_site_or_pattern(node: str, dataset: str, scope: str) -> None:
    said = problem(node, dataset, scope=scope)
    assert said == f"{code_of(AT, scope)} was given for another site or pattern than {node} {dataset}"


NARROW = narrowing("#00001$", "")


def test_a_code_of_a_plan_that_was_narrowed_is_good_for_that_alone() -> None:
    narrowings = [narrowing(*each) for each in (("", ""), ("a", ""), ("", "a"), ("a", "b"), ("a b", ""), ("b", ""))]
    assert len(set(narrowings)) == len(narrowings)
    assert [len(each) for each in narrowings] == [0, *[NARROWED] * 5]
    for node in (NODE, EVERYWHERE):
        for given in narrowings:
            code = code_of(AT, scope_of(node, "/A/B/RAW", given))
            for asked in narrowings:
                said = problem_of(code, NODE, "/A/B/RAW", at=SINCE, lifetime=1, narrowed=asked)
                assert (said == "") is (given == asked)
                assert is_everywhere(code, "/A/B/RAW", asked) is (given == asked and node == EVERYWHERE)
    assert scope_of(NODE, "*", "") == f"{NODE} *"  # as codes of before have it


def test_what_a_person_is_told_of_a_code_of_another_narrowing() -> None:
    code = code_of(AT, scope_of(NODE, "*", NARROW))
    said = f"{code} was given for another site or pattern than {NODE} *"
    assert problem_of(code, NODE, "*", at=SINCE, lifetime=1) == said
    other = problem_of(code, NODE, "*", at=SINCE, lifetime=1, narrowed=narrowing("", "x"))
    assert other == f"{said} with this --select and --ignore"


def test_a_code_lapses_and_is_never_of_a_time_to_come() -> None:
    assert problem(after=7200) == ""
    assert problem(after=7201).endswith(" has lapsed: an approval lasts 2 h (approval_lifetime)")
    assert problem(after=-60) == ""
    assert problem(after=-61).endswith(" is of a time to come: clocks differ")


@pytest.mark.parametrize(
    ("hold", "why", "covered"),
    [
        (None, Removal.MOVED, False),
        (Hold(SINCE, Removal.MOVED), Removal.MOVED, True),
        (Hold(SINCE, Removal.UNKNOWN), Removal.MOVED, True),
        (Hold(SINCE, Removal.MOVED), Removal.INCOMPLETE, False),
        (Hold(SINCE + 0.001, Removal.MOVED), Removal.MOVED, False),
        (Hold(SINCE - 1, Removal.MOVED), Removal.MOVED, True),
        (Hold(SINCE + 5, Removal.MOVED, SINCE), Removal.MOVED, True),  # the plan that put it on record
        (Hold(SINCE + 5, Removal.MOVED, SINCE - 1), Removal.MOVED, False),  # it was back meanwhile, perhaps
        (Hold(SINCE + 5, Removal.MOVED, SINCE), Removal.NOWHERE, False),
    ],
)
def test_what_an_approval_covers(hold: Hold | None, why: Removal, covered: bool) -> None:
    assert covers(SINCE, hold, why) is covered


@pytest.mark.parametrize(("held", "now", "covered"), [(True, True, True), (True, False, True), (False, True, False)])
def test_an_approval_of_a_custodial_block_is_of_one_that_was_on_record_as_that(
    held: bool, now: bool, covered: bool
) -> None:
    assert covers(SINCE, Hold(SINCE, Removal.MOVED, 0, held), Removal.MOVED, custodial=now) is covered
