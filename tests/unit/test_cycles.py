"""What a cycle says of itself: how far it is, what waits, what it came to, and how much of it is kept."""

from __future__ import annotations

import itertools
from array import array
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from common.cycles import Cycle, Cycles, Merged, apply, merge, synced_as_of
from common.errors import System
from common.messages.events import Asked, Away, Back, Closed, Event, Retrying
from common.messages.meta import Failure, child_id
from common.outcome import Outcome

START = datetime(2026, 3, 14, 3, tzinfo=UTC)
AS_OF = START - timedelta(minutes=1)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def child(number: int, run: str = "r", parent: str = "c") -> str:
    return child_id("c", parent, run, number)


def asked(**command: Any) -> Asked:
    return Asked(id="c", cycle="c", command={"kind": "sync.site", "node": "T2_IT_Pisa"} | command, at=at(0))


def root(children: int = 0, outcome: Outcome = Outcome.IN_SYNC, **changes: Any) -> Closed:
    usual: dict[str, Any] = {"id": "c", "command": "sync.site", "key": "T2_IT_Pisa", "run": "r", "at": at(1)}
    return Closed(cycle="c", children=children, outcome=outcome, **(usual | {"as_of": AS_OF} | changes))


def batch(number: int = 0, outcome: Outcome = Outcome.CHANGED, **changes: Any) -> Closed:
    usual: dict[str, Any] = {"command": "sync.blocks", "key": "T2_IT_Pisa /A/B/RAW#1", "run": "b", "at": at(2 + number)}
    return Closed(cycle="c", outcome=outcome, **(usual | {"id": child(number)} | changes))


def retrying(ident: str, seconds: float, attempt: int = 1, wait: float = 30) -> Retrying:
    error = Failure(class_="RucioConflict", message="no good", at=at(seconds))
    next_at = at(seconds + wait)
    return Retrying(id=ident, cycle="c", attempt=attempt, next_at=next_at, error=error, at=at(seconds))


def fold(*events: Event) -> Cycle:
    state = Cycles()
    for event in events:
        apply(state, event)
    return state.by_name["c"]


# How far it is


def test_what_is_known_and_not_closed_is_open_and_the_root_is_from_the_start() -> None:
    assert fold(asked()).open == {"c"}
    assert fold(asked(), root(2)).open == {child(0), child(1)}
    assert fold(asked(), root(2), batch(1)).open == {child(0)}
    assert fold(batch(1)).open == {"c"}
    assert fold(asked(), root(1), batch(0)).open == set()


def test_sizes_count_what_is_known_from_wherever() -> None:
    assert fold(asked()).sizes == (0, 1)
    assert fold(root(2)).sizes == (1, 3)
    assert fold(batch(0)).sizes == (1, 2)
    assert fold(root(2), batch(0), batch(1)).sizes == (3, 3)


def test_a_cycle_was_last_heard_of_at_its_latest_event_and_ended_with_its_last_part() -> None:
    told: list[Event] = [asked(), root(1), batch(0, at=at(5)), retrying("c", 9)]
    for events in itertools.permutations(told):
        cycle = fold(*events)
        assert (cycle.last_at, cycle.ended_at) == (at(9), at(5))
        assert cycle.asked_at == at(0)
        assert cycle.command["node"] == "T2_IT_Pisa"


def test_what_waits_is_told_with_the_next_one_first() -> None:
    waiting = [retrying(child(0), 3, wait=300), retrying(child(1), 4, wait=30), retrying(child(2), 2, wait=60)]
    cycle = fold(root(3), *waiting)
    assert [retry.id for retry in cycle.waiting] == [child(1), child(2), child(0)]
    assert [retry.id for retry in fold(root(3), *waiting, batch(2)).waiting] == [child(1), child(0)]


def test_the_latest_retry_counts_in_whatever_order_they_come() -> None:
    retries = [retrying("c", 3, attempt=1), retrying("c", 3, attempt=2), retrying("c", 5, attempt=1)]
    for events in itertools.permutations(retries):
        assert fold(*events).waiting == [retries[2]]
    for events in itertools.permutations(retries[:2]):
        assert fold(*events).waiting == [retries[1]]


def test_of_two_executions_that_ended_at_the_same_moment_one_counts_in_any_order() -> None:
    ends = [root(run="a", outcome=Outcome.DEAD), root(run="b", outcome=Outcome.CHANGED)]
    assert fold(*ends).outcome == fold(*reversed(ends)).outcome == Outcome.CHANGED


# What it has made true


