"""What differs at a node, case by case: of a block that is there, of one that is not, and of each state of its rule."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from common.sync.catalogue import BlockAtNode, Doubt, Reading, RuleAtRse
from common.sync.diff import Difference, Surplus, Update, diff, in_doubt, keep_incomplete, set_reasons, unsettled
from common.sync.marks import Removal
from common.sync.reasons import Reason

NAME = "/A/B-v1/RAW#1"
MARKED = 1_700_000_000


def block(**fields: Any) -> BlockAtNode:
    usual: dict[str, Any] = {"files": 2, "bytes": 10, "here": 2, "complete": True, "is_open": False}
    return BlockAtNode(**(usual | fields))


def rule(**fields: Any) -> RuleAtRse:
    usual: dict[str, Any] = {"id": "r", "files": 2}
    return RuleAtRse(**(usual | fields))


def difference(there: BlockAtNode | None, ours: RuleAtRse | None, **fields: Any) -> Difference:
    reading = Reading("T2_IT_Pisa", {NAME: there} if there else {}, fields.pop("doubts", []), [], datetime.now(UTC))
    return diff(reading, {NAME: ours} if ours else {}, fields.pop("chosen", lambda _: True))


PART = block(here=1, complete=False)
OPEN = block(here=2, complete=False, is_open=True)
GONE = Surplus(Removal.GONE, 2)
INCOMPLETE = Surplus(Removal.INCOMPLETE, 2, 1)


@pytest.mark.parametrize(
    ("there", "ours", "found"),
    [
        (block(), None, Difference(missing=[NAME])),
        (block(files=0, here=0), None, Difference(empty=[NAME])),
        (block(files=0, here=0), rule(files=0), Difference(empty=[NAME])),
        (block(), rule(), Difference(same=1)),
        (block(), rule(files=1), Difference(update={NAME: Update.FILES})),
        (block(), rule(files=3), Difference(update={NAME: Update.FILES})),
        (block(), rule(left=True), Difference(update={NAME: Update.FILES})),
        (block(), rule(ordering=True), Difference(update={NAME: Update.FILES})),
        (block(group="DataOps"), rule(), Difference(update={NAME: Update.META})),
        (block(custodial=True), rule(), Difference(update={NAME: Update.META})),
        (block(custodial=True, group="a"), rule(custodial=True, group="a"), Difference(same=1)),
        (block(), rule(ending=True, files=1), Difference(update={NAME: Update.ENDING})),
        (block(), rule(gone_since=MARKED, ending=True), Difference(update={NAME: Update.RETURNED})),
        (block(), rule(keep=True), Difference(update={NAME: Update.RETURNED})),
        (block(), rule(held_since=MARKED), Difference(update={NAME: Update.RETURNED})),
        (PART, None, Difference()),
        (OPEN, None, Difference()),
    ],
)
def test_a_block_that_is_at_the_node(there: BlockAtNode, ours: RuleAtRse | None, found: Difference) -> None:
    assert difference(there, ours) == found


@pytest.mark.parametrize(
    ("there", "ours", "found"),
    [
        (None, rule(), Difference(remove={NAME: GONE})),
        (None, rule(files=7), Difference(remove={NAME: Surplus(Removal.GONE, 7)})),
        (None, rule(held_since=MARKED), Difference(remove={NAME: GONE})),
        (None, rule(gone_since=MARKED), Difference(pending={NAME: GONE})),
        (None, rule(gone_since=MARKED, ending=True), Difference(pending={NAME: GONE})),
        (None, rule(ending=True), Difference(same=1)),
        (None, rule(keep=True), Difference(same=1)),
        (None, rule(keep=True, gone_since=MARKED), Difference(same=1, unmark=[NAME])),
        (None, rule(keep=True, gone_since=MARKED, ending=True), Difference(pending={NAME: GONE})),
        (None, rule(keep=True, ending=True), Difference(same=1)),
        (PART, rule(), Difference(remove={NAME: INCOMPLETE})),
        (PART, rule(gone_since=MARKED), Difference(pending={NAME: INCOMPLETE})),
        (PART, rule(keep=True), Difference(same=1)),
        (block(here=2, complete=False), rule(), Difference(remove={NAME: Surplus(Removal.INCOMPLETE, 2, 2)})),
        # An open block with all of its files here has lost nothing; one with more than it should have neither.
        (OPEN, rule(), Difference(same=1)),
        (OPEN, rule(gone_since=MARKED), Difference(same=1, unmark=[NAME])),
        (OPEN, rule(held_since=MARKED), Difference(same=1, unmark=[NAME])),
        (block(here=3, complete=False, is_open=True), rule(), Difference(same=1)),
        (block(here=1, complete=False, is_open=True), rule(), Difference(remove={NAME: INCOMPLETE})),
    ],
)
def test_a_rule_whose_block_is_not_whole_at_the_node(
    there: BlockAtNode | None, ours: RuleAtRse, found: Difference
) -> None:
    assert difference(there, ours) == found


def test_a_name_that_was_not_chosen_or_is_in_doubt_proves_nothing() -> None:
    nobody = {"chosen": lambda _: False}
    assert difference(None, rule(), **nobody) == difference(block(), None, **nobody) == Difference()
    doubt = [Doubt("/A/B-v1/*", "cut")]
    assert difference(None, rule(), doubts=doubt) == Difference()
    assert difference(None, rule(), doubts=[Doubt("/A/C/*", "cut")]).remove
    assert in_doubt(doubt)(NAME)
    assert not in_doubt([])(NAME)


def test_everything_is_in_order_of_name() -> None:
    names = [f"/A/B-v1/RAW#{n}" for n in (3, 1, 2)]
    reading = Reading("T2_IT_Pisa", dict.fromkeys(names, block()), [], [], datetime.now(UTC))
    assert diff(reading, {}, lambda _: True).missing == sorted(names)
    assert list(diff(reading, dict.fromkeys(names, rule(left=True)), lambda _: True).update) == sorted(names)
    nothing = Reading("T2_IT_Pisa", {}, [], [], datetime.now(UTC))
    assert list(diff(nothing, dict.fromkeys(names, rule()), lambda _: True).remove) == sorted(names)
    assert list(diff(nothing, dict.fromkeys(names, rule(gone_since=1)), lambda _: True).pending) == sorted(names)
    kept = dict.fromkeys(names, rule(gone_since=1, keep=True))
    assert diff(nothing, kept, lambda _: True).unmark == sorted(names)
    empty = Reading("T2_IT_Pisa", dict.fromkeys(names, block(files=0)), [], [], datetime.now(UTC))
    assert diff(empty, {}, lambda _: True).empty == sorted(names)


# --- reasons -------------------------------------------------------------------------------------------------------


def with_reason(ours: RuleAtRse, reason: Reason, there: BlockAtNode | None = None) -> Difference:
    found = difference(there, ours)
    set_reasons(found, {NAME: ours}, dict.fromkeys(unsettled(found), reason))
    return found


def test_a_block_has_the_reason_that_was_found() -> None:
    assert with_reason(rule(files=7), Reason(Removal.NOWHERE)) == Difference(remove={NAME: Surplus(Removal.NOWHERE, 7)})
    found = difference(None, rule())
    set_reasons(found, {NAME: rule()}, {"/A/B-v1/RAW#2": Reason(Removal.PARTLY)})
    assert found == Difference(remove={NAME: GONE})


@pytest.mark.parametrize(
    ("reason", "stays"),
    [
        (Reason(Removal.PARTLY), True),
        (Reason(Removal.WAITING, stuck=True), True),
        (Reason(Removal.WAITING), False),
        (Reason(Removal.MOVED), False),
        (Reason(Removal.UNKNOWN), False),
    ],
)
def test_what_may_be_the_last_copy_is_kept_with_a_mark_and_without(reason: Reason, stays: bool) -> None:
    surplus = Surplus(reason.why, 2, 0, reason.stuck)
    assert surplus.stays is stays
    fresh = with_reason(rule(), reason)
    assert fresh == (Difference(kept={NAME: surplus}) if stays else Difference(remove={NAME: surplus}))
    marked = with_reason(rule(gone_since=MARKED, why=Removal.UNKNOWN), reason)
    milder = [] if reason.why is Removal.UNKNOWN else [NAME]  # the mark is to be of the milder reason
    assert marked == Difference(pending={NAME: surplus}, kept={NAME: surplus} if stays else {}, unmark=milder)
    held = with_reason(rule(held_since=MARKED), reason)
    assert held.unmark == ([NAME] if stays else [])


@pytest.mark.parametrize(
    ("of_mark", "now", "anew"),
    [
        (Removal.MOVED, Removal.MOVED, False),
        (Removal.MOVED, Removal.WAITING, False),
        (Removal.WAITING, Removal.MOVED, False),
        (Removal.GONE, Removal.MOVED, False),
        (Removal.MOVED, Removal.NOWHERE, True),
        (Removal.NOWHERE, Removal.UNPROVEN, True),
        (Removal.UNPROVEN, Removal.UNKNOWN, True),
        (Removal.UNKNOWN, Removal.NOWHERE, False),
    ],
)
def test_a_mark_permits_its_reason_and_milder_ones(of_mark: Removal, now: Removal, anew: bool) -> None:
    found = with_reason(rule(gone_since=MARKED, why=of_mark), Reason(now))
    milder = [NAME] if (of_mark, now) == (Removal.UNKNOWN, Removal.NOWHERE) else []
    pending = Difference(pending={NAME: Surplus(now, 2)}, unmark=milder)
    assert found == (Difference(remove={NAME: Surplus(now, 2)}) if anew else pending)


def test_a_block_that_is_incomplete_needs_no_look_elsewhere_but_a_mark_that_says_so() -> None:
    assert unsettled(difference(PART, rule())) == []
    assert unsettled(difference(PART, rule(gone_since=MARKED))) == []
    assert unsettled(difference(None, rule())) == unsettled(difference(None, rule(gone_since=MARKED))) == [NAME]
    reason = Reason(Removal.MOVED)
    assert with_reason(rule(gone_since=MARKED, why=Removal.MOVED), reason, PART) == Difference(
        remove={NAME: INCOMPLETE}
    )
    assert with_reason(rule(gone_since=MARKED, why=Removal.INCOMPLETE), reason, PART) == Difference(
        pending={NAME: INCOMPLETE}
    )


@pytest.mark.parametrize(
    ("surplus", "says"),
    [
        (INCOMPLETE, "incomplete (1 of 2 files left)"),
        (Surplus(Removal.MOVED, 2), "moved"),
        (Surplus(Removal.WAITING, 2), "waiting"),
        (Surplus(Removal.WAITING, 2, 0, True), "waiting (no node that has it can have it in Rucio)"),
    ],
)
def test_a_reason_in_words(surplus: Surplus, says: str) -> None:
    assert str(surplus) == says


def test_why_a_rule_needs_work_in_one_word() -> None:
    assert [str(why) for why in Update] == ["files", "meta", "ending", "returned"]


# --- incomplete: keep ----------------------------------------------------------------------------------------------


def test_only_incomplete_blocks_are_kept_where_the_policy_keeps_them() -> None:
    found = difference(PART, rule())
    keep_incomplete(found, {NAME: rule()})
    assert found == Difference(same=1)
    for gone in (difference(None, rule()), with_reason(rule(), Reason(Removal.NOWHERE))):
        before = dict(gone.remove)
        keep_incomplete(gone, {NAME: rule()})
        assert gone == Difference(remove=before)
    marked = difference(PART, rule(gone_since=MARKED))
    keep_incomplete(marked, {NAME: rule(gone_since=MARKED)})
    assert marked == Difference(pending={NAME: INCOMPLETE})


def test_a_hold_is_over_when_files_are_back_where_the_policy_keeps_such_a_block() -> None:
    held = rule(held_since=MARKED)
    found = difference(PART, held)
    keep_incomplete(found, {NAME: held})
    assert found == Difference(same=1, unmark=[NAME])


def test_a_marked_block_of_which_files_came_back_is_not_marked_anew_where_the_policy_keeps_it() -> None:
    """In the order in which a plan does it: the policy first, then the reasons."""
    ours = rule(gone_since=MARKED, why=Removal.MOVED)
    found = difference(PART, ours)
    keep_incomplete(found, {NAME: ours})
    set_reasons(found, {NAME: ours}, {}, keep_partial=True)
    assert found.remove == {}


def test_a_marked_block_that_is_gone_for_a_worse_reason_is_marked_anew_whatever_the_policy_keeps() -> None:
    ours = rule(gone_since=MARKED, why=Removal.MOVED)
    found = difference(None, ours)
    set_reasons(found, {NAME: ours}, {NAME: Reason(Removal.NOWHERE)}, keep_partial=True)
    assert (found.remove, found.pending) == ({NAME: Surplus(Removal.NOWHERE, 2)}, {})


def test_what_is_sorted_anew_is_in_order_of_name() -> None:
    names = [f"/A/B-v1/RAW#{n}" for n in range(4)]
    marked = rule(gone_since=MARKED, why=Removal.MOVED)
    rules = {names[3]: rule(), names[2]: marked, names[1]: rule(), names[0]: marked}
    for why in (Removal.UNKNOWN, Removal.PARTLY):  # marked again, and kept
        found = diff(Reading("T2_IT_Pisa", {}, [], [], datetime.now(UTC)), rules, lambda _: True)
        set_reasons(found, rules, dict.fromkeys(names, Reason(why)))
        assert names == list(found.remove if why is Removal.UNKNOWN else found.kept)
