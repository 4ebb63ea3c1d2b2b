"""Every limit of the guard alone: what is held, what a person is told, and what an approval lets pass."""

from __future__ import annotations

import shlex
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from common.sync import approvals
from common.sync.guard import Case, Leaving, Ruling, Tally, checksum_of, over_by_number, rule
from common.sync.limits import Budget, Limit, single_limit
from common.sync.marks import Hold, Removal

NODE = "T2_IT_Pisa"
TB = 10**12
LOOKED = datetime(2018, 3, 14, 3, 12, 1, tzinfo=UTC)
SINCE = int(LOOKED.timestamp())
NOW = LOOKED + timedelta(minutes=10)


def names(number: int, start: int = 0) -> list[str]:
    return [f"/A/B-v1/RAW#{n:05}" for n in range(start, start + number)]


def moved(number: int, start: int = 0, **fields: Any) -> dict[str, Leaving]:
    return {name: Leaving(Removal.MOVED, **fields) for name in names(number, start)}


def noted(case: Case, since: int = SINCE) -> Case:
    """The same with all of it on record as held since then."""
    held = {
        name: Leaving(o.why, o.bytes, o.custodial, o.locked, o.marked, Hold(since, o.why, 0, o.custodial))
        for name, o in case.remove.items()
    }
    return replace(case, remove=held)


def code(dataset: str = "*", at: datetime = LOOKED, node: str = NODE) -> str:
    return approvals.code_of(at, approvals.scope_of(node, dataset))


def case(remove: dict[str, Leaving], rules: int = 1000, marked: int = 0, **fields: Any) -> Case:
    usual: dict[str, Any] = {
        "node": NODE,
        "rse": NODE,
        "command": f"phedex-rucio sync site {NODE}",
        "budget": Budget(),
        "at": NOW,
        "present": rules - marked - len(remove),
        "standing": rules - marked,
        "site": Tally(rules, marked),
    }
    return Case(remove=remove, **{**usual, **fields})


def held_by(ruling: Ruling, limit: Limit, number: int) -> str:
    """The sentence of the weightiest limit, which is this one and holds so many blocks."""
    assert ruling.limit is limit
    assert list(ruling.held.values()).count(limit) == number
    assert not set(ruling.held) & set(ruling.allowed)
    return ruling.stops[0].says


def test_within_the_limits_all_pass() -> None:
    ruling = rule(case(moved(100)))
    assert ruling.allowed == names(100)
    assert (ruling.held, ruling.stops, ruling.limit, ruling.command, ruling.approved) == ({}, [], None, "", [])
    assert (ruling.share, ruling.number, ruling.sweep) == (0.1, 100, True)


def test_share() -> None:
    ruling = rule(case(moved(300)))
    says = held_by(ruling, Limit.SHARE, 300)
    assert says == "would mark 300 of 1,000 rules (30 %), limit 10 %"
    assert ruling.stops[0].most == 0.1
    assert ruling.command == f"phedex-rucio sync site {NODE} --approve {code(at=NOW)} --reason '…'"
    assert ruling.record == names(300)


def test_what_is_marked_is_spent() -> None:
    assert rule(case(moved(10), marked=90)).allowed
    ruling = rule(case(moved(11), marked=90))
    says = held_by(ruling, Limit.SHARE, 11)
    assert says == "would mark 101 of 1,000 rules, 90 of them marked already (10.1 %), limit 10 %"


def test_a_small_site_has_the_same_share() -> None:
    assert held_by(rule(case(moved(1), rules=5, present=5, standing=5)), Limit.SHARE, 1).startswith(
        "would mark 1 of 5 rul"
    )


def test_number() -> None:
    assert rule(case(moved(1000), rules=100_000)).allowed
    ruling = rule(case(moved(1000), rules=100_000, marked=1))
    assert held_by(ruling, Limit.BLOCKS, 1000).endswith("limit 1,000 at one time")
    assert ruling.stops[0].most == 1000


def test_bytes_of_what_is_marked_count_too() -> None:
    assert rule(case(moved(10, bytes=50 * TB), spent_bytes=500 * TB)).allowed
    ruling = rule(case(moved(10, bytes=50 * TB), spent_bytes=501 * TB))
    assert held_by(ruling, Limit.BYTES, 10) == "would mark 1.0 PB, limit 1.0 PB at one time"
    assert ruling.bytes == 1001 * TB


def test_an_empty_list_removes_nothing_and_no_approval_helps() -> None:
    before = noted(case(moved(5), rules=5, present=0))
    for each in (before, replace(before, approve=code())):
        ruling = rule(each)
        says = held_by(ruling, Limit.EMPTY, 5)
        assert says == (
            f"PhEDEx lists not one complete block at {NODE}, and Rucio has 5 rules there: "
            "not even an approval, without `allow_clean`"
        )
        assert (ruling.command, ruling.everywhere, ruling.record) == ("", "", [])
        assert (ruling.sweep, ruling.approved) == (False, [])