@pytest.mark.parametrize(
    "command", [{}, {"dataset": "*"}, {"deep": True}, {"select": "", "limit": None, "adds_only": False, "dry": False}]
)
def test_a_whole_cycle_that_went_well_is_as_of_phedex_time(command: dict[str, Any]) -> None:
    assert synced_as_of(fold(asked(**command), root(2), batch(0, Outcome.IN_SYNC), batch(1))) == AS_OF


@pytest.mark.parametrize(
    "command",
    [
        {"select": "RAW"},
        {"ignore": "RAW"},
        {"limit": 3},
        {"after": "/A/B/RAW#1"},
        {"adds_only": True},
        {"dry": True},
        {"dataset": "/A/*/*"},
        {"kind": "sync.dataset"},
        {"kind": "sync.blocks"},
    ],
)
def test_a_narrowed_or_other_command_makes_no_site_true(command: dict[str, Any]) -> None:
    assert synced_as_of(fold(asked(**command), root(1), batch(0))) is None


@pytest.mark.parametrize(
    "events",
    [
        [root(1), batch(0)],  # nobody knows what was asked
        [asked(), root(1)],  # not finished
        [asked(), batch(0)],  # its plan is not closed
        [asked(), root(1), batch(0, Outcome.DEAD)],
        [asked(), root(1), batch(0, Outcome.HELD)],
        [asked(), root(1), batch(0, Outcome.DROPPED)],
        [asked(), root(1, Outcome.HELD), batch(0)],
        [asked(), root(0, Outcome.SKIPPED)],
        [asked(), root(0, notes=["a note", "dry: the settings say so"])],
    ],
)
def test_what_is_not_whole_or_did_not_go_well_has_made_nothing_true(events: list[Event]) -> None:
    assert synced_as_of(fold(*events)) is None


def test_a_note_of_another_thing_makes_no_plan_dry() -> None:
    assert synced_as_of(fold(asked(), root(0, notes=["it was not dry: all was written"]))) == AS_OF


# How much of it is kept


def merged_cycle(*more: Event) -> Cycle:
    """Two batches that went well and one that died, merged; what comes after it is taken in."""
    counts = [{"added": 2, "same": 1}, {"added": 3}, {"failed": 1}]
    ends = [Outcome.CHANGED, Outcome.IN_SYNC, Outcome.DEAD]
    state = Cycles()
    apply(state, asked())
    apply(state, root(3, counts={"missing": 5}))
    for number in range(3):
        apply(state, retrying(child(number), 1))
        apply(state, batch(number, ends[number], counts=counts[number]))
    merge(state.by_name["c"])
    for event in more:
        apply(state, event)
    return state.by_name["c"]


def test_only_the_sums_are_left_of_batches_that_went_well() -> None:
    cycle = merged_cycle()
    assert cycle.closed.keys() == {"c", child(2)}
    assert cycle.announced == {child(2)}
    assert cycle.retrying == {}
    assert cycle.merged is not None
    assert cycle.merged == Merged(
        ids=array("q", sorted([hash(child(0)), hash(child(1))])),
        counts={"added": 5, "same": 1},
        outcome=Outcome.CHANGED,
        last=at(3),
    )


def test_a_merged_cycle_says_what_it_said_before() -> None:
    cycle = merged_cycle()
    assert cycle.finished
    assert cycle.open == set()
    assert cycle.sizes == (4, 4)
    assert cycle.counts == {"missing": 5, "added": 5, "same": 1, "failed": 1}
    assert cycle.outcome == Outcome.DEAD
    assert cycle.ended_at == at(4)
    assert cycle.waiting == []


def test_what_comes_twice_or_late_changes_no_merged_cycle() -> None:
    known: list[Event] = [
        root(3, counts={"missing": 5}),
        batch(0),
        batch(1),
        retrying(child(0), 1),
        retrying(child(1), 60),
    ]
    for event in known:
        cycle = merged_cycle(event, event)
        assert cycle.closed.keys() == {"c", child(2)}
        assert (cycle.announced, cycle.retrying) == ({child(2)}, {})
        assert (cycle.finished, cycle.sizes) == (True, (4, 4))
        assert cycle.counts == {"missing": 5, "added": 5, "same": 1, "failed": 1}


def test_a_retry_of_what_died_is_told_after_the_merge_too() -> None:
    again = retrying(child(2), 60)
    assert merged_cycle(again).retrying == {child(2): again}


def test_what_went_well_and_died_after_that_is_told() -> None:
    """Only later than all that was merged: a dead letter that was replayed well died before that."""
    dead = batch(0, Outcome.DEAD, at=at(4), run="z")
    assert merged_cycle(dead).closed[child(0)] == dead
    assert child(0) not in merged_cycle(batch(0, Outcome.DEAD, at=at(3), run="z")).closed
    assert child(0) not in merged_cycle(batch(0, Outcome.CHANGED, at=at(9), run="z")).closed


