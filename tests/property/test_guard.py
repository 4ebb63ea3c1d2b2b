"""The guard over histories and readings: no more than the budget passes unapproved, and nothing on what is doubted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as changed

from common.sync import approvals
from common.sync.catalogue import BlockAtNode, Doubt, Reading, RuleAtRse
from common.sync.diff import diff, set_reasons, unsettled
from common.sync.evidence import case_of, without_size
from common.sync.guard import Case, Ruling, rule
from common.sync.limits import Budget, Limit
from common.sync.marks import Removal, permits
from common.sync.reasons import Reason
from common.sync.selection import like, selection

NODE = "T2_IT_Pisa"
WHOLE = BlockAtNode(files=2, bytes=10, here=2, complete=True, is_open=False)
PART = BlockAtNode(files=2, bytes=10, here=1, complete=False, is_open=False)
NAMES = [f"/{p}/Run-v1/{tier}#{k:02}" for p in ("Aa", "Ab", "B") for tier in ("AOD", "RAW") for k in range(8)]
AT = datetime(2018, 1, 1, tzinfo=UTC)  # when somebody looked
LATER = AT + timedelta(minutes=10)

Rules = dict[str, RuleAtRse]
Blocks = dict[str, BlockAtNode]
Reasons = Mapping[str, Reason]

budgets = st.builds(
    Budget,
    share=st.sampled_from([0.0, 0.05, 0.1, 0.3, 1.0]),
    blocks=st.integers(0, 30),
    bytes=st.integers(0, 400),
    hold_nowhere=st.booleans(),
    hold_unknown=st.booleans(),
    hold_custodial=st.booleans(),
    allow_clean=st.booleans(),
)
patterns = st.sampled_from(["*", "*", "/A*/*/*", "/B/Run-v1/AOD", "/C/*/*"])
some = st.sets(st.sampled_from(NAMES))
few = st.sets(st.sampled_from(NAMES), max_size=5)  # so few that most readings are believed
reason = st.one_of(
    st.builds(Reason, st.sampled_from([Removal.NOWHERE, Removal.UNPROVEN, Removal.UNKNOWN, Removal.PARTLY])),
    st.builds(Reason, st.just(Removal.WAITING), st.booleans()),
)
odd = st.dictionaries(st.sampled_from(NAMES), reason, max_size=8)  # the others have moved


def a_rule(
    *,
    marked: bool = False,
    since: datetime | None = None,
    approved: bool = False,
    why: Removal = Removal.GONE,
    held: datetime | None = None,
    held_why: Removal = Removal.GONE,
    locked: bool = False,
) -> RuleAtRse:
    """`since`: when it was marked, where that matters. `held`: since when a person is asked about it."""
    return RuleAtRse(
        id="0" * 32,
        files=2,
        gone_since=int(since.timestamp()) if since else int(marked),
        approved=approved,
        why=why,
        held_since=int(held.timestamp()) if held else 0,
        held_why=held_why,
        locked=locked,
    )


def a_case(
    blocks: Blocks,
    rules: Rules,
    budget: Budget,
    pattern: str = "*",
    *,
    reasons: Reasons | None = None,
    doubts: list[Doubt] | None = None,
    at: datetime = AT,
    approve: str = "",
) -> Case:
    """The case as the handler makes it: what nobody gave a reason has moved elsewhere."""
    given_reasons = reasons or {}
    inside = like(pattern)
    read = {name: block for name, block in blocks.items() if inside(name)}
    reading = Reading(NODE, read, doubts or [], [], at)
    found = diff(reading, rules, selection(pattern, [], []))
    sizes = {name: 10 for name in without_size(reading, rules, found) if not is_unknown(given_reasons, name)}
    moved = Reason(Removal.MOVED)
    set_reasons(found, rules, {name: given_reasons.get(name, moved) for name in unsettled(found)})
    case = case_of(
        (NODE, NODE, pattern, f"phedex-rucio sync site {NODE}"),
        reading,
        rules,
        found,
        at=at,
        policy=lambda _: True,
        keep_partial=False,
        bytes_of=sizes,
        budget=budget,
    )
    return replace(case, approve=approve)


def is_unknown(reasons: Reasons, name: str) -> bool:
    return name in reasons and reasons[name].why is Removal.UNKNOWN


def on_record(case: Case, ruling: Ruling, rules: Rules, names: set[str]) -> Rules:
    """The rules after the batches that put on record what is held; those of some of the names come to it."""
    noted = {}
    for name in set(ruling.record) & names:
        why, known = case.remove[name].why, rules[name]
        if not (known.held_since and permits(known.held_why, why)):
            noted[name] = changed(known, held_since=int(case.at.timestamp()), held_why=why)
    return rules | noted


def code(pattern: str, at: datetime = AT, node: str = NODE) -> str:
    return approvals.code_of(at, approvals.scope_of(node, pattern))


steps = st.lists(st.tuples(few, few, odd, patterns), min_size=1, max_size=8)


@given(steps, budgets, few)
def test_no_history_passes_more_than_the_budget(
    steps: list[tuple[set[str], set[str], dict[str, Reason], str]], budget: Budget, locked: set[str]
) -> None:
    """Within one time of grace nothing is swept: whatever PhEDEx says in turn, for whatever patterns."""
    rules: Rules = {name: a_rule(locked=name in locked) for name in NAMES}
    for lost, part, odd, pattern in steps:
        whole = set(NAMES) - lost - part
        blocks = dict.fromkeys(part - lost, PART) | dict.fromkeys(whole, WHOLE)
        case = a_case(blocks, rules, budget, pattern, reasons=odd)
        ruling = rule(case)
        rules |= {name: a_rule(marked=True, why=case.remove[name].why) for name in ruling.allowed}
        marked = sum(each.marked for each in rules.values())
        unknown = {name for name in NAMES if is_unknown(odd, name)}
        if ruling.allowed:
            assert marked <= budget.share * len(rules)
            assert marked <= budget.blocks
            assert 10 * marked <= budget.bytes + 10 * len(unknown)  # of an unknown block nobody knows the bytes
        reasons = {case.remove[name].why for name in ruling.allowed}
        assert not reasons & {Removal.PARTLY, Removal.UNPROVEN}
        assert not (budget.hold_unknown and Removal.UNKNOWN in reasons)
        assert not (budget.hold_nowhere and Removal.NOWHERE in reasons)
        assert not any(odd[name].stuck for name in ruling.allowed if name in odd and name not in part)
        assert not (whole | locked) & set(ruling.allowed)


@given(
    st.one_of(few, some),
    st.one_of(few, few, some),
    some,
    few,
    few,
    odd,
    odd,
    budgets,
    patterns,
    st.integers(-100, 900),
)
def test_an_approval_lets_nothing_pass_that_was_not_on_record(
    lost: set[str],
    drift: set[str],
    noted: set[str],
    marked: set[str],
    locked: set[str],
    odd: dict[str, Reason],
    then: dict[str, Reason],
    budget: Budget,
    pattern: str,
    after: int,
) -> None:
    """What was held and on record when somebody looked passes; all else is judged as without the approval.

    `after`: so many seconds after the look the marks were made.
    """
    since = AT + timedelta(seconds=after)
    rules: Rules = {name: a_rule(since=since if name in marked else None, locked=name in locked) for name in NAMES}
    blocks = dict.fromkeys(set(NAMES) - lost, WHOLE)
    seen = a_case(blocks, rules, budget, pattern, reasons=odd)
    rules = on_record(seen, rule(seen), rules, noted)
    blocks = dict.fromkeys(set(NAMES) - lost ^ drift, WHOLE)
    case = a_case(blocks, rules, budget, pattern, reasons=odd | then, at=LATER, approve=code(pattern))
    ruling, without = rule(case), rule(replace(case, approve=""))
    were_held = {
        name
        for name, one in case.remove.items()
        if name in noted & seen.remove.keys() and permits(seen.remove[name].why, one.why)
    }
    were_marked = {name for name in case.pending if name in marked and after <= 0}
    covered = (were_held | were_marked) - locked
    assert set(ruling.approved) <= covered
    assert set(ruling.allowed) <= set(without.allowed) | (covered & case.remove.keys())
    assert swept(case, ruling) <= swept(case, without) | (covered & case.pending.keys())
    assert not locked & (set(ruling.allowed) | swept(case, ruling))
    if not case.present and not budget.allow_clean and (case.own or case.site).rules > case.proven:
        assert (ruling.approved, ruling.allowed, ruling.sweep) == ([], [], False)
    else:
        recorded = {name for name in were_held if rules[name].held_since}
        assert set(ruling.approved) >= (recorded | were_marked) - locked
        assert set(ruling.allowed) >= recorded - locked


def swept(case: Case, ruling: Ruling) -> set[str]:
    """The marked blocks that may go when they are due."""
    return set(case.pending) - set(ruling.kept) if ruling.sweep else set()


@given(
    st.one_of(few, some),
    few,
    budgets,
    st.sampled_from(
        [
            code("*", node="T2_US_MIT"),
            code("/A*/*/*"),
            code("*", AT - timedelta(days=2)),
            code("*", AT + timedelta(hours=1)),
            code("*")[:-1] + "x",
            "cafa77efed4c3e95",
        ]
    ),
)
def test_a_code_that_is_not_good_here_approves_nothing(
    lost: set[str], marked: set[str], budget: Budget, approve: str
) -> None:
    old = AT - timedelta(days=3)
    rules: Rules = {n: a_rule(since=old if n in marked else None, held=None if n in marked else old) for n in NAMES}
    case = a_case(dict.fromkeys(set(NAMES) - lost, WHOLE), rules, budget, approve=approve)
    ruling, without = rule(case), rule(replace(case, approve=""))
    assert (ruling.approved, ruling.approval, ruling.allowed) == ([], "", [])
    assert swept(case, ruling) == swept(case, without)
    assert all(limit is Limit.APPROVAL for limit in ruling.held.values())


@given(few, few, budgets, st.lists(st.sampled_from(["/A*/*/*", "/Aa/*/*", "/*/*/RAW", "/B/*/*"]), max_size=3))
def test_doubts_mark_nothing_there_and_loosen_nothing(
    lost: set[str], marked: set[str], budget: Budget, doubted: list[str]
) -> None:
    whole = set(NAMES) - lost
    rules: Rules = {name: a_rule(marked=name in marked) for name in NAMES}
    inside = [like(pattern) for pattern in doubted]
    read = {name: WHOLE for name in whole if not any(each(name) for each in inside)}
    ruling = rule(a_case(read, rules, budget, doubts=[Doubt(pattern, "cut") for pattern in doubted]))
    assert not [name for name in ruling.allowed if any(each(name) for each in inside)]
    assert ruling.share <= budget.share or not ruling.allowed
    sure = rule(a_case(dict.fromkeys(whole, WHOLE), rules, budget))
    assert ruling.marked == sure.marked
    assert ruling.number <= sure.number


@given(some, some, patterns, st.floats(0, 0.5), st.one_of(st.just({}), odd), st.booleans())
def test_an_empty_or_shrunk_list_marks_nothing_and_sweeps_nothing(
    whole: set[str], marked: set[str], pattern: str, share: float, odd: dict[str, Reason], approved: bool
) -> None:
    """A list that is empty not even with an approval, of all that it could cover."""
    rules: Rules = {name: a_rule(marked=name in marked, held=AT, held_why=Removal.UNKNOWN) for name in NAMES}
    budget = Budget(share=share, hold_unknown=False)
    approve = code(pattern) if approved else ""
    case = a_case(dict.fromkeys(whole, WHOLE), rules, budget, pattern, reasons=odd, approve=approve)
    ruling = rule(case)
    proven = {n for part in (case.remove, case.pending) for n in part if n in odd and odd[n].why is Removal.NOWHERE}
    assert case.proven == len(proven)
    covered = {n for n in {**case.remove, **case.pending} if n not in case.locked} if approved else set()
    of_dataset = case.own is not None and len(covered) >= case.own.rules  # an approval of all of it explains its list
    empty = not case.present and (case.own or case.site).rules > len(proven) and not of_dataset
    short = case.present < case.standing * (1 - share) and (case.own is None or case.own.rules >= 10)
    if empty or (short and not approved):
        assert not ruling.allowed
        assert not ruling.sweep
    if short and approved and not empty:
        assert set(ruling.allowed) | swept(case, ruling) <= set(ruling.approved)
    assert rule(replace(case, present=0, approve="")).allowed == []


@given(some, some, odd, budgets, patterns, st.randoms(use_true_random=False))
def test_the_same_readings_have_the_same_ruling_in_any_order(
    whole: set[str], marked: set[str], odd: dict[str, Reason], budget: Budget, pattern: str, rng: object
) -> None:
    rules: Rules = {name: a_rule(marked=name in marked) for name in NAMES}
    names = list(NAMES)
    rng.shuffle(names)  # type: ignore[attr-defined]
    one = a_case(dict.fromkeys(sorted(whole), WHOLE), rules, budget, pattern, reasons=odd)
    other = a_case(
        dict.fromkeys([n for n in names if n in whole], WHOLE),
        {name: rules[name] for name in names},
        budget,
        pattern,
        reasons=odd,
    )
    assert rule(one) == rule(other)


@given(some, some, odd, budgets)
def test_a_rerun_half_way_goes_on_with_the_same_approval(
    whole: set[str], done: set[str], odd: dict[str, Reason], budget: Budget
) -> None:
    """Some of what was approved has been marked, then everything died: the same approval lets the rest go."""
    blocks = dict.fromkeys(whole, WHOLE)
    before = a_case(blocks, {name: a_rule() for name in NAMES}, budget, reasons=odd)
    rules = on_record(before, rule(before), {name: a_rule() for name in NAMES}, set(NAMES))
    held = set(rule(before).held)
    approved = {n: a_rule(since=LATER, approved=True, why=before.remove[n].why) for n in done & held}
    again = a_case(blocks, rules | approved, budget, reasons=odd, at=LATER, approve=code("*"))
    ruling = rule(again)
    assert ruling.checksum == rule(before).checksum
    if whole or budget.allow_clean:
        assert set(ruling.allowed) >= held - done
        assert ruling.approval or not held - done


def test_one_block_of_ten_thousand_answered() -> None:
    names = [f"/A/B-v1/RAW#{n:05}" for n in range(10_000)]
    ruling = rule(a_case({names[0]: WHOLE}, {name: a_rule() for name in names}, Budget()))
    assert ruling.allowed == []
    assert ruling.limit is Limit.SHARE
    assert not ruling.sweep