def test_an_empty_list_sweeps_nothing_and_no_approval_helps() -> None:
    pending = dict.fromkeys(names(5), Removal.MOVED)
    at = dict.fromkeys(pending, SINCE)
    before = case({}, rules=5, marked=5, present=0, pending=pending, marked_at=at)
    for each in (before, replace(before, approve=code())):
        ruling = rule(each)
        assert (ruling.sweep, ruling.approved, ruling.allowed, ruling.kept) == (False, [], [], [])


def test_a_site_that_may_be_emptied_still_wants_an_approval() -> None:
    before = noted(case(moved(5), rules=5, present=0, budget=Budget(share=1, allow_clean=True)), SINCE + 1)
    ruling = rule(before)
    says = held_by(ruling, Limit.EMPTY, 5)
    assert says == f"PhEDEx lists not one complete block at {NODE}, and Rucio has 5 rules there"
    assert ruling.command
    assert ruling.record == names(5)
    assert rule(replace(before, approve=code())).allowed == []  # it was not on record then
    approved = rule(replace(noted(before), approve=code()))
    assert (approved.allowed, approved.held) == (names(5), {})
    assert (approved.approved, approved.approval, approved.sweep) == (names(5), code(), True)
    assert approved.command == ""
    later = case({}, rules=5, marked=5, present=0, standing=0, budget=before.budget)
    assert rule(later).sweep
    assert not rule(replace(later, budget=Budget())).sweep
    assert not rule(replace(later, standing=1)).sweep


@pytest.mark.parametrize(("proven", "empty"), [(4, True), (5, False)])
def test_blocks_that_are_proven_to_be_gone_everywhere_make_no_list_look_empty(proven: int, empty: bool) -> None:
    remove = {name: Leaving(Removal.NOWHERE) for name in names(5)}
    ruling = rule(case(remove, rules=5, present=0, standing=5 - proven, proven=proven))
    assert (ruling.limit is Limit.EMPTY, ruling.limit is Limit.NOWHERE) == (empty, not empty)
    assert ruling.sweep is not empty
    own = rule(case(remove, own=Tally(5), present=0, standing=5 - proven, proven=proven))
    assert (own.limit is Limit.EMPTY) is empty


def test_a_list_that_shrank_holds_even_a_few() -> None:
    ruling = rule(case(moved(3), present=899))
    says = held_by(ruling, Limit.SHRUNK, 3)
    assert says == "PhEDEx lists 899 complete blocks where 1,000 rules should stand, which is 10.1 % less, limit 10 %"
    assert not ruling.sweep
    assert rule(case(moved(3), present=900)).sweep


def test_marked_rules_do_not_make_a_list_look_short() -> None:
    assert rule(case({}, rules=1000, marked=300, present=700)).sweep


ONLY = "only a person removes such"


@pytest.mark.parametrize(
    ("fields", "one", "limit", "says"),
    [
        ({"tape": True}, Leaving(Removal.MOVED), Limit.TAPE, f"on tape: {ONLY}"),
        ({}, Leaving(Removal.MOVED, custodial=True), Limit.CUSTODIAL, f"custodial: {ONLY}"),
        ({}, Leaving(Removal.UNKNOWN), Limit.UNKNOWN, f"not known to PhEDEx any more: {ONLY}"),
        (
            {},
            Leaving(Removal.NOWHERE),
            Limit.NOWHERE,
            f"deleted everywhere in PhEDEx, so this is the last copy: {ONLY}",
        ),
        (
            {},
            Leaving(Removal.UNPROVEN),
            Limit.UNPROVEN,
            f"listed nowhere in PhEDEx, and nothing tells of a deletion: {ONLY}",
        ),
    ],
)
def test_some_blocks_only_a_person_removes(fields: dict[str, Any], one: Leaving, limit: Limit, says: str) -> None:
    before = case({"/A/B/C#1": one}, **fields)
    ruling = rule(before)
    assert held_by(ruling, limit, 1) == f"1 block {says}"
    assert ruling.sweep
    assert ruling.record == ["/A/B/C#1"]
    assert f"--approve {code(at=NOW)}" in ruling.command
    approved = rule(replace(noted(before), approve=code()))
    assert (approved.allowed, approved.held, approved.stops) == (["/A/B/C#1"], {}, [])
    assert rule(replace(before, approve=code())).held == ruling.held  # it was not on record
    free = Budget(hold_custodial=False, hold_unknown=False, hold_nowhere=False)
    allowed = [] if one.why is Removal.UNPROVEN else ["/A/B/C#1"]
    assert rule(replace(before, budget=free)).allowed == allowed


