"""What does a rule remember of a removal, and what may each of its writers change?"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from common.sync.marks import (
    COMMENT,
    COMMENT_LENGTH,
    CUSTODIAL,
    DESTROYING,
    GONE_APPROVED,
    GONE_BY,
    GONE_CUSTODIAL,
    GONE_CYCLE,
    GONE_HELD,
    GONE_SINCE,
    GONE_WHY,
    GROUP,
    HASH,
    HOLD,
    KEEP,
    LEFT,
    LEFT_FILES,
    NEVER,
    SEEN,
    SWEEPING,
    Hold,
    Keep,
    Removal,
    as_custodial,
    cleared_at,
    cleared_text,
    hash_of,
    hold_of,
    keep_of,
    keep_text,
    left_of,
    moment,
    named_of,
    parse_meta,
    permits,
    reason_of,
    seen_at,
    severity,
    softened,
    still_left,
    unmarked,
    with_hold,
    with_left,
    with_mark,
    with_sweeping,
)
from common.sync.marks import MARK as MARKED

# As it stands in the rules of a Rucio that an earlier version wrote.
OF_BEFORE: dict[str, Any] = {
    "phedex_group": "DataOps",
    "phedex_custodial": True,
    "phedex_left": {"5": "0123abcd"},
    "phedex_seen": 1543365000,
    "phedex_hold": {"since": 1543365910.123, "why": "nowhere"},
    "phedex_gone_since": 1543365910.123,
    "phedex_gone_cycle": "20181128T004510-0a1b2c3d4e",
    "phedex_gone_why": "partly",
    "phedex_gone_by": "scheduler",
    "phedex_gone_approved": "20181128T004510123-1a2b3c",
    "phedex_gone_custodial": True,
    "phedex_gone_held": "last copy",
    "phedex_sweeping": {"at": 1543365999, "file": "0123abcd"},
    "phedex_keep": {"by": "lammel", "at": "2018-11-28T00:45:10Z", "cycle": "c1"},
}

OURS = {GROUP: "DataOps", CUSTODIAL: True}
MARK = {GONE_SINCE: 100, GONE_CYCLE: "c1", GONE_WHY: "moved", GONE_BY: "op"}


def test_what_an_earlier_version_wrote_is_read() -> None:
    meta = OF_BEFORE
    assert set(meta) == {GROUP, CUSTODIAL, LEFT, SEEN, HOLD, KEEP, *MARKED}
    assert MARKED == (SWEEPING, GONE_SINCE, GONE_CYCLE, GONE_WHY, GONE_BY, GONE_APPROVED, GONE_CUSTODIAL, GONE_HELD)
    assert meta[GONE_CUSTODIAL] is True
    assert meta[GONE_SINCE] == 1543365910.123
    assert meta[GONE_CYCLE] == "20181128T004510-0a1b2c3d4e"
    assert meta[GONE_BY] == "scheduler"
    assert meta[GONE_APPROVED] == "20181128T004510123-1a2b3c"
    assert meta[GONE_HELD] == "last copy"
    assert meta[GROUP] == "DataOps"
    assert meta[CUSTODIAL] is True
    assert hold_of(meta) == Hold(1543365910.123, Removal.NOWHERE)
    assert seen_at(meta) == 1543365000
    assert reason_of(meta[GONE_WHY]) is Removal.PARTLY
    assert keep_of(meta, None) == Keep("lammel", "2018-11-28T00:45:10Z", "c1")
    assert left_of(meta) == {"0123abcd": 5}
    assert named_of(meta) == {"0123abcd"}
    assert COMMENT == "phedex-rucio: as PhEDEx has it"


def test_the_reasons_by_the_names_that_rules_have() -> None:
    assert [*Removal] == ["moved", "waiting", "partly", "incomplete", "nowhere", "unproven", "unknown", "gone"]


def test_a_time_is_told_to_the_millisecond_before() -> None:
    at = datetime(2018, 11, 28, 0, 45, 10, 123_999, tzinfo=UTC)
    assert moment(at) == 1543365910.123
    assert moment(at.replace(microsecond=999)) == 1543365910
    assert moment(at.replace(microsecond=1_000)) == 1543365910.001
    assert moment(at.replace(microsecond=999_999)) == 1543365910.999


# --- reasons -------------------------------------------------------------------------------------------------------


def test_the_reasons_from_the_mildest_to_the_worst() -> None:
    mild = {Removal.MOVED, Removal.WAITING, Removal.PARTLY, Removal.GONE}
    worse = [Removal.INCOMPLETE, Removal.NOWHERE, Removal.UNPROVEN, Removal.UNKNOWN]
    assert {severity(why) for why in mild} == {0}
    assert [severity(why) for why in worse] == [1, 2, 3, 4]
    assert {*mild, *worse} == set(Removal)
    assert set(worse[1:]) == DESTROYING


@pytest.mark.parametrize("given", Removal)
@pytest.mark.parametrize("now", Removal)
def test_a_reason_permits_itself_and_milder_ones(given: Removal, now: Removal) -> None:
    assert permits(given, now) is (severity(now) <= severity(given))
    assert permits(given, now) or permits(now, given)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("nowhere", Removal.NOWHERE),
        ("incomplete (2 of 3 files left)", Removal.INCOMPLETE),
        ("unknown", Removal.UNKNOWN),
        ("UNKNOWN", Removal.GONE),
        ("since Monday", Removal.GONE),
        ("", Removal.GONE),
        (None, Removal.GONE),
        (7, Removal.GONE),
    ],
)
def test_a_reason_is_read_from_marks_of_before_too(text: object, why: Removal) -> None:
    assert reason_of(text) is why


# --- the hold ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("noted", "hold"),
    [
        ({"since": 100, "why": "nowhere"}, Hold(100, Removal.NOWHERE)),
        ({"since": 100.9, "why": "moved"}, Hold(100.9, Removal.MOVED)),
        ({"since": 1}, Hold(1, Removal.GONE)),
        ({"since": 1, "plan": 0.5}, Hold(1, Removal.GONE, 0.5)),
        ({"since": 1, "plan": "soon"}, Hold(1, Removal.GONE, 0)),
        ({"since": 1, "custodial": True}, Hold(1, Removal.GONE, 0, custodial=True)),
        ({"since": 1, "custodial": 1}, Hold(1, Removal.GONE)),
        ({"since": 0, "why": "moved"}, None),
        ({"since": -1, "why": "moved"}, None),
        ({"since": "100", "why": "moved"}, None),
        ({"since": True, "why": "moved"}, None),
        ({"since": NEVER - 1, "why": "moved"}, Hold(NEVER - 1, Removal.MOVED)),
        ({"since": NEVER, "why": "moved"}, None),
        ({"why": "moved"}, None),
        ("yes", None),
        (None, None),
    ],
)
def test_a_hold_is_read_or_is_none(noted: object, hold: Hold | None) -> None:
    assert hold_of({HOLD: noted}) == hold
    assert hold_of(OURS) is None


def hold_noted(since: float, why: str = "nowhere", plan: float = 90) -> dict[str, Any]:
    return {HOLD: {"since": since, "why": why, "plan": plan}}


def test_a_hold_stands_until_a_worse_reason_begins_another() -> None:
    held = with_hold(OURS, 100, Removal.NOWHERE, plan=90)
    assert held == OURS | hold_noted(100)
    assert hold_of(held) == Hold(100, Removal.NOWHERE, 90)
    assert with_hold(held, 200, Removal.NOWHERE, plan=190) is None
    assert with_hold(held, 200, Removal.MOVED, plan=190) == OURS | hold_noted(200, "moved", 190)  # a milder one
    assert with_hold(held, 200, Removal.UNPROVEN, plan=190) == OURS | hold_noted(200, "unproven", 190)


@pytest.mark.parametrize(("since", "told"), [(390, True), (391, False)])
def test_a_hold_is_not_of_a_plan_of_long_ago(since: float, told: bool) -> None:
    held = with_hold(OURS, since, Removal.NOWHERE, plan=90)
    assert hold_of(held or {}) == Hold(since, Removal.NOWHERE, 90 if told else 0)


def test_a_block_that_is_custodial_by_now_is_held_anew() -> None:
    held = with_hold(OURS, 100, Removal.MOVED, plan=90)
    assert held is not None
    anew = with_hold(held, 200, Removal.MOVED, plan=190, custodial=True)
    assert hold_of(anew or {}) == Hold(200, Removal.MOVED, 190, custodial=True)
    assert with_hold(anew or {}, 300, Removal.MOVED, plan=290, custodial=True) is None
    assert with_hold(anew or {}, 300, Removal.MOVED, plan=290) is None  # it was looked at as the worse one


def test_a_mark_of_a_block_that_is_custodial_by_now_is_a_new_one() -> None:
    marked = OURS | MARK | {GONE_APPROVED: "code"}
    assert as_custodial(marked, 700) == OURS | MARK | {GONE_SINCE: 700, GONE_CUSTODIAL: True}
    assert as_custodial(marked | {GONE_CUSTODIAL: True}, 700) is None
    assert as_custodial(OURS, 700) is None


@pytest.mark.parametrize(("seen", "held"), [(89, True), (90, True), (91, False)])
def test_a_plan_from_before_a_block_was_back_holds_nothing(seen: float, held: bool) -> None:
    then = OURS | {SEEN: seen}
    assert with_hold(then, 100, Removal.NOWHERE, plan=90) == (then | hold_noted(100) if held else None)


@pytest.mark.parametrize(
    ("noted", "seen"),
    [
        (700, 700),
        (0.5, 0.5),
        (NEVER - 1, NEVER - 1),
        (NEVER, 0),
        (0, 0),
        (-1, 0),
        (-0.5, 0),
        (True, 0),
        ("700", 0),
        (None, 0),
    ],
)
def test_when_a_block_was_known_to_stay(noted: object, seen: float) -> None:
    assert seen_at({SEEN: noted}) == seen
    assert seen_at(OURS) == 0
    assert datetime.fromtimestamp(NEVER, UTC) == datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


# --- the mark ------------------------------------------------------------------------------------------------------


def test_a_mark_ends_the_hold_and_keeps_the_rest() -> None:
    assert with_mark(OURS | {HOLD: {"since": 1, "why": "moved"}, LEFT: {"5": "aa"}}, MARK) == OURS | {
        LEFT: {"5": "aa"},
        **MARK,
    }


@pytest.mark.parametrize(
    ("before", "now", "marked"),
    [
        ("moved", "moved", False),
        ("moved", "waiting", False),
        ("unknown", "moved", False),
        ("moved", "nowhere", True),
        ("incomplete (1 of 2 files left)", "incomplete", False),
    ],
)
def test_a_mark_is_replaced_by_one_for_a_worse_reason_alone(before: str, now: str, marked: bool) -> None:
    old = OURS | MARK | {GONE_WHY: before, GONE_APPROVED: "code", GONE_HELD: "last copy"}
    new = {GONE_SINCE: 200, GONE_WHY: now}
    assert with_mark(old, new) == (OURS | new if marked else None)


def test_a_block_that_a_person_keeps_is_not_marked() -> None:
    assert with_mark(OURS | {KEEP: {"by": "op"}}, MARK) is None
    assert with_mark(OURS | {KEEP: {"by": "op"}} | MARK, MARK | {GONE_WHY: "unknown"}) is None


def test_a_block_that_stays_has_neither_mark_nor_hold_nor_keep() -> None:
    approved = {GONE_APPROVED: "code", GONE_HELD: "last copy"}
    meta = OURS | MARK | approved | {HOLD: {"since": 1}, KEEP: "op", LEFT: {"5": "aa"}}
    assert unmarked(meta, 700) == OURS | {LEFT: {"5": "aa"}, SEEN: 700}
    assert unmarked(meta, 700, keep=True) == OURS | {LEFT: {"5": "aa"}, SEEN: 700, KEEP: "op"}
    assert unmarked(OURS, 700) == OURS


def test_a_mark_for_a_milder_reason_permits_no_worse_one_any_more() -> None:
    nowhere = OURS | MARK | {GONE_WHY: "nowhere", GONE_APPROVED: "code"}
    assert softened(nowhere, Removal.WAITING) == OURS | MARK | {GONE_WHY: "waiting"}
    assert softened(nowhere, Removal.NOWHERE) is None
    assert softened(nowhere, Removal.UNKNOWN) is None
    assert softened(OURS, Removal.MOVED) is None
    assert softened(OURS | {GONE_WHY: "nowhere"}, Removal.MOVED) is None  # what is left of a mark is none


# --- a person's keep -----------------------------------------------------------------------------------------------

AT = "2026-11-28T00:45:10Z"


def test_a_keep_is_read_as_it_was_written() -> None:
    keep = Keep("lammel", AT, "20261128T004510-0a1b2c3d4e")
    text = keep_text(keep)
    assert text.startswith('phedex-rucio: kept {"by":"lammel"')
    assert keep_of({}, text) == keep
    assert keep_of(OURS, f"{text} ") == keep  # Rucio may pad it


@pytest.mark.parametrize(
    ("by", "cycle"),
    [
        ("x" * 500, "c"),
        ("é" * 500, "c" * 500),
        ("\u202e" * 60, "c" * 80),
        ('"' * 500, '"' * 500),
        ("🙂" * 60, "🙂" * 120),
    ],
)
def test_a_keep_always_fits_and_says_when(by: str, cycle: str) -> None:
    text = keep_text(Keep(by, AT, cycle))
    assert len(text.encode()) <= COMMENT_LENGTH
    keep = keep_of({}, text)
    assert keep is not None
    assert keep.at == AT
    assert by.startswith(keep.by)
    assert cycle.startswith(keep.cycle)


def test_a_keep_of_exactly_the_length_that_fits_is_whole() -> None:
    quotes = '"' * 40  # each takes two bytes
    room = COMMENT_LENGTH - len(keep_text(Keep(quotes, AT)).encode()) - len(',"cycle":""')
    whole, cut = Keep(quotes + "x" * 20, AT, "c" * (room - 20)), Keep(quotes + "x" * 20, AT, "c" * (room - 19))
    assert len(keep_text(whole).encode()) == COMMENT_LENGTH == 250
    assert keep_of({}, keep_text(whole)) == whole
    assert keep_of({}, keep_text(cut)) != cut


def test_a_keep_loses_no_more_than_it_must() -> None:
    keep = keep_of({}, keep_text(Keep("x" * 60, AT, "c" * 90)))
    assert keep == Keep("x" * 60, AT, "c" * 90)
    long = keep_of({}, keep_text(Keep("x" * 61, AT, "c" * 121)))
    assert long == Keep("x" * 60, AT, "c" * 120)
    wide = keep_of({}, keep_text(Keep("é" * 60, AT, "c" * 120)))
    assert wide == Keep("é" * 40, AT, "c" * 80)
    wider = keep_of({}, keep_text(Keep("🙂" * 60, AT, "c" * 120)))
    assert wider == Keep("🙂" * 20, AT, "c" * 40)
    widest = keep_of({}, keep_text(Keep("🙂" * 60, AT, "🙂" * 120)))
    assert widest == Keep("", AT, "")


@pytest.mark.parametrize(
    ("meta", "comment", "keep"),
    [
        ({}, None, None),
        ({}, "", None),
        ({}, COMMENT, None),
        ({}, "a colleague: kept {}", None),
        ({}, "phedex-rucio: cleared 5", None),
        ({}, "phedex-rucio: kept {}", Keep()),
        ({}, "phedex-rucio: kept by hand", Keep(by="by hand")),
        ({}, 'phedex-rucio: kept {"by": 7}', Keep(by='{"by": 7}')),
        ({KEEP: {"by": "op", "at": AT, "cycle": "c1"}}, COMMENT, Keep("op", AT, "c1")),
        ({KEEP: {"by": None}}, None, Keep()),
        ({KEEP: "op"}, None, Keep(by="op")),
        ({KEEP: {"by": "old"}}, 'phedex-rucio: kept {"by":"new"}', Keep(by="new")),
    ],
)
def test_a_keep_stands_in_the_comment_or_in_a_meta_of_before(
    meta: dict[str, Any], comment: str | None, keep: Keep | None
) -> None:
    assert keep_of(meta, comment) == keep


def test_when_a_keep_was_taken_back() -> None:
    assert cleared_text(1543365910) == "phedex-rucio: cleared 1543365910"
    assert cleared_at(cleared_text(1543365910)) == 1543365910


@pytest.mark.parametrize(
    "comment",
    [
        None,
        "",
        COMMENT,
        "1543365910",
        "phedex-rucio: cleared ",
        "phedex-rucio: cleared soon",
        "phedex-rucio: cleared -5",
        "phedex-rucio: cleared ٣",
        "phedex-rucio: cleared 1000000000000",
        keep_text(Keep("op", AT)),
    ],
)
def test_a_comment_that_tells_of_no_keep_taken_back(comment: str | None) -> None:
    assert cleared_at(comment) == 0


def test_the_longest_time_that_is_read() -> None:
    assert cleared_at("phedex-rucio: cleared 999999999999") == 999_999_999_999


# --- files that left -----------------------------------------------------------------------------------------------


def test_files_that_left_are_remembered_by_when_that_was_read() -> None:
    one, two, three = (hash_of(f"/store/{n}") for n in range(3))
    assert len(one) == HASH
    meta = with_left(OURS, {one: 100, two: 100, three: 200})
    assert meta == OURS | {LEFT: {"100": "".join(sorted([one, two])), "200": three}}
    assert left_of(meta) == {one: 100, two: 100, three: 200}
    assert with_left(meta, {three: 200}) == OURS | {LEFT: {"200": three}}
    assert with_left(meta, {}) == OURS
    assert left_of(OURS) == {}


@pytest.mark.parametrize("noted", ["yes", None, {"soon": "aaaaaaaa"}, {"5": 7}, {"-5": "aaaaaaaa"}, {"٣": "aaaaaaaa"}])
def test_what_nobody_can_read_remembers_no_file(noted: object) -> None:
    assert left_of({LEFT: noted}) == {}


def test_of_two_times_the_first_counts_and_new_files_begin_now() -> None:
    assert left_of({LEFT: {"5": "aaaaaaaa", "3": "aaaaaaaabbbbbbbb"}}) == {"aaaaaaaa": 5, "bbbbbbbb": 3}
    old, new = hash_of("/store/old"), hash_of("/store/new")
    assert still_left({old: 5, "bbbbbbbb": 3}, ["/store/old", "/store/new"], 9) == {old: 5, new: 9}


def test_so_many_files_fit_into_a_rule() -> None:
    files = {hash_of(f"/store/{n}"): 1_700_000_000 + n % 50 for n in range(LEFT_FILES)}
    meta = with_left(OURS | MARK | {GONE_HELD: "x" * 200}, files)
    assert len(json.dumps(json.dumps(meta))) < 3_999
    assert left_of(meta) == files


# --- as Rucio gives it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "meta"),
    [
        (OURS, OURS),
        (json.dumps(OURS), OURS),
        (json.dumps(json.dumps(OURS)), OURS),
        (json.dumps(json.dumps(json.dumps(OURS))), {}),
        (None, {}),
        ("", {}),
        ("{", {}),
        ("[1]", {}),
        ('"{"', {}),
        (7, {}),
    ],
)
def test_a_meta_is_read_however_often_it_was_encoded(text: object, meta: dict[str, object]) -> None:
    assert parse_meta(text) == meta


@pytest.mark.parametrize(
    ("meta", "named"),
    [
        ({}, None),
        ({GONE_SINCE: 100}, None),
        ({SWEEPING: 70}, set()),  # of before: the time alone
        ({SWEEPING: None}, set()),
        ({SWEEPING: {"at": 70}}, set()),
        ({SWEEPING: {"at": 70, "file": None}}, set()),
        ({SWEEPING: {"at": 70, "file": "0123abcd"}}, {"0123abcd"}),
        ({SWEEPING: {"at": 70, "file": "0123abcd", "more": ""}}, {"0123abcd"}),
        ({SWEEPING: {"at": 70, "file": "0123abcd", "more": "4567ef0189ab0123"}}, {"0123abcd", "4567ef01", "89ab0123"}),
    ],
)
def test_which_file_tells_that_a_sweep_has_begun(meta: dict[str, Any], named: set[str] | None) -> None:
    assert named_of(meta) == named


def test_a_sweep_that_is_about_to_begin_names_files() -> None:
    files = [f"/store/{letter}.root" for letter in "cab"]
    one, two, three = sorted(map(hash_of, files))
    meta = with_sweeping({GONE_SINCE: 100, SWEEPING: 5}, 70, files)
    assert meta == {GONE_SINCE: 100, SWEEPING: {"at": 70, "file": one, "more": two + three}}
    assert named_of(meta) == {one, two, three}
    assert unmarked(meta, 80) == {SEEN: 80}
