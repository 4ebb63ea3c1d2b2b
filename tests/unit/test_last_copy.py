"""Which replicas of a block may go? Every branch of the decision, file by file."""

from __future__ import annotations

from typing import Any

import pytest

from common.rucio.replicas import Standing
from consumers.apply.last_copy import Last, Sweep, decide

BLOCK, DATASET = "/A/B-v1/RAW#1", "/A/B-v1/RAW"
RSE, OTHER, THIRD = "T2_IT_Pisa", "T2_DE_DESY", "T2_CH_CERN"
ONE, TWO = "/store/1", "/store/2"
OURS = frozenset({BLOCK, DATASET})
NO_OTHER = "no other RSE where PhEDEx has the block complete can be relied on"


def standing(*rses: str, parents: frozenset[str] = OURS, state: str = "AVAILABLE") -> Standing:
    """At our RSE, and at the others in this state."""
    return Standing({RSE: "AVAILABLE", **dict.fromkeys(rses, state)}, parents)


def decided(
    files: dict[str, Standing],
    *places: str,
    foreign: frozenset[str] = frozenset(),
    **more: Any,
) -> Sweep | Last:
    return decide(BLOCK, RSE, files, foreign, set(places), **({"destroys": False} | more))


def test_what_is_available_at_a_place_to_rely_on_goes() -> None:
    both = {TWO: standing(OTHER), ONE: standing(OTHER, THIRD)}
    for destroys in (False, True):
        assert decided(both, OTHER, destroys=destroys) == Sweep([ONE, TWO], [], [], [])
    assert decided({ONE: standing(OTHER), TWO: standing(THIRD)}, OTHER, THIRD) == Sweep([ONE, TWO], [], [], [])


def test_files_without_a_replica_here_are_not_looked_at() -> None:
    away = {ONE: Standing({OTHER: "AVAILABLE"}), TWO: Standing()}
    assert decided(away) == Sweep([], [], [], [])
    assert decided(away, destroys=True) == Sweep([], [], [], [])


@pytest.mark.parametrize(
    ("file", "places", "why"),
    [
        (standing(), (), f"no other place: Rucio has it nowhere else, and {NO_OTHER}"),
        (standing(OTHER), (), f"no other place: Rucio has it at {OTHER}, and {NO_OTHER}"),
        (standing(OTHER), (THIRD,), f"no other place: Rucio has it at {OTHER}, and not at {THIRD}"),
        (
            standing(OTHER, state="UNAVAILABLE"),
            (OTHER,),
            f"no other place: Rucio has it at {OTHER}, and not at {OTHER}",
        ),
        (
            standing("D", "B", "A", "C"),
            ("Z", "W", "Y", "X"),
            "no other place: Rucio has it at A, B, C, and not at W, X, Y",
        ),
    ],
)
def test_a_file_that_is_nowhere_to_rely_on_is_kept(file: Standing, places: tuple[str, ...], why: str) -> None:
    assert decided({ONE: file}, *places) == Last(ONE, why)


def test_one_last_file_keeps_the_whole_block() -> None:
    files = {ONE: standing(OTHER), TWO: standing()}
    found = decided(files, OTHER)
    assert isinstance(found, Last)
    assert found.file == TWO


def test_what_destroys_takes_the_last_copy_out_of_its_block_before() -> None:
    two = {ONE: standing(), TWO: standing(parents=frozenset())}
    assert decided(two, destroys=True) == Sweep([ONE, TWO], [ONE], [], [ONE, TWO])
    # With another replica it stays in its block: deleting one of two tears nothing.
    assert decided({ONE: standing(OTHER)}, destroys=True) == Sweep([ONE], [], [], [ONE])
    assert decided({ONE: standing(OTHER, state="UNAVAILABLE")}, OTHER, destroys=True) == Sweep([ONE], [], [], [ONE])
    # Beside a file that has a place.
    mixed = {ONE: standing(OTHER), TWO: standing()}
    assert decided(mixed, OTHER, destroys=True) == Sweep([ONE, TWO], [TWO], [], [TWO])


@pytest.mark.parametrize("theirs", ["user.jdoe:their.dataset", "/A/B-v1/RAW#2", "/A/C-v1/RAW"])
def test_a_last_copy_in_anything_else_keeps_the_block(theirs: str) -> None:
    """Rucio's record of the file would go with it, and somebody's dataset without a rule would lose it."""
    shared = standing(parents=OURS | {theirs})
    kept = Last(TWO, f"PhEDEx has it nowhere, but it is in {theirs} as well")
    assert decided({ONE: standing(), TWO: shared}, destroys=True) == kept
    assert decided({TWO: standing(parents=frozenset({"zzz:more", theirs}))}, destroys=True) == kept
    assert decided({TWO: standing(OTHER, parents=OURS | {theirs})}, destroys=True) == Sweep([TWO], [], [], [TWO])
    assert decided({TWO: standing(OTHER, parents=OURS | {theirs})}, OTHER) == Sweep([TWO], [], [], [])