@pytest.mark.parametrize(
    ("why", "tape", "custodial", "limit"),
    [
        (Removal.MOVED, False, False, None),
        (Removal.UNKNOWN, True, True, Limit.TAPE),
        (Removal.UNPROVEN, False, True, Limit.CUSTODIAL),
        (Removal.INCOMPLETE, False, False, None),
        (Removal.WAITING, False, False, None),
        (Removal.GONE, False, False, None),
    ],
)
def test_the_first_of_the_reasons_for_one_block(why: Removal, tape: bool, custodial: bool, limit: Limit | None) -> None:
    assert single_limit(why, Budget(), tape=tape, custodial=custodial) is limit


def test_the_rest_passes_beside_those_held_one_by_one() -> None:
    mixed = moved(3) | {"/A/B/C#1": Leaving(Removal.UNKNOWN), "/A/B/C#2": Leaving(Removal.MOVED, custodial=True)}
    ruling = rule(case(mixed))
    assert ruling.allowed == names(3)
    assert ruling.held == {"/A/B/C#1": Limit.UNKNOWN, "/A/B/C#2": Limit.CUSTODIAL}
    assert ruling.record == ["/A/B/C#1", "/A/B/C#2"]
    backwards = rule(case(dict(reversed(mixed.items()))))
    assert list(backwards.held) == ["/A/B/C#1", "/A/B/C#2"]
    doubted = rule(case(mixed, doubt="cut"))
    assert ([stop.limit for stop in doubted.stops], set(doubted.held.values())) == ([Limit.DOUBT], {Limit.DOUBT})


def test_those_held_one_by_one_take_nothing_of_the_budget_and_lend_nothing() -> None:
    unknown = {f"/U/U/RAW#{n}": Leaving(Removal.UNKNOWN) for n in range(50)}
    assert len(rule(case(moved(100) | unknown, present=950)).allowed) == 100
    assert not rule(case(moved(101) | unknown, present=950)).allowed


def test_a_dataset_has_a_share_of_its_own_from_ten_rules_up() -> None:
    fields: dict[str, Any] = {"present": 7, "standing": 9}
    assert rule(case(moved(2), own=Tally(9), **fields)).allowed
    ruling = rule(case(moved(2), own=Tally(10), present=9, standing=10))
    says = held_by(ruling, Limit.DATASET_SHARE, 2)
    assert rule(case(moved(1), own=Tally(10), present=9, standing=10)).allowed  # just the share
    assert says == "would mark 2 of 10 rules of this dataset (20 %), limit 10 %"
    held_by(rule(case(moved(200), own=Tally(2000), present=1999, standing=2000)), Limit.SHARE, 200)


def test_a_pattern_that_matches_nothing_in_phedex_removes_nothing() -> None:
    says = held_by(rule(case(moved(2), own=Tally(2), present=0, standing=2)), Limit.EMPTY, 2)
    assert says.startswith(f"PhEDEx lists nothing complete that was asked for at {NODE}, and Rucio has 2 rules")


def test_reasons_that_could_not_be_found_out_hold_all_and_no_approval_helps() -> None:
    before = noted(case(moved(2), doubt="Stale: the reply is old"))
    for each in (before, replace(before, approve=code())):
        ruling = rule(each)
        says = held_by(ruling, Limit.DOUBT, 2)
        assert says == "why blocks are missing and how large they are could not be found out: Stale: the reply is old"
        assert (ruling.command, ruling.everywhere, ruling.record, ruling.approved) == ("", "", [], [])


def test_reasons_that_could_not_be_found_out_approve_no_marks() -> None:
    pending = dict.fromkeys(names(2), Removal.GONE)
    before = case({}, marked=2, pending=pending, marked_at=dict.fromkeys(pending, SINCE), approve=code())
    assert rule(before).approved == names(2)
    assert rule(replace(before, doubt="Stale")).approved == []


# --- an approval ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("approve", "says"),
    [
        ("cafa77efed4c3e95", "'cafa77efed4c3e95' is no approval code such as 20261128T004510123-1a2b3c: look again"),
        (code(node="T2_US_MIT"), f"was given for another site or pattern than {NODE} *: look again"),
        (code("/A/*/*"), f"was given for another site or pattern than {NODE} *: look again"),
        (code(at=NOW + timedelta(hours=1)), "is of a time to come: clocks differ: look again"),
        (code(at=NOW - timedelta(hours=25)), "has lapsed: an approval lasts 24 h (approval_lifetime): look again"),
    ],
)
def test_a_code_that_is_not_good_here_lets_nothing_pass_and_a_good_one_is_offered(approve: str, says: str) -> None:
    old = SINCE - 10**6
    ruling = rule(replace(noted(case(moved(3)), old), approve=approve))
    assert held_by(ruling, Limit.APPROVAL, 3).endswith(says)
    assert (ruling.allowed, ruling.approved, ruling.approval) == ([], [], "")
    assert f"--approve {code(at=NOW)}" in ruling.command
    pending = dict.fromkeys(names(2), Removal.MOVED)
    marks = case({}, marked=2, pending=pending, marked_at=dict.fromkeys(pending, old), approve=approve)
    assert (rule(marks).approved, rule(marks).sweep) == ([], True)
    assert rule(replace(marks, present=1)).sweep is False


