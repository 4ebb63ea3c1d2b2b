"""A cycle is finished exactly when all its announced work is closed, whatever happens to the events on the way."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from common.cycles import Cycle, Cycles, apply
from common.messages.events import Asked, Closed, Event
from common.messages.meta import child_id
from common.outcome import Outcome, worst

START = datetime(2026, 1, 1, tzinfo=UTC)
OUTCOMES = [Outcome.IN_SYNC, Outcome.CHANGED, Outcome.HELD, Outcome.SKIPPED, Outcome.DEAD]


@dataclass
class History:
    """What really happened: the events in the order they were written, and what the truth is at each point."""

    rng: random.Random
    events: list[Event] = field(default_factory=list)
    announced: set[str] = field(default_factory=lambda: {"root"})
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    runs: int = 0

    def at(self) -> datetime:
        return START + timedelta(seconds=len(self.events))

    def execute(self, command: str, depth: int) -> list[tuple[str, int]]:
        """Run a command: it may crash before its `closed` (children sent, nobody told) or run twice over."""
        self.runs += 1
        run = f"run{self.runs}"
        children = self.rng.randint(0, 3) if depth < 3 else 0
        sent = [(child_id("root", command, run, k), depth + 1) for k in range(children)]
        if self.rng.random() < 0.2:
            return [*sent, (command, depth)]
        outcome = self.rng.choice(OUTCOMES)
        closed = Closed(
            id=command,
            cycle="root",
            command="sync.site",
            key="k",
            run=run,
            children=children,
            outcome=outcome,
            at=self.at(),
        )
        self.events.append(closed)
        self.announced.update(child for child, _ in sent)
        self.outcomes[command] = outcome
        return [*sent, *([(command, depth)] if self.rng.random() < 0.1 else [])]

    def finished(self) -> bool:
        return self.announced <= self.outcomes.keys()


def histories(seed: int, steps: int) -> History:
    history = History(random.Random(seed))
    history.events.append(Asked(id="root", cycle="root", command={"kind": "sync.site"}, at=START))
    queue = deque([("root", 0)])
    while queue and len(history.events) < steps:
        queue.rotate(-history.rng.randrange(len(queue)))
        queue.extend(history.execute(*queue.popleft()))
    return history


def fold(events: list[Event]) -> Cycle:
    state = Cycles()
    for event in events:
        apply(state, event)
    return state.by_name["root"]


@given(st.integers(0, 10**6), st.integers(1, 60))
def test_finished_means_all_announced_work_is_closed(seed: int, steps: int) -> None:
    history = histories(seed, steps)
    cycle = fold(history.events)
    assert cycle.finished == history.finished()
    if cycle.finished:
        assert cycle.open == set()
        assert cycle.outcome == worst(history.outcomes[one] for one in history.outcomes)


@given(st.integers(0, 10**6), st.integers(1, 60))
def test_doubled_and_reordered_events_change_nothing(seed: int, steps: int) -> None:
    history = histories(seed, steps)
    rng = random.Random(seed)
    shuffled = [event for event in history.events for _ in range(rng.randint(1, 3))]
    rng.shuffle(shuffled)
    plain, mixed = fold(history.events), fold(shuffled)
    assert (plain.announced, plain.closed) == (mixed.announced, mixed.closed)
    assert (plain.finished, plain.outcome, plain.counts) == (mixed.finished, mixed.outcome, mixed.counts)


@given(st.integers(0, 10**6))
def test_a_crashed_execution_is_not_waited_for(seed: int) -> None:
    """Its children ran and closed, or still run: either way the cycle ends with the execution that closed."""
    orphan = Closed(
        id=child_id("root", "root", "lost", 0),
        cycle="root",
        command="sync.blocks",
        key="k",
        run="r",
        outcome=Outcome.CHANGED,
        at=START,
    )
    root = Closed(
        id="root", cycle="root", command="sync.site", key="k", run=f"kept{seed}", outcome=Outcome.IN_SYNC, at=START
    )
    assert fold([root]).finished
    assert fold([orphan, root]).finished
    assert not fold([orphan]).finished


def test_a_replay_closes_again_and_the_last_outcome_counts() -> None:
    dead = Closed(id="root", cycle="root", command="sync.site", key="k", run="a", outcome=Outcome.DEAD, at=START)
    replay = Closed(
        id="root",
        cycle="root",
        command="sync.site",
        key="k",
        run="b",
        children=1,
        outcome=Outcome.CHANGED,
        at=START + timedelta(1),
    )
    assert fold([replay, dead]).outcome == Outcome.CHANGED
    assert not fold([dead, replay]).finished
