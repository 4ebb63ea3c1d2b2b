"""How a site is: in sync as of when, what is held, which cycle was the last."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from common.messages.events import Event
from common.messages.meta import child_id
from common.outcome import Outcome
from phedex_rucio.overview.sites import Site, sites
from tests.unit.overview.facts_made import NODE, NOW, ago, asked, batch, closed, facts, guard

READ = ago(minutes=20)


def row(*events: Event) -> Site:
    (found,) = sites(facts(*events))
    return found


def whole(**root: Any) -> list[Event]:
    return [asked(), closed(outcome=Outcome.CHANGED, as_of=READ, children=1, **root), batch()]


def test_in_sync_as_of_is_phedex_own_time_of_a_whole_reading_made_true() -> None:
    assert row(*whole()).in_sync_as_of == READ
    later = [asked("d"), closed("d", as_of=ago(minutes=2), at=ago(minutes=1))]
    both = row(*whole(), *later)
    assert (both.in_sync_as_of, both.last and both.last.cycle) == (ago(minutes=2), "d")
    assert row(*later, *whole()).in_sync_as_of == ago(minutes=2)


@pytest.mark.parametrize(
    "events",
    [
        whole()[:2],  # not finished
        whole()[1:],  # what was asked is not known
        [asked(limit=5), *whole()[1:]],
        [asked(select="x"), *whole()[1:]],
        [asked(dry=True), *whole()[1:]],
        [asked(adds_only=True), *whole()[1:]],
        [asked(dataset="/A/*/*"), *whole()[1:]],
        [*whole()[:2], batch(outcome=Outcome.DEAD)],
        [*whole()[:2], batch(outcome=Outcome.SKIPPED)],
        whole(notes=["dry: would add 6, update 0"]),
        [asked(), closed(outcome=Outcome.HELD, as_of=READ)],
    ],
)
def test_nothing_less_counts(events: list[Event]) -> None:
    assert row(*events).in_sync_as_of is None


def held(cycle: str, at: datetime, **changes: Any) -> list[Event]:
    return [asked(cycle, at, **changes), closed(cycle, Outcome.HELD, guard=guard(), at=at)]


def test_what_is_held_stays_until_a_plan_of_the_whole_site_answers() -> None:
    first = held("c", ago(hours=3))
    canary = [asked("d", limit=1), closed("d", at=ago(hours=2))]
    answered = [asked("e"), closed("e", at=ago(hours=1))]
    assert [one.cycle for one in row(*first).held] == ["c"]
    assert [one.cycle for one in row(*first, *canary).held] == ["c"]
    assert row(*first, *canary, *answered).held == []
    assert row(*answered, *canary, *first).held == []
    assert [one.cycle for one in row(*first, *held("f", NOW)).held] == ["f"]


def test_a_dataset_that_is_held_at_a_site_is_held_there() -> None:
    child = child_id("c", "c", "r", 0)
    root = closed(command="sync.dataset", key="/A/*/*", children=1)
    part = closed(id=child, key=f"{NODE} /A/*/*", outcome=Outcome.HELD, guard=guard())
    assert [one.cycle for one in row(root, part).held] == ["c"]


def test_a_cycle_that_began_before_what_was_read_is_not_said_to_be_open() -> None:
    assert row(batch()).open == []
    assert row(asked(at=ago(minutes=2)), batch()).open[0].closed == 1
