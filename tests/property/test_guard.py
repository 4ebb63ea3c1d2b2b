"""The guard over histories and readings: no more than the budget passes unapproved, and nothing on what is doubted."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from common.sync.catalogue import BlockAtNode, Doubt, Reading, RuleAtRse
from common.sync.diff import diff, set_unknown
from common.sync.evidence import case_of, without_size
from common.sync.guard import Budget, Case, Limit, checksum_of, rule
from common.sync.selection import like, selection

WHOLE = BlockAtNode(files=2, bytes=10, here=2, complete=True, is_open=False)
PART = BlockAtNode(files=2, bytes=10, here=1, complete=False, is_open=False)
NAMES = [f"/{p}/Run-v1/{tier}#{k:02}" for p in ("Aa", "Ab", "B") for tier in ("AOD", "RAW") for k in range(8)]

Rules = dict[str, RuleAtRse]
Blocks = dict[str, BlockAtNode]

budgets = st.builds(
    Budget,
    share=st.sampled_from([0.0, 0.05, 0.1, 0.3, 1.0]),
    blocks=st.integers(0, 30),
    bytes=st.integers(0, 400),
    hold_unknown=st.booleans(),
    hold_custodial=st.booleans(),
    allow_clean=st.booleans(),
)
patterns = st.sampled_from(["*", "*", "/A*/*/*", "/B/Run-v1/AOD", "/C/*/*"])
some = st.sets(st.sampled_from(NAMES))
few = st.sets(st.sampled_from(NAMES), max_size=5)  # so few that most readings are believed


def a_rule(
    *, marked: bool = False, custodial: bool = False, since: datetime | None = None, approved: bool = False
) -> RuleAtRse:
    """`since`: when it was marked, where that matters."""
    gone_since = int(since.timestamp()) if since else int(marked)
    return RuleAtRse(id="0" * 32, files=2, gone_since=gone_since, approved=approved, custodial=custodial)


def a_case(blocks: Blocks, rules: Rules, budget: Budget, pattern: str = "*", **fields: object) -> Case:
    """The case as the handler makes it; `doubts`, `unknown`, `approve` as given."""
    doubts: list[Doubt] = fields.get("doubts", [])  # type: ignore[assignment]
    unknown: set[str] = fields.get("unknown", set())  # type: ignore[assignment]
    inside = like(pattern)
    read = {name: block for name, block in blocks.items() if inside(name)}
    reading = Reading("T2_IT_Pisa", read, doubts, [], datetime.now(UTC))
    found = diff(reading, rules, selection(pattern, [], []))
    sizes = {name: 10 for name in without_size(reading, rules, found) if name not in unknown}
    set_unknown(found, sizes)
    return case_of(
        ("T2_IT_Pisa", "T2_IT_Pisa", pattern, "phedex-rucio sync site T2_IT_Pisa"),
        reading,
        rules,
        found,
        policy=lambda _: True,
        keep_partial=False,
        bytes_of=sizes,
        budget=budget,
        approve=str(fields.get("approve", "")),
    )


steps = st.lists(st.tuples(few, few, few, patterns), min_size=1, max_size=8)


@given(steps, budgets)
def test_no_history_passes_more_than_the_budget(
    steps: list[tuple[set[str], set[str], set[str], str]], budget: Budget
) -> None:
    """Within one time of grace nothing is swept: whatever PhEDEx says in turn, for whatever patterns."""
    rules: Rules = {name: a_rule() for name in NAMES}
    for lost, part, unknown, pattern in steps:
        whole = set(NAMES) - lost - part
        blocks = dict.fromkeys(part - lost, PART) | dict.fromkeys(whole, WHOLE)
        ruling = rule(a_case(blocks, rules, budget, pattern, unknown=unknown))
        rules |= {name: a_rule(marked=True) for name in ruling.allowed}
        marked = sum(each.marked for each in rules.values())
        if ruling.allowed:
            assert marked <= budget.share * len(rules)
            assert marked <= budget.blocks
            assert 10 * marked <= budget.bytes + 10 * len(unknown)  # of an unknown block nobody knows the bytes
            assert not (budget.hold_unknown and unknown.difference(blocks) & set(ruling.allowed))
        assert not whole & set(ruling.allowed)


@given(st.one_of(few, some), few, some, some, budgets, patterns)
def test_an_approval_is_of_one_set(
    lost: set[str], drift: set[str], marked: set[str], unknown: set[str], budget: Budget, pattern: str
) -> None:
    """What was approved passes whole, or, where anything differs, none of it."""
    whole = set(NAMES) - lost
    rules: Rules = {name: a_rule(marked=name in marked) for name in NAMES}
    seen = a_case(dict.fromkeys(whole, WHOLE), rules, budget, pattern, unknown=unknown)
    now = a_case(
        dict.fromkeys(whole ^ drift, WHOLE), rules, budget, pattern, unknown=unknown, approve=checksum_of(seen)
    )
    ruling = rule(now)
    same = (seen.remove.keys(), seen.pending) == (now.remove.keys(), now.pending)
    if not same:
        assert not ruling.allowed
        assert not ruling.approved
    elif now.remove and (now.present or budget.allow_clean):
        assert set(ruling.allowed) == now.remove.keys()


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


@given(some, some, patterns, st.floats(0, 0.5))
def test_an_empty_or_shrunk_list_marks_nothing_and_sweeps_nothing(
    whole: set[str], marked: set[str], pattern: str, share: float
) -> None:
    rules: Rules = {name: a_rule(marked=name in marked) for name in NAMES}
    budget = Budget(share=share, hold_unknown=False)
    case = a_case(dict.fromkeys(whole, WHOLE), rules, budget, pattern)
    ruling = rule(case)
    short = case.present < case.standing * (1 - share) and (case.own is None or case.own.rules >= 10)
    if not case.present or short:
        assert not ruling.allowed
        assert not ruling.sweep
    assert rule(replace(case, present=0)).allowed == []


@given(some, some, some, budgets, patterns, st.randoms(use_true_random=False))
def test_the_same_readings_have_the_same_checksum_in_any_order(
    whole: set[str], marked: set[str], unknown: set[str], budget: Budget, pattern: str, rng: object
) -> None:
    rules: Rules = {name: a_rule(marked=name in marked) for name in NAMES}
    names = list(NAMES)
    rng.shuffle(names)  # type: ignore[attr-defined]
    one = a_case(dict.fromkeys(sorted(whole), WHOLE), rules, budget, pattern, unknown=unknown)
    other = a_case(
        dict.fromkeys([n for n in names if n in whole], WHOLE),
        {name: rules[name] for name in names},
        budget,
        pattern,
        unknown=unknown,
    )
    assert rule(one) == rule(other)


@given(some, some, budgets)
def test_a_rerun_half_way_asks_for_the_same_approval(whole: set[str], done: set[str], budget: Budget) -> None:
    """Some of what was approved has been marked, then everything died: the same approval goes on."""
    rules: Rules = {name: a_rule() for name in NAMES}
    blocks = dict.fromkeys(whole, WHOLE)
    before = a_case(blocks, rules, budget)
    half = rules | {name: a_rule(marked=True) for name in done & before.remove.keys()}
    again = a_case(blocks, half, budget, approve=checksum_of(before))
    ruling = rule(again)
    assert ruling.checksum == checksum_of(before)
    if again.remove and (whole or budget.allow_clean):
        assert set(ruling.allowed) == again.remove.keys()


def test_one_block_of_ten_thousand_answered() -> None:
    names = [f"/A/B-v1/RAW#{n:05}" for n in range(10_000)]
    ruling = rule(a_case({names[0]: WHOLE}, {name: a_rule() for name in names}, Budget()))
    assert ruling.allowed == []
    assert ruling.limit is Limit.SHARE
    assert not ruling.sweep
