"""Plans and batches: every difference is planned once, in order, within the limits."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from common.sync.catalogue import BlockAtNode, Doubt, Reading, RuleAtRse
from common.sync.diff import diff, keep_incomplete, set_reasons, unsettled
from common.sync.marks import Removal, permits
from common.sync.plan import Limits, Plan, Removals, batches, make_plan
from common.sync.reasons import Reason
from common.sync.selection import like, selection

NAMES = [f"/{p}/Run-v1/{tier}#{k}" for p in ("Aa", "Ab", "B") for tier in ("AOD", "RAW") for k in range(4)]

blocks = st.builds(
    lambda files, here, is_open, group: BlockAtNode(
        files=files,
        bytes=files * 7,
        here=min(here, files),
        complete=not is_open and here >= files,
        is_open=is_open,
        group=group,
    ),
    st.integers(0, 12),
    st.integers(0, 12),
    st.booleans(),
    st.sampled_from(["", "DataOps"]),
)
rules = st.builds(
    RuleAtRse,
    id=st.just("0" * 32),
    files=st.integers(0, 12),
    ending=st.booleans(),
    gone_since=st.sampled_from([0, 1_700_000_000]),
    keep=st.booleans(),
    group=st.sampled_from(["", "DataOps"]),
    why=st.sampled_from(list(Removal)),
    held_since=st.sampled_from([0, 0, 1_700_000_000]),
    left=st.booleans(),
    ordering=st.booleans(),
)
reason = st.builds(Reason, st.sampled_from([why for why in Removal if why is not Removal.INCOMPLETE]))
reasons = st.dictionaries(st.sampled_from(NAMES), st.one_of(reason, st.just(Reason(Removal.WAITING, stuck=True))))
phedex = st.dictionaries(st.sampled_from(NAMES), blocks)
rucio = st.dictionaries(st.sampled_from(NAMES), rules)


def reading_of(found: dict[str, BlockAtNode], doubts: tuple[Doubt, ...] = ()) -> Reading:
    return Reading("T2_IT_Pisa", found, list(doubts), [], datetime.now(UTC))


SHOWN = Removals(at=datetime.now(UTC), none="only shown")


def planned(found: dict[str, BlockAtNode], have: dict[str, RuleAtRse], limits: Limits, after: str = "") -> Plan:
    reading = reading_of(found)
    where = ("T2_IT_Pisa", "T2_IT_Pisa", "sync_t2_it_pisa", "*")
    return make_plan(
        where, reading, have, diff(reading, have, lambda _: True), limits=limits, removals=SHOWN, after=after
    )


@given(phedex, rucio)
def test_every_name_is_in_exactly_one_part(found: dict[str, BlockAtNode], have: dict[str, RuleAtRse]) -> None:
    result = diff(reading_of(found), have, lambda _: True)
    parts = [*result.missing, *result.update, *result.remove, *result.pending, *result.empty]
    assert len(parts) == len(set(parts))
    complete = {name for name, block in found.items() if block.complete}
    assert len(parts) + result.same >= len(complete | have.keys()) - len(result.empty)
    assert set(result.missing) == {n for n in complete - have.keys() if found[n].files}
    assert not set(result.remove) & complete


@given(phedex, rucio, reasons)
def test_a_block_that_is_complete_at_the_node_is_never_a_removal(
    found: dict[str, BlockAtNode], have: dict[str, RuleAtRse], why: dict[str, Reason]
) -> None:
    result = diff(reading_of(found), have, lambda _: True)
    set_reasons(result, have, why)
    away = {*result.remove, *result.pending, *result.kept}
    assert all(not found[name].complete for name in away if name in found)
    assert away <= have.keys()


@given(phedex, rucio, reasons)
def test_reasons_move_blocks_between_the_parts_and_lose_none(
    found: dict[str, BlockAtNode], have: dict[str, RuleAtRse], why: dict[str, Reason]
) -> None:
    """What may be the last copy stays; what a mark permits goes by that mark, and what none permits needs a new one."""
    before = diff(reading_of(found), have, lambda _: True)
    result = diff(reading_of(found), have, lambda _: True)
    set_reasons(result, have, {name: why[name] for name in unsettled(result) if name in why})
    assert result.remove.keys() | result.pending.keys() | result.kept.keys() == {*before.remove, *before.pending}
    assert not result.remove.keys() & (result.pending.keys() | result.kept.keys())
    assert result.kept.keys() & result.pending.keys() == {n for n, one in result.pending.items() if one.stays}
    for name, one in result.remove.items():
        assert not one.stays
        assert name in before.remove or not permits(have[name].why, one.why)
    for name, one in result.pending.items():
        assert have[name].marked
        assert permits(have[name].why, one.why)
    assert all(one.stays for one in result.kept.values())
    assert (result.missing, result.update, result.same) == (before.missing, before.update, before.same)


@given(phedex, rucio)
def test_incomplete_blocks_that_are_kept_are_the_same_and_no_others(
    found: dict[str, BlockAtNode], have: dict[str, RuleAtRse]
) -> None:
    before = diff(reading_of(found), have, lambda _: True)
    result = diff(reading_of(found), have, lambda _: True)
    keep_incomplete(result, have)
    stays = before.remove.keys() - result.remove.keys()
    assert stays == before.remove.keys() & found.keys()
    assert result.same == before.same + len(stays)
    assert (result.pending, result.update, result.missing) == (before.pending, before.update, before.missing)


@given(phedex, rucio, st.sampled_from(["/A*/*/*", "/Aa/*/*", "/*/*/RAW", "/B/Run-v1/AOD"]))
def test_a_doubted_part_proves_nothing(found: dict[str, BlockAtNode], have: dict[str, RuleAtRse], pattern: str) -> None:
    inside = like(pattern)
    left = {name: block for name, block in found.items() if not inside(name)}
    result = diff(reading_of(left, (Doubt(pattern, "cut"),)), have, lambda _: True)
    assert not [name for name in [*result.remove, *result.missing, *result.update] if inside(name)]


@given(phedex, rucio, st.sampled_from(["Aa", "RAW#[01]", "^/B/"]))
def test_a_selection_holds_on_both_sides(found: dict[str, BlockAtNode], have: dict[str, RuleAtRse], text: str) -> None:
    chosen = selection("*", [text], [])
    result = diff(reading_of(found), have, chosen)
    assert all(chosen(name) for name in [*result.missing, *result.update, *result.remove, *result.pending])
    unchosen = diff(reading_of(found), have, selection("*", [], [text]))
    assert not {*result.missing, *result.update, *result.remove} & {
        *unchosen.missing,
        *unchosen.update,
        *unchosen.remove,
    }


@given(phedex, rucio, st.integers(1, 5), st.integers(1, 4), st.integers(1, 30), st.integers(1, 200))
def test_the_pages_of_a_plan_cover_its_work_once_and_in_order(
    found: dict[str, BlockAtNode], have: dict[str, RuleAtRse], page: int, per_batch: int, files: int, size: int
) -> None:
    limits = Limits(page=page, blocks=per_batch, files=files, name_bytes=size)
    sent, after = [], ""
    while True:
        plan = planned(found, have, limits, after)
        cut = list(batches(plan.work, found, limits))
        assert all(len(batch) <= per_batch for batch in cut)
        assert all(sum(found[n].files for n in batch) <= files or len(batch) == 1 for batch in cut)
        sent += [name for batch in cut for name in batch]
        if not plan.after:
            break
        assert plan.after > after
        after = plan.after
    assert sent == sorted({*plan.missing, *plan.update})


@given(phedex, rucio, st.integers(1, 5))
def test_a_canary_is_the_first_blocks_and_has_no_next_page(
    found: dict[str, BlockAtNode], have: dict[str, RuleAtRse], limit: int
) -> None:
    reading = reading_of(found)
    everything = diff(reading, have, lambda _: True)
    plan = make_plan(("n", "r", "a", "*"), reading, have, everything, limits=Limits(), removals=SHOWN, limit=limit)
    assert plan.work == sorted([*everything.missing, *everything.update])[:limit]
    assert plan.after == ""


@given(phedex, rucio)
def test_what_is_in_sync_needs_no_plan(found: dict[str, BlockAtNode], have: dict[str, RuleAtRse]) -> None:
    plan = planned(found, have, Limits())
    assert plan.in_sync == (not plan.work and not plan.remove)
