"""When is a cycle finished? A fold over the events, which may be doubled, reordered or cut at the front.

A cycle is finished when its root is closed and every id that a `closed` event announced is closed. Counting would
break on duplicates; sets do not. An execution that crashed before its `closed` announced nobody: its children run,
and nobody waits for them.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from common.messages.events import Asked, Away, Back, Closed, Event, Retrying
from common.messages.meta import child_id
from common.outcome import Outcome, worst

DRY_NOTE = "dry:"  # so begins the note of a plan that was dry by the settings
WELL = (Outcome.IN_SYNC, Outcome.CHANGED)
NARROW = ("select", "ignore", "limit", "after", "adds_only")


@dataclass(frozen=True)
class Merged:
    """What batches that ended well came to, without themselves. `ids` are the hashes of their ids, in order."""

    ids: array[int]
    counts: dict[str, int]
    outcome: Outcome
    last: datetime

    def has(self, ident: str) -> bool:
        """True if the command is one of them."""
        wanted = hash(ident)
        place = bisect_left(self.ids, wanted)
        return place < len(self.ids) and self.ids[place] == wanted


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
    merged: Merged | None = None

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
        merged = [self.merged.outcome] if self.merged else []
        return worst([*(closed.outcome for closed in self.closed.values()), *merged])

    @property
    def counts(self) -> dict[str, int]:
        """The counts of its parts, added up."""
        merged = [self.merged.counts] if self.merged else []
        return _summed([*(closed.counts for closed in self.closed.values()), *merged])

    @property
    def sizes(self) -> tuple[int, int]:
        """How many commands are closed, of how many that are known."""
        merged = len(self.merged.ids) if self.merged else 0
        return len(self.closed) + merged, len({self.root} | self.announced | self.closed.keys()) + merged

    @property
    def ended_at(self) -> datetime:
        """When the last of what is closed was; of a cycle in which something is."""
        merged = [self.merged.last] if self.merged else []
        return max([*(closed.at for closed in self.closed.values()), *merged])

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
        if cycle.merged and cycle.merged.has(event.id):
            return
        if known is None or (known.at, known.attempt) < (event.at, event.attempt):
            cycle.retrying[event.id] = event
    else:
        _close(cycle, event)


def synced_as_of(cycle: Cycle) -> datetime | None:
    """PhEDEx' time of the reading that a cycle has made true as a whole; None for any other cycle.

    Whole: the root is a `sync.site` of all datasets, narrowed by nothing, not dry, and every part of it ended well.
    Whose question is not known, for it was asked before the events that were read, does not count.
    """
    root = cycle.closed.get(cycle.root)
    command = cycle.command
    if root is None or not cycle.finished or any(command.get(word) for word in NARROW):
        return None
    if command.get("kind") != "sync.site" or command.get("dataset", "*") != "*" or _was_dry(cycle, root):
        return None
    return root.as_of if all(part.outcome in WELL for part in cycle.closed.values()) else None


def _was_dry(cycle: Cycle, root: Closed) -> bool:
    """True for a dry command; and where the settings made it dry, which its command does not tell."""
    return bool(cycle.command.get("dry")) or any(note.startswith(DRY_NOTE) for note in root.notes)


def _close(cycle: Cycle, event: Closed) -> None:
    """The last outcome counts (a replay closes again); what any execution announced is waited for."""
    children = (child_id(event.cycle, event.id, event.run, number) for number in range(event.children))
    merged = cycle.merged
    cycle.announced.update(child for child in children if merged is None or not merged.has(child))
    known = cycle.closed.get(event.id)
    if known is None and merged is not None and merged.has(event.id) and not _died_after(event, merged):
        return
    if known is None or (known.at, known.run) < (event.at, event.run):
        cycle.closed[event.id] = event


def _died_after(event: Closed, merged: Merged) -> bool:
    return event.outcome not in WELL and event.at > merged.last


def merge(cycle: Cycle) -> None:
    """Of a finished cycle's batches that ended well only the sums are left: a day of batches is hundreds of megabytes.

    The plans stay, and what did not end well. All that a cycle says of itself is as before, and stays so whatever comes
    twice or late; but that a merged batch was run once more changes its counts no longer.
    """
    parts = [p for p in cycle.closed.values() if p.command != "sync.site" and p.id != cycle.root and p.outcome in WELL]
    if not cycle.finished or not parts:
        return
    gone = {part.id for part in parts}
    cycle.retrying = {retry.id: retry for retry in cycle.waiting}
    cycle.merged = _with(cycle.merged, parts)
    cycle.announced = cycle.announced - gone
    cycle.closed = {ident: part for ident, part in cycle.closed.items() if ident not in gone}


def _with(merged: Merged | None, parts: list[Closed]) -> Merged:
    if merged is not None:
        parts = [part for part in parts if not merged.has(part.id)]
    known = [merged] if merged else []
    return Merged(
        ids=array("q", sorted({hash(part.id) for part in parts}.union(*(one.ids for one in known)))),
        counts=_summed([*(part.counts for part in parts), *(one.counts for one in known)]),
        outcome=worst([*(part.outcome for part in parts), *(one.outcome for one in known)]),
        last=max([*(part.at for part in parts), *(one.last for one in known)]),
    )


def _summed(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in counts:
        for name, number in one.items():
            total[name] = total.get(name, 0) + number
    return total


def _system(state: Cycles, event: Away | Back) -> None:
    who = (event.system.value, event.worker)
    if who in state.heard and state.heard[who] >= event.at:
        return
    state.heard[who] = event.at
    if isinstance(event, Away):
        state.away[who] = event
    else:
        state.away.pop(who, None)
