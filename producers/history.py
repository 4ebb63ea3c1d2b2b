"""What has become of each key that is scheduled? A fold over the events that keeps the last cycle of a key alone.

Times are seconds of the reader's steady clock: what others say they did later than now was done now.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from msgspec.structs import replace

from common import cycles
from common.cycles import Cycle
from common.errors import System
from common.messages.events import Asked, Away, Back, Closed, Event, Retrying
from common.outcome import Outcome
from producers.slots import parsed


@dataclass
class Known:
    """A key: the turn of its last cycle, when that began and was last heard of, and what came before.

    `first`: the earliest start that is known. `deep`: that of the last cycle that compared every file.
    """

    key: str
    slot: int
    cycle: Cycle
    started: float
    heard: float
    first: float
    deep: float | None = None
    outcome: Outcome | None = None
    told_stalled: bool = False

    @property
    def is_open(self) -> bool:
        """True until all that the cycle announced is closed."""
        return not self.cycle.finished

    @property
    def is_only_asked(self) -> bool:
        """True if nobody has said a word about it since it was sent."""
        return not (self.cycle.closed or self.cycle.retrying)


@dataclass
class History:
    """The keys by name, and which systems are away by the last word about each."""

    keys: dict[str, Known] = field(default_factory=dict)
    words: dict[System, tuple[datetime, bool]] = field(default_factory=dict)
    answered: datetime | None = None
    back_since: float = float("-inf")
    _state: cycles.Cycles = field(default_factory=cycles.Cycles)

    def apply(self, event: Event, now: float, *, live: bool = False) -> bool:
        """Take an event in; doubled and reordered ones do no harm. True if it finished the last cycle of a key.

        `live`: it has only just happened, whatever its own clock says.
        """
        seen = now if live else min(now, event.at.timestamp())
        was_away = self.is_away
        if isinstance(event, Away | Back):
            self._word(event)
        elif isinstance(event, Closed):
            self.answered = max(filter(None, (self.answered, event.at)))
        if was_away and not self.is_away:
            self.back_since = seen
        return not isinstance(event, Away | Back) and self._of_cycle(event, seen)

    @property
    def is_away(self) -> bool:
        """True while the last word about a system is that it is away, and nothing was done since."""
        return any(away and (self.answered is None or self.answered < at) for at, away in self.words.values())

    def open(self, now: float, stalled_after: float) -> list[Known]:
        """The keys whose last cycle is open and not stalled."""
        return [
            known for known in self.keys.values() if known.is_open and not self.is_stalled(known, now, stalled_after)
        ]

    def is_stalled(self, known: Known, now: float, stalled_after: float) -> bool:
        """True for an open cycle that nobody has said a word about for so long, while all systems were there."""
        quiet = now - max(known.heard, self.back_since)
        return known.is_open and not self.is_away and quiet > stalled_after

    def only_asked(self, since: float) -> Iterator[Known]:
        """Keys that were asked for since a time and never heard of again: the command itself may be missing."""
        return (k for k in self.keys.values() if k.is_open and k.is_only_asked and k.started >= since)

    def _word(self, event: Away | Back) -> None:
        known = self.words.get(event.system)
        if known is None or known[0] <= event.at:
            self.words[event.system] = (event.at, isinstance(event, Away))

    def _of_cycle(self, event: Asked | Closed | Retrying, seen: float) -> bool:
        turn = parsed(event.cycle)
        if turn is None:
            return False
        known = self._known(*turn, event.cycle, seen)
        if known.cycle.root != event.cycle:
            return False  # of an earlier turn: it was given up, or its last word came twice
        was_open = known.is_open
        cycles.apply(self._state, _slim(event))
        known.heard = max(known.heard, seen)
        if isinstance(event, Asked) and event.command.get("deep"):
            known.deep = max(known.deep or known.started, known.started)
        if not known.is_open:
            known.outcome = known.cycle.outcome
        return was_open and not known.is_open

    def _known(self, key: str, slot: int, name: str, seen: float) -> Known:
        """The key, whose last cycle is now this one unless it knows a later one."""
        known = self.keys.get(key)
        if known is None:
            known = self.keys[key] = Known(key, slot, self._fresh(name), seen, seen, seen)
        elif slot > known.slot:
            del self._state.by_name[known.cycle.root]
            known.slot, known.cycle, known.told_stalled = slot, self._fresh(name), False
            known.started = known.heard = seen
        known.first = min(known.first, seen)
        return known

    def _fresh(self, name: str) -> Cycle:
        cycle = self._state.by_name[name] = Cycle(root=name)
        return cycle


def _slim(event: Asked | Closed | Retrying) -> Asked | Closed | Retrying:
    """Without what may be large: names of blocks are for people, and a year's are not kept in memory."""
    if isinstance(event, Closed):
        notes = [note for note in event.notes if note.startswith(cycles.DRY_NOTE)]
        return replace(event, names={}, notes=notes, guard=None, counts={}, error=None)
    return event
