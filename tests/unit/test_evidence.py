"""What the guard looks at, counted from both readings: who should stand, what is spent, and how large it is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace as replaced

from common.sync.catalogue import BlockAtNode, Doubt, Reading, RuleAtRse
from common.sync.diff import Difference, Surplus
from common.sync.evidence import FEW_FILES, case_of, loose, over_files, tally, without_size
from common.sync.guard import Case, Leaving, Tally
from common.sync.limits import Budget
from common.sync.marks import Hold, Removal

NAMES = [f"/A/B-v1/RAW#{n}" for n in range(10)]
NAME = NAMES[0]
OTHER = "/C/D-v1/RAW#1"
AT = datetime(2026, 11, 28, tzinfo=UTC)
WHOLE = BlockAtNode(files=2, bytes=10, here=2, complete=True, is_open=False)
PART = BlockAtNode(files=2, bytes=10, here=1, complete=False, is_open=False)


def rule(**fields: Any) -> RuleAtRse:
    usual: dict[str, Any] = {"id": "r", "files": 2}
    return RuleAtRse(**(usual | fields))


def case(
    rules: dict[str, RuleAtRse],
    blocks: dict[str, BlockAtNode] | None = None,
    found: Difference | None = None,
    *,
    dataset: str = "*",
    doubts: list[Doubt] | None = None,
    **fields: Any,
) -> Case:
    usual: dict[str, Any] = {
        "policy": lambda _: True,
        "keep_partial": False,
        "bytes_of": {},
        "budget": Budget(),
        "at": AT,
    }
    reading = Reading("N", blocks or {}, doubts or [])
    return case_of(("N", "R", dataset, "typed"), reading, rules, found or Difference(), **(usual | fields))


# --- shrunk --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "block", "keep_partial", "stands"),
    [
        (rule(), None, False, True),
        (rule(), None, True, True),
        (rule(), WHOLE, False, True),
        (rule(gone_since=5), None, False, False),
        (rule(keep=True), None, False, False),
        (rule(ending=True), None, False, False),
        (rule(held_since=5), None, False, True),
        (rule(locked=True), None, False, True),
        (rule(), PART, False, True),
        (rule(), PART, True, False),
        # It is among the complete blocks, so it counts on both sides.
        (rule(gone_since=5), WHOLE, False, True),
        (rule(keep=True), WHOLE, True, True),
        (rule(ending=True), WHOLE, True, True),
    ],
)
def test_a_rule_should_stand_unless_its_absence_was_decided(
    ours: RuleAtRse, block: BlockAtNode | None, keep_partial: bool, stands: bool
) -> None:
    found = case({NAME: ours}, {NAME: block} if block else {}, keep_partial=keep_partial)
    assert found.standing == stands
    assert found.present == (block is WHOLE)


def test_shrunk_compares_within_the_sites_own_selection() -> None:
    rules = dict.fromkeys([*NAMES[:3], OTHER], rule())
    blocks = {NAMES[0]: WHOLE, NAMES[1]: PART, OTHER: WHOLE}
    all_of_it = case(rules, blocks)
    assert (all_of_it.standing, all_of_it.present) == (4, 2)
    chosen = case(rules, blocks, policy=lambda name: name != OTHER)
    assert (chosen.standing, chosen.present) == (3, 1)
    assert chosen.site == Tally(4)


def test_only_complete_blocks_are_present() -> None:
    assert case({}, {NAME: PART, NAMES[1]: WHOLE}).present == 1


def test_a_doubted_part_and_another_dataset_do_not_count() -> None:
    rules = dict.fromkeys([*NAMES[:3], OTHER], rule())
    assert case(rules, doubts=[Doubt("/A/*/*", "cut")]).standing == 1
    assert case(rules, dataset="/C/D-v1/RAW").standing == 1
    assert case(rules, dataset="/A/B-v1/RAW").standing == 3


def test_blocks_that_are_proven_to_be_gone_everywhere_do_not_count() -> None:
    rules = dict.fromkeys(NAMES[:4], rule())
    found = Difference(
        remove={NAMES[0]: Surplus(Removal.NOWHERE, 2), NAMES[1]: Surplus(Removal.UNPROVEN, 2)},
        pending={NAMES[2]: Surplus(Removal.NOWHERE, 2), NAMES[3]: Surplus(Removal.UNKNOWN, 2)},
    )
    made = case(rules, found=found)
    assert (made.proven, made.standing) == (2, 2)


# --- the site ------------------------------------------------------------------------------------------------------


def test_the_site_is_all_our_rules_and_the_dataset_its_own() -> None:
    rules = {NAMES[0]: rule(), NAMES[1]: rule(gone_since=5), OTHER: rule(gone_since=5)}
    assert tally(rules.values()) == Tally(3, 2)
    for everything in ("*", "/*/*/*"):
        made = case(rules, dataset=everything)
        assert (made.site, made.own) == (Tally(3, 2), None)
    own = case(rules, dataset="/A/B-v1/RAW")
    assert (own.site, own.own) == (Tally(3, 2), Tally(2, 1))
    assert (own.node, own.rse, own.dataset, own.command, own.at) == ("N", "R", "/A/B-v1/RAW", "typed", AT)


def test_marks_that_nobody_approved_and_that_stand() -> None:
    rules = {
        NAMES[0]: rule(gone_since=5),
        NAMES[1]: rule(gone_since=5, approved=True),
        NAMES[2]: rule(gone_since=5, ending=True),
        NAMES[3]: rule(),
        OTHER: rule(gone_since=5),
    }
    assert loose(rules) == [NAME, OTHER]
    made = case(rules, bytes_of={NAME: 7, OTHER: 8}, dataset="/A/B-v1/RAW")
    assert made.loose == {NAME: 7, OTHER: 8}


def test_the_bytes_are_those_of_the_block_and_of_the_catalogue_where_it_is_gone() -> None:
    rules = {name: rule(gone_since=5) for name in NAMES[:3]} | {NAMES[3]: rule()}
    blocks = {NAMES[0]: PART}
    made = case(rules, blocks, bytes_of={NAMES[0]: 99, NAMES[1]: 7, NAMES[3]: 1_000})
    assert made.spent_bytes == 10 + 7 + 0


def test_sizes_are_asked_of_what_is_not_at_the_node() -> None:
    rules = {
        NAMES[0]: rule(),
        NAMES[1]: rule(gone_since=5),
        NAMES[2]: rule(gone_since=5),
        NAMES[3]: rule(),
        NAMES[4]: rule(gone_since=5),
    }
    found = Difference(remove={NAMES[0]: Surplus(Removal.GONE, 2), NAMES[4]: Surplus(Removal.GONE, 2)})
    reading = Reading("N", {NAMES[2]: PART})
    assert without_size(reading, rules, found) == [NAMES[0], NAMES[4], NAMES[1]]


# --- one block -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "block", "leaving"),
    [
        (rule(), None, Leaving(Removal.MOVED, 7)),
        (rule(custodial=True), None, Leaving(Removal.MOVED, 7, custodial=True)),
        (rule(), PART, Leaving(Removal.MOVED, 10)),
        (rule(custodial=True), PART, Leaving(Removal.MOVED, 10, custodial=True)),
        (rule(locked=True), None, Leaving(Removal.MOVED, 7, locked=True)),
        (rule(gone_since=5), None, Leaving(Removal.MOVED, 7, marked=True)),
        (
            rule(held_since=5, held_why=Removal.UNKNOWN),
            None,
            Leaving(Removal.MOVED, 7, hold=Hold(5, Removal.UNKNOWN)),
        ),
        (
            rule(),
            BlockAtNode(files=2, bytes=10, here=1, complete=False, is_open=False, custodial=True),
            Leaving(Removal.MOVED, 10, custodial=True),
        ),
    ],
)
def test_what_is_known_of_a_block_that_would_be_marked(
    ours: RuleAtRse, block: BlockAtNode | None, leaving: Leaving
) -> None:
    found = Difference(remove={NAME: Surplus(Removal.MOVED, 2)})
    made = case({NAME: ours}, {NAME: block} if block else {}, found, bytes_of={NAME: 7})
    assert made.remove == {NAME: leaving}


def test_what_is_known_of_marked_blocks() -> None:
    found = Difference(pending={NAMES[0]: Surplus(Removal.MOVED, 2), NAMES[1]: Surplus(Removal.UNKNOWN, 2)})
    rules = {NAMES[0]: rule(gone_since=5, locked=True), NAMES[1]: rule(gone_since=6), OTHER: rule(locked=True)}
    made = case(rules, found=found)
    assert made.pending == {NAMES[0]: Removal.MOVED, NAMES[1]: Removal.UNKNOWN}
    assert made.marked_at == {NAMES[0]: 5, NAMES[1]: 6}
    assert made.locked == {NAMES[0]}


@pytest.mark.parametrize(
    ("ours", "block", "custodial"),
    [
        (rule(gone_since=5), None, False),
        (rule(gone_since=5), PART, False),
        (rule(gone_since=5, custodial=True), None, True),
        (rule(gone_since=5, custodial=True), PART, True),
        (rule(gone_since=5), replaced(PART, custodial=True), True),
    ],
)
def test_a_marked_block_is_custodial_as_it_is_read_now(
    ours: RuleAtRse, block: BlockAtNode | None, custodial: bool
) -> None:
    found = Difference(pending={NAME: Surplus(Removal.INCOMPLETE, 2)})
    made = case({NAME: ours, OTHER: rule(custodial=True)}, {NAME: block} if block else {}, found)
    assert made.custodial == ({NAME} if custodial else set())


# --- files that leave their blocks ---------------------------------------------------------------------------------


def too_many(gone: int, *, rules: int = 10, share: float = 0.1) -> str:
    """Of so many rules of 100 files, one has lost some."""
    ours = {f"/A/B-v1/RAW#{n}": rule(files=100) for n in range(rules)}
    blocks = {NAME: BlockAtNode(files=100 - gone, bytes=1, here=100 - gone, complete=True, is_open=False)}
    blocks[OTHER] = WHOLE  # an update without a rule
    found = Difference(update={NAME: Any, OTHER: Any})  # type: ignore[dict-item]
    return over_files(Reading("N", blocks), ours, found, Budget(share=share))


def test_no_more_files_leave_than_the_share_of_the_sites() -> None:
    assert too_many(100) == ""
    assert too_many(99, rules=9).startswith("99 files of 900 files (11 %) are listed no more, limit 10 %")
    assert too_many(51, rules=5) == "51 files of 500 files (10.2 %) are listed no more, limit 10 %"
    assert too_many(50, rules=5) == ""
    assert too_many(100, share=1) == ""


def test_few_files_are_no_mass_unless_none_may_leave() -> None:
    assert FEW_FILES == 10
    assert too_many(10, share=0.001) == ""
    assert too_many(11, share=0.001)
    assert too_many(1, share=0) == "1 file of 1,000 files (0.1 %) are listed no more, limit 0 %"
    assert too_many(0, share=0) == ""
    assert too_many(-200, share=0) == ""  # a block that grew gives nothing back
    both = {NAMES[0]: rule(files=20), NAMES[1]: rule(files=0)}
    blocks = {name: BlockAtNode(files=9, bytes=1, here=9, complete=True, is_open=False) for name in both}
    found = Difference(update=dict.fromkeys(both, Any))  # type: ignore[arg-type]
    assert over_files(Reading("N", blocks), both, found, Budget(share=0.001))