def test_a_code_of_a_narrowed_plan_is_good_with_the_same_words_alone() -> None:
    gone = {name: Leaving(Removal.UNKNOWN) for name in names(3)}
    narrowed: dict[str, Any] = {"select": "#0000[0-2]$", "ignore": "it's"}
    ruling = rule(case(gone, **narrowed))
    words = shlex.split(ruling.everywhere)
    assert words[3:-4] == ["/A/B-v1/RAW", "--select", "#0000[0-2]$", "--ignore", "it's"]
    here, everywhere = (
        shlex.split(each)[shlex.split(each).index("--approve") + 1] for each in (ruling.command, ruling.everywhere)
    )
    for approve, dataset in ((here, "*"), (everywhere, "/A/B-v1/RAW")):
        fields: dict[str, Any] = {"dataset": dataset, "approve": approve}
        assert rule(noted(case(gone, **narrowed, **fields))).approved == names(3)
        for other in ({}, {"select": narrowed["select"]}, narrowed | {"ignore": "its"}):
            refused = rule(noted(case(gone, **other, **fields)))
            assert (refused.limit, refused.approved, refused.allowed) == (Limit.APPROVAL, [], [])


def test_an_approval_lasts_as_long_as_the_settings_say() -> None:
    before = noted(case(moved(300)))
    assert rule(replace(before, approve=code(), lifetime=600)).allowed == names(300)
    assert rule(replace(before, approve=code(), lifetime=599)).limit is Limit.APPROVAL


def test_an_approval_covers_what_was_on_record_and_the_rest_is_judged_without_it() -> None:
    later = {name: Leaving(Removal.MOVED, hold=Hold(SINCE + 1, Removal.MOVED)) for name in names(1, 300)}
    never = moved(1, 301)
    before = noted(case(moved(300)))
    ruling = rule(replace(before, remove={**before.remove} | later | never, approve=code()))
    assert ruling.allowed == ruling.approved == names(300)
    assert ruling.held == dict.fromkeys(names(2, 300), Limit.SHARE)
    assert ruling.record == names(2, 300)
    assert ruling.stops[0].says == "would mark 302 of 1,000 rules (30.2 %), limit 10 %"  # the approved ones count
    assert ruling.approval == code()
    assert f"--approve {code(at=NOW)}" in ruling.command
    few = noted(case(moved(90)))
    ruling = rule(replace(few, remove={**few.remove} | never, approve=code()))
    assert (ruling.allowed, ruling.approved) == ([*names(90), *names(1, 301)], names(90))


def test_an_approval_beside_a_share_that_the_rest_alone_would_keep() -> None:
    """Each part is under the limit, and both together are not: what nobody approved waits."""
    before = noted(case(moved(60)))
    ruling = rule(replace(before, remove={**before.remove} | moved(60, 60), approve=code()))
    assert ruling.allowed == names(60)
    assert ruling.held == dict.fromkeys(names(60, 60), Limit.SHARE)
    of = noted(case(moved(60, bytes=TB), budget=Budget(share=1, bytes=100 * TB)))
    ruling = rule(replace(of, remove={**of.remove} | moved(60, 60, bytes=TB), approve=code()))
    assert ruling.held == dict.fromkeys(names(60, 60), Limit.BYTES)


@pytest.mark.parametrize(
    ("held", "now", "passes"),
    [
        (Removal.UNKNOWN, Removal.NOWHERE, True),
        (Removal.UNPROVEN, Removal.NOWHERE, True),
        (Removal.NOWHERE, Removal.NOWHERE, True),
        (Removal.NOWHERE, Removal.UNPROVEN, False),
        (Removal.UNPROVEN, Removal.UNKNOWN, False),
        (Removal.MOVED, Removal.NOWHERE, False),
    ],
)
def test_an_approval_covers_the_reason_on_record_and_milder_ones(held: Removal, now: Removal, passes: bool) -> None:
    ruling = rule(case({"/A/B/C#1": Leaving(now, hold=Hold(SINCE, held))}, approve=code()))
    assert (ruling.allowed, ruling.approved) == ((["/A/B/C#1"],) * 2 if passes else ([], []))
    assert len(ruling.held) == (not passes)


def test_an_approval_of_a_dataset_at_all_nodes() -> None:
    dataset = "/A/B-v1/RAW"
    gone = {name: Leaving(Removal.UNPROVEN) for name in names(20)}
    before = noted(case(gone, dataset=dataset, own=Tally(40), present=20, standing=40))
    ruling = rule(before)
    everywhere = code(dataset, NOW, approvals.EVERYWHERE)
    assert ruling.everywhere == f"phedex-rucio sync dataset {dataset} --approve {everywhere} --reason '…'"
    approved = rule(replace(before, approve=code(dataset, node=approvals.EVERYWHERE)))
    assert (approved.allowed, approved.everywhere) == (names(20), "")


