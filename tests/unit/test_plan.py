"""What a plan says of marked blocks: which are due, which stay though they are, and which a person approves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from common.sync.catalogue import BlockAtNode, Doubt, Reading, RuleAtRse
from common.sync.diff import Difference, Surplus, Update
from common.sync.guard import Ruling
from common.sync.limits import Limit
from common.sync.marks import Removal
from common.sync.plan import PERMISSION, Limits, Marks, Plan, Removals, Sizes, batches, make_plan, marks_of, sizes

NAMES = [f"/A/B-v1/RAW#{n}" for n in range(5)]
NAME = NAMES[0]
AT = datetime(2026, 11, 28, tzinfo=UTC)
GRACE = 3600
DUE = int(AT.timestamp()) - GRACE  # marked then, it is due now
WHOLE = BlockAtNode(files=2, bytes=10, here=2, complete=True, is_open=False)
PART = BlockAtNode(files=2, bytes=10, here=1, complete=False, is_open=False)


def rule(**fields: Any) -> RuleAtRse:
    usual: dict[str, Any] = {"id": "r", "files": 2}
    return RuleAtRse(**(usual | fields))


def ruling(**fields: Any) -> Ruling:
    usual: dict[str, Any] = {"allowed": [], "held": {}, "stops": [], "share": 0, "number": 0, "marked": 0, "bytes": 0}
    usual |= {"checksum": "", "command": "", "everywhere": "", "approved": [], "approval": "", "sweep": True}
    usual |= {"kept": [], "record": []}
    return Ruling(**(usual | fields))


def marks(
    rules: dict[str, RuleAtRse], *, blocks: dict[str, BlockAtNode] | None = None, whys: Any = None, **fields: Any
) -> Marks:
    """What becomes of marked blocks, which have moved if nothing else is said."""
    found = Difference(pending={name: (whys or {}).get(name, Surplus(Removal.MOVED, 2)) for name in rules})
    usual: dict[str, Any] = {"at": AT, "grace": GRACE, "ruling": ruling()}
    return marks_of(Reading("N", blocks or {}), rules, found, Removals(**(usual | fields)))


def test_a_mark_is_due_when_its_grace_was_over_as_the_reading_began() -> None:
    found = marks({NAMES[0]: rule(gone_since=DUE), NAMES[1]: rule(gone_since=DUE + 1)})
    assert found == Marks(
        due_at={NAMES[0]: AT, NAMES[1]: AT + timedelta(seconds=1)}, sweep=[NAMES[0]], unswept=[], approve=[]
    )
    assert marks({NAME: rule(gone_since=DUE)}, grace=GRACE + 1).sweep == []
    assert marks({NAME: rule(gone_since=int(AT.timestamp()))}, grace=0).sweep == [NAME]


def test_a_keep_that_was_taken_back_begins_the_grace_anew() -> None:
    found = marks({NAME: rule(gone_since=5, cleared=DUE + 60)})
    assert (found.due_at, found.sweep) == ({NAME: AT + timedelta(seconds=60)}, [])
    assert marks({NAME: rule(gone_since=DUE, cleared=5)}).sweep == [NAME]


def test_a_mark_whose_time_nobody_can_read_is_never_due() -> None:
    found = marks({NAME: rule(gone_since=10**15), NAMES[1]: rule(gone_since=253_402_300_799)})
    assert found == Marks(due_at={NAME: None, NAMES[1]: None}, sweep=[], unswept=[], approve=[])


@pytest.mark.parametrize(
    ("why", "approved", "due"),
    [
        (Removal.NOWHERE, False, False),
        (Removal.NOWHERE, True, True),
        (Removal.MOVED, False, True),
        (Removal.UNKNOWN, False, False),
        (Removal.UNKNOWN, True, True),
    ],
)
def test_nowhere_is_read_twice_further_apart_unless_a_person_approved(why: Removal, approved: bool, due: bool) -> None:
    rules = {NAME: rule(gone_since=DUE, approved=approved)}
    whys = {NAME: Surplus(why, 2)}
    found = marks(rules, whys=whys, apart=2 * GRACE)
    assert found.sweep == ([NAME] if due else [])
    assert found.due_at == {NAME: AT if due else AT + timedelta(seconds=GRACE)}
    assert marks(rules, whys=whys, apart=GRACE).sweep == [NAME]
    assert marks(rules, whys=whys, apart=0).sweep == [NAME]


@pytest.mark.parametrize(
    ("surplus", "swept"),
    [
        (Surplus(Removal.PARTLY, 2), False),
        (Surplus(Removal.WAITING, 2, 0, True), False),
        (Surplus(Removal.WAITING, 2), True),
    ],
)
def test_what_may_be_the_last_copy_is_neither_swept_nor_said_to_be_held(surplus: Surplus, swept: bool) -> None:
    found = marks({NAME: rule(gone_since=DUE)}, whys={NAME: surplus})
    assert (found.sweep, found.unswept) == ([NAME] if swept else [], [])
    assert found.due_at == {NAME: AT}


def test_an_incomplete_block_is_not_swept_where_the_policy_keeps_it() -> None:
    rules, blocks = {NAME: rule(gone_since=DUE), NAMES[1]: rule(gone_since=DUE)}, {NAME: PART}
    assert marks(rules, blocks=blocks).sweep == NAMES[:2]
    kept = marks(rules, blocks=blocks, keep_partial=True)
    assert (kept.sweep, kept.unswept) == (NAMES[1:2], [])


def test_what_the_guard_keeps_is_due_and_unswept() -> None:
    rules = {name: rule(gone_since=DUE) for name in NAMES[:2]} | {NAMES[2]: rule(gone_since=DUE + 1)}
    found = marks(rules, ruling=ruling(kept=[NAMES[1], NAMES[2]]))
    assert (found.sweep, found.unswept) == ([NAME], [NAMES[1]])
    doubted = marks(rules, ruling=ruling(sweep=False))
    assert (doubted.sweep, doubted.unswept) == ([], NAMES[:2])


def test_a_plan_without_the_guards_word_sweeps_nothing() -> None:
    rules = {NAME: rule(gone_since=DUE)}
    alone = marks(rules, ruling=None)
    assert (alone.sweep, alone.unswept, alone.approve) == ([], [NAME], [])
    forbidden = marks(rules, ruling=None, none="adds only")
    assert (forbidden.sweep, forbidden.unswept) == ([], [])


def test_marks_are_approved_that_do_not_say_so_yet() -> None:
    rules = {
        NAMES[0]: rule(gone_since=DUE),
        NAMES[1]: rule(gone_since=DUE, approved=True),
        NAMES[2]: rule(gone_since=DUE, ending=True),
        NAMES[3]: rule(gone_since=DUE + 1),
    }
    found = marks(rules, ruling=ruling(approved=[NAMES[0], NAMES[1], NAMES[2], NAMES[4]]))  # the last is not marked
    assert found.approve == [NAMES[0]]
    assert found.sweep == NAMES[:3]


# --- the plan ------------------------------------------------------------------------------------------------------


def plan(found: Difference, reading: Reading | None = None, rules: Any = None, **fields: Any) -> Plan:
    options: dict[str, Any] = {"limits": Limits(), "removals": Removals(at=AT, ruling=ruling())} | fields
    return make_plan(("N", "R", "a", "*"), reading or Reading("N"), rules or {}, found, **options)


def test_a_plan_says_what_was_found() -> None:
    found = Difference(
        missing=[NAMES[1]],
        update={NAMES[2]: Update.META},
        remove={NAMES[3]: Surplus(Removal.INCOMPLETE, 2, 1)},
        pending={NAMES[4]: Surplus(Removal.MOVED, 2)},
        kept={NAME: Surplus(Removal.WAITING, 2, 0, True)},
        unmark=["/U/U/RAW#1"],
        empty=["/E/E/RAW#1"],
        same=7,
    )
    blocks = {NAMES[1]: WHOLE, NAMES[2]: WHOLE, NAMES[3]: PART}
    reading = Reading("N", blocks, [Doubt("/D/*/*", "cut")], ["odd"], AT)
    rules = {name: rule(gone_since=DUE) for name in NAMES[2:]}
    said = ruling(allowed=[NAMES[3]], kept=[])
    made = plan(found, reading, rules, removals=Removals(at=AT, grace=GRACE, ruling=said))
    assert (made.node, made.rse, made.account, made.dataset) == ("N", "R", "a", "*")
    assert (made.missing, made.update) == ([NAMES[1]], {NAMES[2]: "meta"})
    assert made.remove == {NAMES[3]: "incomplete (1 of 2 files left)"}
    assert made.kept == {NAME: "waiting (no node that has it can have it in Rucio)"}
    assert (made.unmark, made.empty, made.same) == (["/U/U/RAW#1"], ["/E/E/RAW#1"], 7)
    assert (made.existing, made.present, made.adds) == (3, 2, Sizes(1, 2, 10))
    assert (made.work, made.after, made.left) == (NAMES[1:3], "", 0)
    assert (made.as_of, made.ignored, made.doubts) == (AT, ["odd"], ["/D/*/*: cut"])
    assert (made.pending, made.sweep, made.mark) == ({NAMES[4]: AT}, [NAMES[4]], [NAMES[3]])
    assert (made.removals, made.files, made.files_held, made.ruling) == ("", "", False, said)


def test_a_plan_that_may_remove_nothing_says_why_and_takes_back_no_mark() -> None:
    found = Difference(unmark=[NAME], remove={NAMES[1]: Surplus(Removal.GONE, 2)})
    made = plan(found, removals=Removals(at=AT, none="adds only"))
    assert (made.removals, made.files, made.unmark, made.mark, made.ruling) == ("adds only", "adds only", [], [], None)
    files = plan(found, removals=Removals(at=AT, ruling=ruling(), files="too many", files_held=True))
    assert (files.removals, files.files, files.files_held, files.unmark) == ("", "too many", True, [NAME])


@pytest.mark.parametrize(
    ("found", "reading", "in_sync"),
    [
        (Difference(same=5, empty=[NAME]), Reading("N"), True),
        (Difference(pending={NAME: Surplus(Removal.MOVED, 2)}), Reading("N"), True),
        (Difference(missing=[NAME]), Reading("N", {NAME: WHOLE}), False),
        (Difference(update={NAME: Update.FILES}), Reading("N"), False),
        (Difference(remove={NAME: Surplus(Removal.MOVED, 2)}), Reading("N"), False),
        (Difference(kept={NAME: Surplus(Removal.PARTLY, 2)}), Reading("N"), False),
        (Difference(), Reading("N", doubts=[Doubt("*", "cut")]), False),
    ],
)
def test_what_is_in_sync(found: Difference, reading: Reading, in_sync: bool) -> None:
    assert plan(found, reading, {NAME: rule(gone_since=DUE)}).in_sync is in_sync


def test_a_deep_look_has_its_names_in_the_work_once() -> None:
    reading = Reading("N", dict.fromkeys(NAMES, WHOLE))
    made = plan(Difference(missing=NAMES[:2]), reading, deep=NAMES[1:3], after=NAMES[0], limits=Limits(page=1))
    assert (made.work, made.after, made.left) == (NAMES[1:2], NAMES[1], 1)
    assert plan(Difference(missing=NAMES[:2]), reading, limit=1, limits=Limits(page=2)).after == ""
    both = plan(Difference(missing=NAMES), reading, limit=4, limits=Limits(page=2))
    assert (both.work, both.left) == (NAMES[:2], 3)


def test_a_permission_ends_before_a_mark_of_the_same_plan_is_due() -> None:
    assert timedelta(minutes=50) == PERMISSION


def test_sizes() -> None:
    assert sizes(NAMES[:2], {NAMES[0]: WHOLE, NAMES[1]: PART}) == Sizes(2, 4, 20)
    assert sizes([], {}) == Sizes()


@pytest.mark.parametrize(
    ("limits", "cut"),
    [
        (Limits(), [5]),
        (Limits(blocks=2), [2, 2, 1]),
        (Limits(blocks=5), [5]),
        (Limits(files=4), [2, 2, 1]),
        (Limits(files=3), [1, 1, 1, 1, 1]),
        (Limits(files=1), [1, 1, 1, 1, 1]),
        (Limits(files=10), [5]),
        (Limits(name_bytes=2 * len(NAME) + 6), [2, 2, 1]),
        (Limits(name_bytes=2 * len(NAME) + 5), [1, 1, 1, 1, 1]),
        (Limits(name_bytes=1), [1, 1, 1, 1, 1]),
    ],
)
def test_batches_are_cut_at_each_limit(limits: Limits, cut: list[int]) -> None:
    made = list(batches(NAMES, dict.fromkeys(NAMES, WHOLE), limits))
    assert [len(part) for part in made] == cut
    assert [name for part in made for name in part] == NAMES


def test_no_names_are_no_batch_and_the_limits_are_these() -> None:
    assert list(batches([], {}, Limits())) == []
    assert Limits() == Limits(page=10_000, blocks=100, files=5_000, name_bytes=49_152)


def test_the_guards_word_is_the_plans() -> None:
    said = ruling(allowed=[NAME], held={NAMES[1]: Limit.CUSTODIAL})
    assert plan(Difference(), removals=Removals(at=AT, ruling=said)).mark == [NAME]
    assert plan(Difference(), removals=Removals(at=AT)).mark == []


def test_what_may_be_removed_is_nothing_until_something_is_said() -> None:
    assert Removals(at=AT) == Removals(
        at=AT, none="", ruling=None, grace=0, apart=0, keep_partial=False, files="", files_held=False
    )
