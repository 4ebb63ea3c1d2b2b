"""Every limit of the guard alone: what is held, what a person is told, and what an approval lets pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from common.sync.diff import Removal
from common.sync.guard import Budget, Case, Leaving, Limit, Ruling, Tally, checksum_of, rule

NODE = "T2_IT_Pisa"
TB = 10**12


def names(number: int, start: int = 0) -> list[str]:
    return [f"/A/B-v1/RAW#{n:05}" for n in range(start, start + number)]


def gone(number: int, **fields: Any) -> dict[str, Leaving]:
    return {name: Leaving(Removal.GONE, **fields) for name in names(number)}


def case(remove: dict[str, Leaving], rules: int = 1000, marked: int = 0, **fields: Any) -> Case:
    usual: dict[str, Any] = {
        "node": NODE,
        "rse": NODE,
        "command": f"phedex-rucio sync site {NODE}",
        "budget": Budget(),
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
    ruling = rule(case(gone(100)))
    assert ruling.allowed == names(100)
    assert (ruling.held, ruling.stops, ruling.limit, ruling.command, ruling.approved) == ({}, [], None, "", False)
    assert (ruling.share, ruling.number, ruling.sweep) == (0.1, 100, True)


def test_share() -> None:
    ruling = rule(case(gone(300)))
    says = held_by(ruling, Limit.SHARE, 300)
    assert says == "would mark 300 of 1,000 rules (30 %), limit 10 %"
    assert ruling.stops[0].most == 0.1
    assert ruling.command == f"phedex-rucio sync site {NODE} --approve {ruling.checksum} --reason '…'"


def test_what_is_marked_is_spent() -> None:
    assert rule(case(gone(10), marked=90)).allowed
    ruling = rule(case(gone(11), marked=90))
    says = held_by(ruling, Limit.SHARE, 11)
    assert says == "would mark 101 of 1,000 rules, 90 of them marked already (10.1 %), limit 10 %"


def test_a_small_site_has_the_same_share() -> None:
    assert held_by(rule(case(gone(1), rules=5, present=5, standing=5)), Limit.SHARE, 1).startswith(
        "would mark 1 of 5 rul"
    )


def test_number() -> None:
    assert rule(case(gone(1000), rules=100_000)).allowed
    ruling = rule(case(gone(1000), rules=100_000, marked=1))
    assert held_by(ruling, Limit.BLOCKS, 1000).endswith("limit 1,000 at one time")
    assert ruling.stops[0].most == 1000


def test_bytes_of_what_is_marked_count_too() -> None:
    assert rule(case(gone(10, bytes=50 * TB), spent_bytes=500 * TB)).allowed
    ruling = rule(case(gone(10, bytes=50 * TB), spent_bytes=501 * TB))
    assert held_by(ruling, Limit.BYTES, 10) == "would mark 1.0 PB, limit 1.0 PB at one time"
    assert ruling.bytes == 1001 * TB


def test_an_empty_list_removes_nothing_and_no_approval_helps() -> None:
    before = case(gone(5), rules=5, present=0)
    for each in (before, replace(before, approve=checksum_of(before))):
        ruling = rule(each)
        says = held_by(ruling, Limit.EMPTY, 5)
        assert says == (
            f"PhEDEx lists not one complete block at {NODE}, and Rucio has 5 rules there: "
            "not even an approval, without `allow_clean`"
        )
        assert (ruling.command, ruling.sweep, ruling.approved) == ("", False, False)


def test_a_site_that_may_be_emptied_still_wants_an_approval() -> None:
    before = case(gone(5), rules=5, present=0, budget=Budget(share=1, allow_clean=True))
    ruling = rule(before)
    held_by(ruling, Limit.EMPTY, 5)
    assert ruling.command
    approved = rule(replace(before, approve=ruling.checksum))
    assert (approved.allowed, approved.approved, approved.sweep) == (names(5), True, True)
    later = case({}, rules=5, marked=5, present=0, standing=0, budget=before.budget)
    assert rule(later).sweep
    assert not rule(replace(later, budget=Budget())).sweep


def test_a_list_that_shrank_holds_even_a_few() -> None:
    ruling = rule(case(gone(3), present=899))
    says = held_by(ruling, Limit.SHRUNK, 3)
    assert says == "PhEDEx lists 899 complete blocks where 1,000 rules should stand, which is 10.1 % less, limit 10 %"
    assert not ruling.sweep
    assert rule(case(gone(3), present=900)).sweep


def test_marked_rules_do_not_make_a_list_look_short() -> None:
    assert rule(case({}, rules=1000, marked=300, present=700)).sweep


@pytest.mark.parametrize(
    ("fields", "one", "limit", "says"),
    [
        ({"tape": True}, Leaving(Removal.GONE), Limit.TAPE, "1 block on tape"),
        ({}, Leaving(Removal.GONE, custodial=True), Limit.CUSTODIAL, "1 block custodial"),
        ({}, Leaving(Removal.UNKNOWN), Limit.UNKNOWN, "1 block not known to PhEDEx any more"),
    ],
)
def test_some_blocks_only_a_person_removes(fields: dict[str, Any], one: Leaving, limit: Limit, says: str) -> None:
    before = case({"/A/B/C#1": one}, **fields)
    ruling = rule(before)
    assert held_by(ruling, limit, 1) == f"{says}: only a person removes such"
    assert ruling.sweep
    approved = rule(replace(before, approve=ruling.checksum))
    assert (approved.allowed, approved.held, approved.stops) == (["/A/B/C#1"], {}, [])
    free = Budget(hold_custodial=False, hold_unknown=False)
    assert rule(replace(before, budget=free)).allowed == ["/A/B/C#1"]


def test_the_rest_passes_beside_those_held_one_by_one() -> None:
    mixed = gone(3) | {"/A/B/C#1": Leaving(Removal.UNKNOWN), "/A/B/C#2": Leaving(Removal.GONE, custodial=True)}
    ruling = rule(case(mixed))
    assert ruling.allowed == names(3)
    assert ruling.held == {"/A/B/C#1": Limit.UNKNOWN, "/A/B/C#2": Limit.CUSTODIAL}


def test_those_held_one_by_one_take_nothing_of_the_budget_and_lend_nothing() -> None:
    unknown = {f"/U/U/RAW#{n}": Leaving(Removal.UNKNOWN) for n in range(50)}
    assert len(rule(case(gone(100) | unknown, present=950)).allowed) == 100
    assert not rule(case(gone(101) | unknown, present=950)).allowed


def test_a_dataset_has_a_share_of_its_own_from_ten_rules_up() -> None:
    fields: dict[str, Any] = {"present": 7, "standing": 9}
    assert rule(case(gone(2), own=Tally(9), **fields)).allowed
    ruling = rule(case(gone(2), own=Tally(10), present=9, standing=10))
    says = held_by(ruling, Limit.DATASET_SHARE, 2)
    assert says == "would mark 2 of 10 rules of this dataset (20 %), limit 10 %"
    held_by(rule(case(gone(200), own=Tally(2000), present=1999, standing=2000)), Limit.SHARE, 200)


def test_a_pattern_that_matches_nothing_in_phedex_removes_nothing() -> None:
    says = held_by(rule(case(gone(2), own=Tally(2), present=0, standing=2)), Limit.EMPTY, 2)
    assert says.startswith(f"PhEDEx lists nothing complete that was asked for at {NODE}, and Rucio has 2 rules")


def test_reasons_that_could_not_be_found_out_hold_all_and_no_approval_helps() -> None:
    before = case(gone(2), doubt="Stale: the reply is old")
    for each in (before, replace(before, approve=checksum_of(before))):
        ruling = rule(each)
        assert "Stale: the reply is old" in held_by(ruling, Limit.DOUBT, 2)
        assert ruling.command == ""


def test_an_approval_of_another_set_lets_nothing_pass_and_names_both() -> None:
    yesterday = rule(case(gone(300), present=1000))
    today = rule(case(gone(3), approve=yesterday.checksum))
    says = held_by(today, Limit.APPROVAL, 3)
    assert yesterday.checksum in says
    assert today.checksum in says
    assert f"--approve {today.checksum}" in today.command


def test_an_approval_come_twice_has_nothing_left_to_allow() -> None:
    ruling = rule(case({}, marked=300, pending=dict.fromkeys(names(300), Removal.GONE), approve="what it was"))
    assert (ruling.allowed, ruling.held, ruling.stops, ruling.approved) == ([], {}, [], False)


def test_the_checksum_stays_while_blocks_become_marked_and_changes_with_names_reasons_and_place() -> None:
    before = case(gone(4))
    half = case(
        {name: Leaving(Removal.GONE) for name in names(4)[2:]}, marked=2, pending=dict.fromkeys(names(2), Removal.GONE)
    )
    assert checksum_of(before) == checksum_of(half)
    others = [
        case(gone(5)),
        case(gone(4) | {names(1)[0]: Leaving(Removal.UNKNOWN)}),
        replace(before, node="T2_US_MIT"),
        replace(before, rse="T2_US_MIT"),
    ]
    assert len({checksum_of(each) for each in [before, *others]}) == 5


def test_the_original_service_would_have_removed_a_site() -> None:
    """One block of 10,000 came back, which was not nothing: so the other 9,999 were taken for gone."""
    ruling = rule(case(gone(9_999), rules=10_000, present=1))
    assert ruling.allowed == []
    assert [stop.limit for stop in ruling.stops] == [Limit.SHARE, Limit.BLOCKS, Limit.SHRUNK]
    assert not ruling.sweep


def test_marks_that_nobody_approved_may_not_pass_the_budget_together() -> None:
    pending = dict.fromkeys(names(150), Removal.GONE)
    over = case({}, marked=150, pending=pending, loose=dict.fromkeys(pending, TB))
    ruling = rule(over)
    assert (ruling.limit, ruling.kept, ruling.held, ruling.sweep) == (Limit.MARKED, names(150), {}, True)
    assert ruling.stops[0].says == "150 marks that nobody approved: 15 % of 1,000 rules, limit 10 %"
    assert ruling.command.endswith(f"--approve {ruling.checksum} --reason '…'")
    approved = rule(replace(over, approve=ruling.checksum))
    assert (approved.approved, approved.kept, approved.stops) == (True, [], [])
    other = rule(replace(over, approve="0" * 16))
    assert (other.limit, other.kept) == (Limit.APPROVAL, names(150))
    looked_at = replace(over, loose=dict.fromkeys(names(100), TB))
    assert rule(looked_at).kept == []
    assert rule(replace(looked_at, budget=Budget(blocks=99))).stops[0].says.endswith(": limit 99 at one time")
    assert (
        rule(replace(looked_at, budget=Budget(bytes=99 * TB))).stops[0].says.endswith("100 TB, limit 99 TB at one time")
    )
    assert rule(replace(looked_at, doubt="cut")).limit is Limit.DOUBT
    assert rule(replace(looked_at, loose={names(1)[0]: TB}, budget=Budget(share=0))).kept == []
