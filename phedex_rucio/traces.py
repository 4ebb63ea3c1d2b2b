"""Which events and dead letters are about a block at a node? Pure: what the broker has kept, sifted."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from common import cycles
from common.broker import dead_letters
from common.broker.topology import KILLED
from common.cycles import Cycle, Cycles
from common.messages.events import Asked, Away, Back, Closed, Event, Retrying
from common.sync.one_block import Happened, Letter, Waiting
from common.sync.selection import like
from phedex_rucio import letters

KEPT = 3  # of what happened
NOTES = 3
TRIED_ALONE = "an idle worker tries it once more, alone"
_SAID = {"conflicts": "the block is in conflict", "failed": "the block failed"}  # all else is `the block was …`


def is_about(command: Mapping[str, Any], block: str, node: str) -> bool:
    """True for a command that looks at the block at the node, whatever else it looks at."""
    here = command.get("node") == node
    match command.get("kind"):
        case "sync.blocks":
            return here and block in command.get("blocks", ())
        case "sync.site":
            return here and like(str(command.get("dataset") or "*"))(block)
        case "sync.dataset":
            nodes = command.get("nodes") or [node]
            return node in nodes and like(str(command.get("dataset") or ""))(block)
    return here


def letter_about(letter: dead_letters.Letter, block: str, node: str) -> Letter | None:
    """The letter in short if it is about the block or its whole site; one that nobody can read is, if it names them."""
    story = letters.story(letter)
    if story.command is None:
        named = block in story.body
        if not named and node not in story.body:
            return None
    else:
        if not is_about(story.command, block, node):
            return None
        named = story.command.get("kind") == "sync.blocks"
    one = story.summary
    is_dead = letter.queue != KILLED
    error = letters.cut(f"{one.error}: {one.message}", 200) if is_dead else TRIED_ALONE
    return Letter(
        id=one.id, kind=one.kind, key=one.key, error=error, at=one.last_at, about_block=named, is_dead=is_dead
    )


@dataclass
class Trace:
    """What the events tell of a block at a node so far: only the cycles that look at it are kept."""

    block: str
    node: str
    state: Cycles = field(default_factory=Cycles)
    last: deque[Happened] = field(default_factory=lambda: deque(maxlen=KEPT))
    until: datetime | None = None

    def take(self, event: Event) -> None:
        """One more event, in the order of the stream."""
        self.until = max(filter(None, (self.until, event.at)))
        if isinstance(event, Away | Back):
            cycles.apply(self.state, event)
        elif isinstance(event, Asked | Closed | Retrying) and self._matters(event):
            cycles.apply(self.state, event)
            if isinstance(event, Closed) and (said := self._said(event)) is not None:
                self.last.append(said)

    def _matters(self, event: Asked | Closed | Retrying) -> bool:
        if event.cycle in self.state.by_name:
            return True
        if isinstance(event, Asked):
            return is_about(event.command, self.block, self.node)
        return isinstance(event, Closed) and self._said(event) is not None

    def _said(self, event: Closed) -> Happened | None:
        """What a closed command says of the block; None if it is about others."""
        met = [word for word, names in event.names.items() if self.block in names]
        says = [_SAID.get(word, f"the block was {word}") for word in met]
        says += [note for note in event.notes if self.block in note]
        if event.command == "sync.blocks" and not says and event.key != f"{self.node} {self.block}":
            return None
        if event.key.split(" ")[0] != self.node and not says:
            return None
        if event.command == "sync.site" and not self._covers(event.key):
            return None
        says += [note for note in event.notes if note not in says][: NOTES if event.command == "sync.site" else 0]
        says += [f"{event.error.class_}: {event.error.message}"] if event.error else []
        return Happened(
            at=event.at,
            command=event.command,
            key=event.key,
            cycle=event.cycle,
            outcome=str(event.outcome),
            says=tuple(letters.cut(text, 300) for text in says),
        )

    def _covers(self, key: str) -> bool:
        _, _, pattern = key.partition(" ")
        return like(pattern or "*")(self.block)

    def waiting(self) -> tuple[Waiting, ...]:
        """The cycles that look at the block and are not finished, the newest first.

        Of one whose beginning was not seen nobody can say that it is open: it may be about other things as well.
        """
        found = [cycle for cycle in self.state.by_name.values() if cycle.command and not cycle.finished]
        found.sort(key=lambda cycle: cycle.root, reverse=True)
        return tuple(_waiting(cycle) for cycle in found)

    def away(self) -> dict[str, Away]:
        """Since when which system is away, as the worker says that found it first."""
        found: dict[str, Away] = {}
        for event in sorted(self.state.away.values(), key=lambda one: one.since, reverse=True):
            found[event.system.value] = event
        return found


def _waiting(cycle: Cycle) -> Waiting:
    command = cycle.command
    meta = command.get("meta")
    what = " ".join(str(command[key]) for key in ("kind", "node", "dataset") if command.get(key))
    retry = cycle.waiting[0] if cycle.waiting else None
    says = f"try {retry.attempt + 1} at {retry.next_at:%H:%M} UTC after {retry.error.class_}" if retry else ""
    says += f": {letters.cut(retry.error.message, 120)}" if retry else ""
    return Waiting(
        cycle=cycle.root,
        asked=cycle.asked_at,
        by=str(meta.get("by") or "") if isinstance(meta, Mapping) else "",
        what=what,
        open=len(cycle.open),
        retry=says,
    )