def test_another_execution_of_the_plan_opens_a_merged_cycle_again() -> None:
    cycle = merged_cycle(root(1, run="again", at=at(9)))
    assert not cycle.finished
    assert cycle.open == {child(0, "again")}
    ended = batch(0, Outcome.IN_SYNC, id=child(0, "again"), at=at(10))
    cycle = merged_cycle(root(1, run="again", at=at(9)), ended)
    assert (cycle.finished, cycle.closed[ended.id]) == (True, ended)


def test_a_second_merge_adds_to_the_first() -> None:
    cycle = merged_cycle(batch(2, Outcome.CHANGED, run="replay", at=at(60), counts={"added": 1}))
    merge(cycle)
    assert cycle.closed.keys() == {"c"}
    assert cycle.announced == set()
    assert cycle.merged is not None
    assert all(cycle.merged.has(child(number)) for number in range(3))
    assert (cycle.sizes, cycle.outcome, cycle.ended_at) == ((4, 4), Outcome.CHANGED, at(60))
    assert cycle.counts == {"missing": 5, "added": 6, "same": 1}


def test_a_batch_that_is_merged_twice_counts_once() -> None:
    """It went well, died when it was replayed, and went well once more."""
    dead = batch(0, Outcome.DEAD, at=at(9), run="y", counts={"failed": 1})
    cycle = merged_cycle(dead, batch(0, Outcome.CHANGED, at=at(10), run="z", counts={"added": 70}))
    merge(cycle)
    assert cycle.sizes == (4, 4)
    assert cycle.counts == {"missing": 5, "added": 5, "same": 1, "failed": 1}


def test_the_worst_that_was_merged_stays_the_outcome() -> None:
    state = Cycles()
    apply(state, root(1))
    apply(state, batch(0, Outcome.CHANGED))
    merge(state.by_name["c"])
    for event in (root(1, run="again", at=at(8)), batch(0, Outcome.IN_SYNC, id=child(0, "again"), at=at(0))):
        apply(state, event)
    merge(state.by_name["c"])
    cycle = state.by_name["c"]
    assert (cycle.outcome, cycle.ended_at) == (Outcome.CHANGED, at(8))
    assert cycle.merged is not None
    assert cycle.merged.last == at(2)


@pytest.mark.parametrize(
    ("events", "why"),
    [
        ([asked(), root(2), batch(0)], "it is not finished"),
        ([asked(), root(0)], "there is nothing but the plan"),
        ([asked(), root(1), batch(0, Outcome.DEAD)], "nothing went well"),
        ([root(0, command="sync.blocks", outcome=Outcome.CHANGED)], "its root is a batch"),
        ([root(1, command="sync.dataset"), batch(0, command="sync.site")], "its parts are plans"),
    ],
)
def test_what_is_never_merged(events: list[Event], why: str) -> None:
    cycle, before = fold(*events), fold(*events)
    merge(cycle)
    assert cycle == before, why
    assert cycle.merged is None


def test_a_command_is_one_of_the_merged_or_it_is_not() -> None:
    inside, outside = [f"in{n}" for n in range(50)], [f"out{n}" for n in range(50)]
    merged = Merged(array("q", sorted(map(hash, inside))), {}, Outcome.CHANGED, START)
    assert all(merged.has(ident) for ident in inside)
    assert not any(merged.has(ident) for ident in outside)


# Which systems are away


def away(system: System, seconds: float, worker: str = "w") -> Away:
    return Away(system=system, worker=worker, since=at(seconds), at=at(seconds))


def back(system: System, seconds: float, worker: str = "w") -> Back:
    return Back(system=system, worker=worker, since=at(seconds), at=at(seconds))


def test_the_last_word_of_each_worker_about_each_system_counts() -> None:
    words: list[Event] = [
        away(System.RUCIO, 1),
        back(System.RUCIO, 2),
        away(System.RUCIO, 3),
        away(System.RUCIO, 1, "v"),
        back(System.RUCIO, 2, "v"),
        away(System.PHEDEX, 1),
    ]
    for events in itertools.permutations(words):
        state = Cycles()
        for event in events:
            apply(state, event)
        assert state.away == {("rucio", "w"): away(System.RUCIO, 3), ("phedex", "w"): away(System.PHEDEX, 1)}
        assert state.by_name == {}


def test_of_two_words_of_the_same_moment_the_first_stays() -> None:
    state = Cycles()
    for event in (away(System.RUCIO, 1), back(System.RUCIO, 1)):
        apply(state, event)
    assert list(state.away) == [("rucio", "w")]
