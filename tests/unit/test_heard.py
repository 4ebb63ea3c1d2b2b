"""What scripts/endure counts: two cycles of a key at once, the time without one, and how long nobody held the lease."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from common.errors import System
from common.messages.events import Asked, Back, Closed, Event
from common.outcome import Outcome
from scripts.heard import Heard, RemovalTimes, Turns, removal_times

START = datetime(2026, 1, 1, tzinfo=UTC)
FIRST, SECOND, THIRD = (f"T2_IT_Pisa@20260101T00{n:02}00" for n in range(3))


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def asked(cycle: str, seconds: float = 0) -> Asked:
    return Asked(id=cycle, cycle=cycle, command={"kind": "sync.site", "node": "T2_IT_Pisa"}, at=at(seconds))


def closed(cycle: str, seconds: float = 0, run: str = "r", children: int = 0) -> Closed:
    ended = Outcome.CHANGED
    return Closed(
        id=cycle, cycle=cycle, command="sync.site", key="", run=run, children=children, outcome=ended, at=at(seconds)
    )


def heard(*events: Event) -> Turns:
    told, turns = Heard(), Turns()
    for event in events:
        told.take(event)
        turns.take(event, told.state)
    return turns


def test_two_cycles_of_a_key_at_once() -> None:
    one_by_one = heard(asked(FIRST), asked(FIRST), closed(FIRST), asked(SECOND), closed(SECOND))
    assert (one_by_one.doubled, one_by_one.asked) == ([], [FIRST, SECOND])
    assert heard(asked(FIRST), asked(SECOND)).doubled == [f"{SECOND} while {FIRST} is open"]
    half_done = heard(asked(FIRST), closed(FIRST, children=1), asked(SECOND))
    assert half_done.doubled == [f"{SECOND} while {FIRST} is open"]


def test_a_finished_cycle_that_is_open_again_is_told_apart() -> None:
    again = closed(FIRST, 1, run="again", children=1)
    turns = heard(asked(FIRST), closed(FIRST), again, asked(SECOND))
    assert (turns.doubled, turns.reopened) == ([], [f"{SECOND} while {FIRST} is open"])


def test_the_longest_time_without_a_finished_cycle() -> None:
    turns = heard(asked(FIRST), closed(FIRST, 5), asked(SECOND), closed(SECOND, 30), closed(SECOND, 39))
    assert turns.largest_gap(["T2_IT_Pisa"], at(0), at(40)) == (timedelta(seconds=25), "T2_IT_Pisa")
    assert turns.largest_gap(["T2_IT_Pisa"], at(0), at(90)) == (timedelta(seconds=60), "T2_IT_Pisa")
    assert turns.largest_gap(["T2_IT_Pisa", "T2_US_MIT"], at(0), at(90)) == (timedelta(seconds=90), "T2_US_MIT")


def test_how_long_nobody_held_the_lease() -> None:
    held = [(0, "a"), (10.5, "b"), (20, "a")]
    turns = heard(*(Back(system=System.BROKER, worker=name, since=START, at=at(when)) for when, name in held))
    assert turns.takeover("a", at(10)) == timedelta(seconds=0.5)
    assert turns.takeover("a", at(20)) is None


def test_the_largest_times_of_deletions() -> None:
    line = "12:00:01 INFO sweep: 2 blocks, 8 files at T2_IT_Pisa: look to sending {} s, to answer {} s\n"
    log = line.format("0.412", "0.550") + "something else 9.999 s\n" + line.format("1.203", "1.290")
    assert removal_times(log) == RemovalTimes(2, 1.203, 1.29)
    assert removal_times("nothing") == RemovalTimes(0, 0.0, 0.0)