def test_an_approval_covers_no_block_that_is_custodial_since() -> None:
    was = Leaving(Removal.MOVED, custodial=True, hold=Hold(SINCE, Removal.MOVED))
    before = case({"/A/B/C#1": was}, approve=code())
    assert (rule(before).approved, rule(before).held) == ([], {"/A/B/C#1": Limit.CUSTODIAL})
    assert rule(before).record == ["/A/B/C#1"]
    assert rule(replace(before, budget=Budget(hold_custodial=False))).approved == ["/A/B/C#1"]


def test_an_approval_of_all_nodes_covers_nothing_but_what_is_gone_everywhere() -> None:
    dataset = "/A/B-v1/RAW"
    whys = [Removal.NOWHERE, Removal.UNPROVEN, Removal.UNKNOWN, Removal.MOVED, Removal.INCOMPLETE]
    remove = {name: Leaving(why) for name, why in zip(names(5), whys, strict=True)}
    pending = dict(zip(names(5, 100), whys, strict=True))
    fields: dict[str, Any] = {"dataset": dataset, "own": Tally(500), "present": 480, "standing": 490}
    marked_at = dict.fromkeys(pending, SINCE)
    before = noted(case(remove, marked=5, pending=pending, marked_at=marked_at, **fields))
    gone = names(3) + names(3, 100)
    assert rule(replace(before, approve=code(dataset, node=approvals.EVERYWHERE))).approved == gone
    assert rule(replace(before, approve=code(dataset))).approved == names(5) + names(5, 100)


def test_an_empty_list_of_a_dataset_is_believed_where_all_of_it_is_approved() -> None:
    dataset = "/A/B-v1/RAW"
    gone = {name: Leaving(Removal.UNPROVEN) for name in names(4)}
    before = noted(case(gone, dataset=dataset, own=Tally(4), present=0, standing=4, approve=code(dataset)))
    assert (rule(before).approved, rule(before).allowed) == (names(4), names(4))
    more = replace(before, own=Tally(5))
    assert (rule(more).approved, rule(more).limit) == ([], Limit.EMPTY)
    fewer = replace(before, own=Tally(3))  # a rule more than the list of rules had
    assert rule(fewer).approved == names(4)
    whole = replace(before, own=None, dataset="*", approve=code(), site=Tally(4))
    assert (rule(whole).approved, rule(whole).limit) == ([], Limit.EMPTY)
    assert rule(replace(before, approve="")).limit is Limit.EMPTY


@pytest.mark.parametrize(
    ("remove", "offered"),
    [
        ({"/A/B/C#1": Leaving(Removal.NOWHERE), "/A/B/C#2": Leaving(Removal.UNKNOWN)}, True),
        ({"/A/B/C#1": Leaving(Removal.NOWHERE), "/A/B/D#1": Leaving(Removal.NOWHERE)}, False),
        ({"/A/B/C#1": Leaving(Removal.NOWHERE), "/A/B/C#2": Leaving(Removal.MOVED, custodial=True)}, False),
        ({"/A/B/C#1": Leaving(Removal.NOWHERE), "/A/B/D#1": Leaving(Removal.NOWHERE, locked=True)}, True),
        ({"/A/B/C#1": Leaving(Removal.NOWHERE), "/A/B/D#1": Leaving(Removal.MOVED)}, True),
        ({"/A/B/C#1": Leaving(Removal.MOVED)}, False),
    ],
)
def test_one_approval_for_all_nodes_is_offered_where_one_dataset_is_held_and_gone(
    remove: dict[str, Leaving], offered: bool
) -> None:
    assert bool(rule(case(remove)).everywhere) is offered
    assert rule(case(remove, doubt="cut")).everywhere == ""
    assert rule(case(remove, present=0)).everywhere == ""


def test_marks_that_were_made_when_somebody_looked_are_approved_with_it() -> None:
    pending = dict.fromkeys(names(4), Removal.MOVED)
    at = {names(4)[0]: SINCE - 1, names(4)[1]: SINCE, names(4)[2]: SINCE + 1, names(4)[3]: 0}
    before = case({}, marked=4, pending=pending, marked_at=at, approve=code())
    assert (rule(before).approved, rule(before).kept) == (names(2), [])  # the others go by their own permission
    assert rule(replace(before, locked={names(1)[0]})).approved == names(1, 1)
    assert rule(replace(before, marked_at={})).approved == []


def test_an_approval_come_twice_has_nothing_left_to_allow() -> None:
    pending = dict.fromkeys(names(300), Removal.MOVED)
    at = dict.fromkeys(pending, SINCE + 60)
    ruling = rule(case({}, marked=300, pending=pending, marked_at=at, approve=code()))
    assert (ruling.allowed, ruling.held, ruling.stops, ruling.approved) == ([], {}, [], [])