@pytest.mark.parametrize("state", ["BAD", "UNAVAILABLE", "TEMPORARY_UNAVAILABLE", "COPYING"])
def test_a_replica_that_cannot_be_read_is_no_other_copy(state: str) -> None:
    theirs = "user.jdoe:their.dataset"
    kept = Last(ONE, f"PhEDEx has it nowhere, but it is in {theirs} as well")
    shared = OURS | {theirs}
    assert decided({ONE: standing(OTHER, parents=shared, state=state)}, destroys=True) == kept
    # What cannot be read here either is no copy that is lost.
    bad = Standing({RSE: "BAD", OTHER: state}, shared)
    assert decided({ONE: bad}, destroys=True) == Sweep([ONE], [], [], [ONE])
    assert decided({ONE: Standing({RSE: "BAD"}, shared)}, destroys=True) == kept  # but Rucio's record of the file


def test_a_replica_that_somebody_may_be_about_to_delete_is_no_other_copy() -> None:
    theirs = "user.jdoe:their.dataset"
    shared = standing(OTHER, parents=OURS | {theirs})
    kept = Last(ONE, f"PhEDEx has it nowhere, but it is in {theirs} as well")
    assert decided({ONE: shared}, destroys=True, going={OTHER}) == kept
    assert decided({ONE: shared}, destroys=True, going={THIRD}) == Sweep([ONE], [], [], [ONE])
    third = standing(OTHER, THIRD, parents=OURS | {theirs})
    assert decided({ONE: third}, destroys=True, going={OTHER}) == Sweep([ONE], [], [], [ONE])
    assert decided({ONE: standing(OTHER)}, destroys=True, going={OTHER}) == Sweep([ONE], [], [], [ONE])  # nobody's


def test_the_last_copy_of_what_a_rule_of_others_wants_keeps_the_block() -> None:
    wished = {ONE: "rule r of jdoe (X) wants it"}
    kept = Last(ONE, "rule r of jdoe (X) wants it")
    assert decided({ONE: standing(), TWO: standing()}, destroys=True, wished=wished) == kept
    assert decided({ONE: standing(OTHER)}, destroys=True, wished=wished) == Sweep([ONE], [], [], [ONE])
    assert decided({ONE: standing(OTHER)}, destroys=True, wished=wished, going={OTHER}) == kept
    assert decided({TWO: standing()}, destroys=True, wished=wished) == Sweep([TWO], [TWO], [], [TWO])
    assert decided({ONE: standing(OTHER)}, OTHER, destroys=True, wished=wished, going={OTHER}) == Sweep(
        [ONE], [], [], []
    )
    unread = Standing({RSE: "UNAVAILABLE"}, OURS)
    assert decided({ONE: unread}, destroys=True, wished=wished) == Sweep([ONE], [ONE], [], [ONE])
    held = Last(ONE, f"no other place: Rucio has it nowhere else, and {NO_OTHER}")
    assert decided({ONE: standing()}, wished=wished) == held


def test_what_others_hold_here_stays_and_keeps_nothing_else() -> None:
    files = {ONE: standing(), TWO: standing(OTHER)}
    assert decided(files, OTHER, foreign=frozenset({ONE})) == Sweep([TWO], [], [ONE], [])
    assert decided(files, foreign=frozenset({ONE, TWO, "/store/3"})) == Sweep([], [], [ONE, TWO], [])
    assert decided(files, destroys=True, foreign=frozenset({TWO})) == Sweep([ONE], [ONE], [TWO], [ONE])


def test_what_phedex_has_no_more_and_is_in_no_block_needs_no_other_place() -> None:
    files = {ONE: standing(OTHER), TWO: standing(parents=frozenset())}
    assert decided(files, OTHER, left={TWO}) == Sweep([ONE, TWO], [], [], [TWO])
    assert isinstance(decided(files, OTHER, left={ONE}), Last)
    assert decided(files, OTHER, left={TWO}, wished={TWO: "why"}) == Last(TWO, "why")
    assert decided(files, OTHER, left={TWO}, foreign=frozenset({TWO})) == Sweep([ONE], [], [TWO], [])
