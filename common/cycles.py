"""When is a cycle finished? A fold over the events, which may be doubled, reordered or cut at the front.

A cycle is finished when its root is closed and every id that a `closed` event announced is closed. Counting would
break on duplicates; sets do not. An execution that crashed before its `closed` announced nobody: its children run,
and nobody waits for them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from common.messages.events import Asked, Away, Back, Closed, Event, Retrying
from common.messages.meta import child_id
from common.outcome import Outcome, worst


@dataclass
class Cycle:
    """What is known of one cycle. Ids are those of its commands; the root's id is the cycle's name."""

    root: str
    command: dict[str, object] = field(default_factory=dict)
    asked_at: datetime | None = None
    announced: set[str] = field(default_factory=set)
    closed: dict[str, Closed] = field(default_factory=dict)
    retrying: dict[str, Retrying] = field(default_factory=dict)
    last_at: datetime | None = None

    @property
    def open(self) -> set[str]:
        """The ids that are known and not closed; the root from the start."""
        return ({self.root} | self.announced) - self.closed.keys()

    @property
    def finished(self) -> bool:
        """True once the root and all that was announced are closed."""
        return self.root in self.closed and self.announced <= self.closed.keys()

    @property
    def outcome(self) -> Outcome:
        """The worst of its parts so far."""
        return worst(closed.outcome for closed in self.closed.values())

    @property
    def counts(self) -> dict[str, int]:
        """The counts of its parts, added up."""
        total: dict[str, int] = {}
        for closed in self.closed.values():
            for name, number in closed.counts.items():
                total[name] = total.get(name, 0) + number
        return total

    @property
    def waiting(self) -> list[Retrying]:
        """The retries that have not ended yet, the next one first."""
        return sorted((r for i, r in self.retrying.items() if i not in self.closed), key=lambda r: r.next_at)


@dataclass
class Cycles:
    """The state of a fold: cycles by name, and since when which system is away for which worker."""

    by_name: dict[str, Cycle] = field(default_factory=dict)
    away: dict[tuple[str, str], Away] = field(default_factory=dict)
    heard: dict[tuple[str, str], datetime] = field(default_factory=dict)


def apply(state: Cycles, event: Event) -> None:
    """Take one event into the state. Any event may come twice and in any order: the end state is the same."""
    if isinstance(event, Away | Back):
        _system(state, event)
        return
    cycle = state.by_name.setdefault(event.cycle, Cycle(root=event.cycle))
    cycle.last_at = max(filter(None, (cycle.last_at, event.at)))
    if isinstance(event, Asked):
        cycle.command, cycle.asked_at = dict(event.command), event.at
    elif isinstance(event, Retrying):
        known = cycle.retrying.get(event.id)
        if known is None or (known.at, known.attempt) < (event.at, event.attempt):
            cycle.retrying[event.id] = event
    else:
        _close(cycle, event)


def _close(cycle: Cycle, event: Closed) -> None:
    """The last outcome counts (a replay closes again); what any execution announced is waited for."""
    cycle.announced.update(child_id(event.cycle, event.id, event.run, number) for number in range(event.children))
    known = cycle.closed.get(event.id)
    if known is None or (known.at, known.run) < (event.at, event.run):
        cycle.closed[event.id] = event


def _system(state: Cycles, event: Away | Back) -> None:
    who = (event.system.value, event.worker)
    if who in state.heard and state.heard[who] >= event.at:
        return
    state.heard[who] = event.at
    if isinstance(event, Away):
        state.away[who] = event
    else:
        state.away.pop(who, None)