# --- locked rules --------------------------------------------------------------------------------------------------

LOCKED = "whose rule a person locked: it stays until that person unlocks it"


def test_a_locked_rule_is_never_passed() -> None:
    before = noted(case(moved(1, locked=True) | moved(1, 1)))
    for each in (before, replace(before, approve=code())):
        ruling = rule(each)
        assert ruling.allowed == names(1, 1)
        assert ruling.held == {names(1)[0]: Limit.LOCKED}
        assert ruling.stops[0].says == f"1 block {LOCKED}"
        assert (ruling.command, ruling.record) == ("", [])
    unknown = case({"/A/B/C#1": Leaving(Removal.UNKNOWN, locked=True)})
    assert (rule(unknown).held, rule(unknown).command) == ({"/A/B/C#1": Limit.LOCKED}, "")
    all_of_it = rule(replace(before, doubt="cut"))
    assert all_of_it.held == {names(1)[0]: Limit.LOCKED, names(1, 1)[0]: Limit.DOUBT}


def test_a_locked_rule_takes_nothing_of_the_budget() -> None:
    assert len(rule(case(moved(100) | moved(100, 100, locked=True), present=900)).allowed) == 100
    ruling = rule(case(moved(101) | moved(100, 101, locked=True), present=900))
    assert ruling.stops[0].says == "would mark 101 of 1,000 rules (10.1 %), limit 10 %"
    assert [stop.limit for stop in ruling.stops] == [Limit.SHARE, Limit.LOCKED]
    assert ruling.record == names(101)


def test_a_marked_block_whose_rule_was_locked_stays() -> None:
    pending = dict.fromkeys(names(2), Removal.MOVED)
    marks = case({}, marked=2, pending=pending, locked={names(1)[0]}, marked_at=dict.fromkeys(pending, SINCE))
    ruling = rule(marks)
    assert (ruling.kept, ruling.sweep, ruling.command) == (names(1), True, "")
    assert [stop.says for stop in ruling.stops] == [f"1 block {LOCKED}"]
    approved = rule(replace(marks, approve=code()))
    assert (approved.kept, approved.approved) == (names(1), names(1, 1))


@pytest.mark.parametrize(
    ("fields", "limit"),
    [({"custodial": set(names(1))}, Limit.CUSTODIAL), ({"tape": True}, Limit.TAPE)],
)
def test_a_marked_block_that_is_custodial_or_on_tape_by_now_waits_for_a_person(
    fields: dict[str, Any], limit: Limit
) -> None:
    (name,) = names(1)
    pending = {name: Removal.INCOMPLETE}
    marks = case({}, marked=1, pending=pending, marked_at={name: SINCE}, loose={name: TB}, **fields)
    ruling = rule(marks)
    assert (ruling.kept, ruling.limit, ruling.sweep) == ([name], limit, True)
    assert ruling.command.endswith(f"--approve {code(at=NOW)} --reason '…'")
    approved = rule(replace(marks, approve=code()))
    assert (approved.approved, approved.kept, approved.stops) == ([name], [], [])
    late = rule(replace(marks, approve=code(), marked_at={name: SINCE + 1}))
    assert (late.approved, late.kept) == ([], [name])
    passes = [
        replace(marks, budget=Budget(hold_custodial=False)),
        replace(marks, loose={}),
        replace(marks, begun={name}),
    ]
    assert [(rule(each).kept, rule(each).stops) for each in passes] == [([], [])] * 3


def test_a_marked_block_that_stays_anyway_is_told_once() -> None:
    pending = dict.fromkeys(names(150), Removal.MOVED)
    many = case({}, marked=150, pending=pending, loose=dict.fromkeys(pending, 0), tape=True)
    assert [stop.limit for stop in rule(many).stops] == [Limit.MARKED]
    (name,) = names(1)
    locked = case({}, marked=1, pending={name: Removal.MOVED}, loose={name: 0}, tape=True, locked={name})
    assert [stop.limit for stop in rule(locked).stops] == [Limit.LOCKED]


@pytest.mark.parametrize("fields", [{"doubt": "Stale"}, {"approve": code(node="T2_US_MIT")}])
def test_what_stops_all_new_marks_lets_no_marked_block_go_that_waits_for_a_person(fields: dict[str, Any]) -> None:
    (name,) = names(1)
    ruling = rule(case(moved(1, 1), marked=1, pending={name: Removal.MOVED}, loose={name: TB}, tape=True, **fields))
    assert (ruling.held.keys(), ruling.kept) == (set(names(1, 1)), [name])
    assert [stop.limit for stop in ruling.stops][1:] == [Limit.TAPE]


