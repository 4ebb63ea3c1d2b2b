"""What is due now, what when, and why not yet? Pure: entries, what is known of their keys, and a clock.

Each key has its turns, spread over its interval by a hash of its name. What was missed is made up for once. The clock
is the scheduler's own, which never jumps; what another clock wrote down can only bring one turn forward.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

from msgspec.structs import replace

from common.messages.commands import Command, kind_of
from producers import slots
from producers.history import History, Known


@dataclass(frozen=True)
class Entry:
    """Something that is done by the clock: `every` and `deep` in seconds, 0 = never; `off` says why not at present."""

    key: str
    command: Command
    every: float
    deep: float = 0
    off: str = ""


@dataclass(frozen=True)
class Moment:
    """When is asked, and what holds then. `since`: when this scheduler began to decide. All in seconds.

    `pool` cycles may be open at once; a crowd is spread over `jitter`; without a word for `stalled_after` a cycle is
    stalled. `waiting`: the kinds of which commands lie in the queues.
    """

    now: float
    since: float
    pool: int
    jitter: float
    stalled_after: float
    waiting: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Turn:
    """An entry's next turn: due when, why it waits ("": it begins now), and as which cycle it would begin."""

    entry: Entry
    due: float
    waits: str
    slot: int
    deep: bool
    known: Known | None
    stalled: bool = False

    @property
    def command(self) -> Command:
        """The command of this turn, with the id of its cycle."""
        command = self.entry.command
        if self.deep:
            command = replace(command, deep=True)
        return replace(command, meta=replace(command.meta, id=slots.cycle_of(self.entry.key, self.slot)))


def agenda(entries: Iterable[Entry], history: History, moment: Moment) -> list[Turn]:
    """The next turn of every entry, the longest due first; those that may begin now have nothing to wait for.

    What was due before `since` is spread over `jitter` seconds from then on. The pool is given to those that are due
    the longest. A stalled cycle makes room, and is planned again once its command cannot be in a queue any more.
    """
    turns = sorted((_turn(entry, history, moment) for entry in entries), key=lambda turn: (turn.due, turn.entry.key))
    room = moment.pool - len(history.open(moment.now, moment.stalled_after))
    result = []
    for turn in turns:
        result.append(turn if turn.waits or room > 0 else _without_room(turn, moment.pool))
        room -= not turn.waits
    return result


def next_look(turns: Iterable[Turn], now: float, most: float) -> float:
    """In how many seconds something becomes due, at most `most`. What waits for an event is woken by it."""
    coming = [turn.due - now for turn in turns if turn.waits and not turn.entry.off and turn.due > now]
    return min([most, *coming])


def _turn(entry: Entry, history: History, moment: Moment) -> Turn:
    known, now = history.keys.get(entry.key), moment.now
    stalled = known is not None and history.is_stalled(known, now, moment.stalled_after)
    due = _due(entry, known, moment.since, moment.jitter)
    waits = entry.off
    if not waits and known is not None and known.is_open:
        waits = f"{known.cycle.root} is open" if not stalled else _still_queued(known, entry, moment)
    if not waits and due > now:
        waits = f"due in {_span(due - now)}"
    return Turn(entry, due, waits, _slot(entry, known, now), _is_deep(entry, known, now), known, stalled)


def _still_queued(known: Known, entry: Entry, moment: Moment) -> str:
    """Why a stalled cycle is not planned again: with no worker about, the same work would pile up."""
    kind = "sync.blocks" if known.cycle.root in known.cycle.closed else kind_of(entry.command)
    return f"{known.cycle.root} is stalled, and {kind} has commands that wait" if kind in moment.waiting else ""


def _due(entry: Entry, known: Known | None, since: float, jitter: float) -> float:
    """Half an interval at least after the last start, then at the key's own turn."""
    regular = float("-inf")
    if known is not None and entry.every:
        regular = slots.at_or_after(known.started + entry.every / 2, entry.every, entry.key)
    if regular > since:
        return regular
    return since + slots.fraction(entry.key) * min(entry.every, jitter)


def _slot(entry: Entry, known: Known | None, now: float) -> int:
    """The turn in whose name a cycle would begin: the last one, unless that name is used up."""
    turn = int(slots.at_or_before(now, entry.every, entry.key)) if entry.every else int(now)
    return turn if known is None else max(turn, known.slot + 1)


def _is_deep(entry: Entry, known: Known | None, now: float) -> bool:
    """True if a deep turn has come since the last deep start, or since the first start that is known.

    The very first cycle of a key is never deep: it adds what is missing, which compares those files anyway.
    """
    if not entry.deep or known is None:
        return False
    before = known.first if known.deep is None else known.deep
    return slots.at_or_before(now, entry.deep, f"deep {entry.key}") > before


def _without_room(turn: Turn, pool: int) -> Turn:
    return dataclasses.replace(turn, waits=f"the pool is full ({pool} cycles are open)")


def _span(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h` for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