def test_a_sweep_that_has_begun_still_destroys_nothing_without_a_person() -> None:
    pending = dict.fromkeys(names(1), Removal.UNKNOWN)
    fields: dict[str, Any] = {"loose": dict.fromkeys(pending, 0), "custodial": set(pending), "begun": set(pending)}
    assert rule(case({}, marked=1, pending=pending, **fields)).limit is Limit.UNKNOWN


def test_where_nothing_is_held_nothing_is_told() -> None:
    marks: dict[str, Any] = {"marked": 150, "loose": dict.fromkeys(names(150), TB)}  # of another selection
    for doubt in ({"doubt": "cut"}, {"approve": "0" * 16}):
        assert rule(case({}, **doubt)).stops == []
        assert rule(case({}, **doubt, **marks)).stops == []
    assert rule(case({}, **marks)).stops == []


def test_an_empty_list_is_told_first_and_once() -> None:
    ruling = rule(case(moved(5), rules=5, present=0, budget=Budget(allow_clean=True)))
    assert [stop.limit for stop in ruling.stops] == [Limit.EMPTY, Limit.SHARE]


def test_marks_at_a_site_without_rules_are_too_many() -> None:
    (stop,) = over_by_number(2, 0, Budget(share=1.5))
    assert stop.limit is Limit.MARKED
    assert list(over_by_number(2, 2, Budget(share=1.5))) == []
    assert rule(case({}, rules=0)).share == 0


def test_a_list_that_shrank_is_told_beside_locked_rules_until_an_approval_covers_the_rest() -> None:
    locked = moved(1, 9, locked=True)
    before = case(locked, present=500)
    assert [stop.limit for stop in rule(before).stops] == [Limit.SHRUNK, Limit.LOCKED]
    both = noted(replace(before, remove=moved(2) | locked))
    assert [stop.limit for stop in rule(both).stops] == [Limit.SHRUNK, Limit.LOCKED]
    approved = rule(replace(both, approve=code()))
    assert ([stop.limit for stop in approved.stops], approved.allowed) == ([Limit.LOCKED], names(2))
    part = rule(replace(both, remove={**both.remove} | moved(1, 2), approve=code()))
    assert [stop.limit for stop in part.stops] == [Limit.SHRUNK, Limit.LOCKED]
    assert (part.allowed, part.record) == (names(2), names(1, 2))


# --- marks that are replaced ---------------------------------------------------------------------------------------


def test_a_block_that_is_marked_anew_for_a_worse_reason_is_spent_already() -> None:
    again = moved(50, marked=True, bytes=TB)
    ruling = rule(case(again | moved(50, 50, bytes=TB), marked=50, spent_bytes=50 * TB, present=900))
    assert len(ruling.allowed) == 100
    assert (ruling.number, ruling.share, ruling.bytes) == (100, 0.1, 100 * TB)
    ruling = rule(case(again | moved(51, 50), marked=50, present=899))
    says = held_by(ruling, Limit.SHARE, 101)
    assert says == "would mark 101 of 1,000 rules, 50 of them marked already (10.1 %), limit 10 %"
    assert rule(case(again, marked=50, budget=Budget(blocks=50))).allowed == names(50)
    assert rule(case(again, marked=50, budget=Budget(blocks=49))).limit is Limit.BLOCKS
    assert rule(case(again, marked=50, spent_bytes=50 * TB, budget=Budget(bytes=50 * TB))).allowed == names(50)


def test_a_dataset_that_shrank_is_held_from_ten_rules_up() -> None:
    nine = case(moved(1), own=Tally(9), present=1, standing=9, budget=Budget(share=0.5))
    assert rule(nine).allowed == names(1)
    ten = replace(nine, own=Tally(10), standing=10)
    assert (rule(ten).limit, rule(ten).sweep) == (Limit.SHRUNK, False)


def test_a_list_that_shrank_lets_an_approval_pass_and_nothing_beside_it() -> None:
    pending = dict.fromkeys(names(2, 500), Removal.MOVED)
    at = {names(1, 500)[0]: SINCE, names(1, 501)[0]: SINCE + 1}
    before = noted(case(moved(3), marked=2, present=500, pending=pending, marked_at=at))
    assert (rule(before).sweep, rule(before).limit) == (False, Limit.SHRUNK)
    ruling = rule(replace(before, remove={**before.remove} | moved(1, 3), approve=code()))
    assert (ruling.allowed, ruling.held) == (names(3), dict.fromkeys(names(1, 3), Limit.SHRUNK))
    assert (ruling.sweep, ruling.kept) == (True, names(1, 501))


def test_the_checksum_stays_while_blocks_become_marked_and_changes_with_names_reasons_and_place() -> None:
    before = case(moved(4))
    half = case(moved(2, 2), marked=2, pending=dict.fromkeys(names(2), Removal.MOVED))
    assert checksum_of(before) == checksum_of(half)
    others = [
        case(moved(5)),
        case(moved(4) | {names(1)[0]: Leaving(Removal.UNKNOWN)}),
        replace(before, node="T2_US_MIT"),
        replace(before, rse="T2_US_MIT"),
    ]
    assert len({checksum_of(each) for each in [before, *others]}) == 5


def test_the_original_service_would_have_removed_a_site() -> None:
    """One block of 10,000 came back, which was not nothing: so the other 9,999 were taken for gone."""
    ruling = rule(case(moved(9_999), rules=10_000, present=1))
    assert ruling.allowed == []
    assert [stop.limit for stop in ruling.stops] == [Limit.SHARE, Limit.BLOCKS, Limit.SHRUNK]
    assert not ruling.sweep


def test_marks_that_nobody_approved_may_not_pass_the_budget_together() -> None:
    pending = dict.fromkeys(names(150), Removal.MOVED)
    at = dict.fromkeys(pending, SINCE)
    over = case({}, marked=150, pending=pending, marked_at=at, loose=dict.fromkeys(pending, TB))
    ruling = rule(over)
    assert (ruling.limit, ruling.kept, ruling.held, ruling.sweep) == (Limit.MARKED, names(150), {}, True)
    assert ruling.stops[0].says == "150 marks that nobody approved: 15 % of 1,000 rules, limit 10 %"
    assert ruling.stops[0].most == 0.1
    assert ruling.command.endswith(f"--approve {code(at=NOW)} --reason '…'")
    assert (ruling.everywhere, ruling.record) == ("", [])
    approved = rule(replace(over, approve=code()))
    assert (approved.approved, approved.kept, approved.stops, approved.command) == (names(150), [], [], "")
    late = rule(replace(over, marked_at=at | {names(1)[0]: SINCE + 1}, approve=code()))
    assert (late.kept, late.limit) == (names(1), Limit.MARKED)
    assert late.command
    other = rule(replace(over, approve="0" * 16))
    assert (other.limit, other.kept, other.approved) == (Limit.APPROVAL, names(150), [])
    assert [stop.limit for stop in other.stops] == [Limit.APPROVAL]


def test_marks_that_nobody_approved_within_the_budget() -> None:
    pending = dict.fromkeys(names(150), Removal.MOVED)
    looked_at = case({}, marked=150, pending=pending, loose=dict.fromkeys(names(100), TB))
    assert rule(looked_at).kept == []
    blocks = rule(replace(looked_at, budget=Budget(blocks=99))).stops[0]
    assert (blocks.says, blocks.most) == ("100 marks that nobody approved: limit 99 at one time", 99)
    assert rule(replace(looked_at, budget=Budget(blocks=100))).kept == []
    large = rule(replace(looked_at, budget=Budget(bytes=99 * TB))).stops[0]
    assert (large.says, large.most) == ("100 marks that nobody approved: 100 TB, limit 99 TB at one time", 99 * TB)
    assert rule(replace(looked_at, budget=Budget(bytes=100 * TB))).kept == []
    assert (rule(replace(looked_at, doubt="cut")).limit, rule(replace(looked_at, doubt="cut")).kept) == (
        Limit.DOUBT,
        names(100),
    )
    elsewhere = replace(looked_at, pending=dict.fromkeys(names(2, 99), Removal.MOVED), budget=Budget(share=0))
    assert rule(elsewhere).kept == names(1, 99)  # of the marks in this selection those that nobody approved


@pytest.mark.parametrize(("number", "kept"), [(1, 0), (2, 2), (3, 3)])
def test_one_mark_alone_is_no_sum_of_plans_and_two_are(number: int, kept: int) -> None:
    pending = dict.fromkeys(names(number), Removal.MOVED)
    for budget in (Budget(share=0), Budget(blocks=0), Budget(bytes=0)):
        ruling = rule(case({}, marked=number, pending=pending, loose=dict.fromkeys(pending, TB), budget=budget))
        assert ruling.kept == names(kept)
        assert len(list(over_by_number(number, 0, Budget(share=0.5)))) == (kept > 0)


def test_the_limits_words_go_over_the_wire() -> None:
    words = "doubt approval empty share dataset_share blocks bytes shrunk marked locked tape custodial"
    assert [str(limit) for limit in Limit] == [*words.split(), "nowhere", "unproven", "unknown"]
    assert len(checksum_of(case({}))) == 16


def test_the_usual_limits() -> None:
    assert Budget() == Budget(share=0.1, blocks=1_000, bytes=1_000 * TB, allow_clean=False)
    assert (Budget().hold_custodial, Budget().hold_nowhere, Budget().hold_unknown) == (True, True, True)
    usual = case({})
    assert (usual.lifetime, usual.spent_bytes, usual.proven) == (86_400, 0, 0)
    assert (Leaving(Removal.MOVED).bytes, rule(usual).everywhere, rule(usual).approval) == (0, "", "")
    assert rule(case({"/A/B/C#1": Leaving(Removal.UNKNOWN)})).stops[0].most == 0
