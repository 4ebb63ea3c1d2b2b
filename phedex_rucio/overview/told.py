"""What was done at a site, with a dataset or a block, or in a cycle? Cycles in, chapters and deeds out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

from common import names
from common.cycles import Cycle
from common.messages.events import Closed, GuardReport, Retrying
from common.outcome import Outcome, worst

Kind = Literal["cycle", "node", "dataset", "block"]

WHAT = {
    "added": "added, with its rule",
    "updated": "updated: files, meta or the rule's end",
    "revived": "a removal taken back",
    "marked": "marked: it should not be here any more",
    "swept": "swept: replicas and rule gone",
    "held": "held back",
    "conflicts": "conflict: Rucio has another size or checksum; left as it is",
    "failed": "failed by itself, tried again",
}


class Subject(Struct, frozen=True):
    """What is asked about."""

    kind: Kind
    name: str


class Deed(Struct, frozen=True, kw_only=True):
    """What became of a block at one moment."""

    at: datetime
    node: str
    what: str
    cycle: str
    by: str
    note: str = ""


class Chapter(Struct, frozen=True, kw_only=True):
    """A cycle, or the part of it that is about the subject. `outcome` and `ended` are None while it is open.

    `node`: the first whose guard said something, "" for none.
    """

    cycle: str
    at: datetime
    ended: datetime | None
    command: str
    node: str
    by: str
    outcome: Outcome | None
    as_of: datetime | None
    counts: dict[str, int]
    closed: int
    announced: int
    guards: list[GuardReport]
    notes: list[str]
    errors: list[str]
    waiting: list[Retrying]


def subject_of(text: str) -> Subject:
    """What a person means: a block, a dataset (or the beginning of one), a node; else a cycle, or a command in it."""
    if names.is_block(text):
        return Subject("block", text)
    if text.startswith("/"):
        return Subject("dataset", text.rstrip("*"))
    if names.is_node(text):
        return Subject("node", text)
    return Subject("cycle", text.partition("/")[0])


def chapters(cycles: Iterable[Cycle], subject: Subject) -> list[Chapter]:
    """The cycles that are about the subject, the oldest first."""
    found = (_chapter(cycle, subject) for cycle in cycles)
    return sorted((chapter for chapter in found if chapter is not None), key=lambda chapter: chapter.at)


def deeds(cycles: Iterable[Cycle], block: str) -> list[Deed]:
    """What was done with a block, anywhere, the oldest first; that it was found as it should be is no deed."""
    found = [deed for cycle in cycles for part in cycle.closed.values() for deed in _deeds(cycle, part, block)]
    return sorted(found, key=lambda deed: deed.at)


def _deeds(cycle: Cycle, part: Closed, block: str) -> Iterator[Deed]:
    notes = [note for note in part.notes if note.startswith(block)]
    told = [WHAT.get(word, word) for word, listed in part.names.items() if block in listed]
    if part.command == "sync.site":
        told = [f"{what} by the guard, or kept for its last copy" for what in told]
    if part.error is not None and block in part.key:
        told.append(f"{part.outcome}: {part.error.class_}: {part.error.message}")
    for what in told or ([""] if notes else []):
        note = "; ".join(note.removeprefix(block).lstrip(": ") for note in notes)
        yield Deed(
            at=part.at, node=part.key.split(" ")[0], what=what or note, cycle=cycle.root, by=by(cycle), note=note
        )


def by(cycle: Cycle) -> str:
    """Who sent it, as far as that is among the events."""
    meta = cycle.command.get("meta")
    said = str(meta.get("by", "")) if isinstance(meta, dict) else ""
    return said or ("the clock" if "@" in cycle.root else "-")


def command_of(cycle: Cycle) -> str:
    """What was asked for, in a line: the kind and its fields."""
    if not cycle.command:
        root = cycle.closed.get(cycle.root)
        return f"{root.command} {root.key}" if root else "-"
    left = {name: value for name, value in cycle.command.items() if name not in ("kind", "meta", "v", "node")}
    words = [str(cycle.command.get("kind", "-")), str(cycle.command.get("node", ""))]
    return " ".join(filter(None, [*words, *(f"{name}={_short(value)}" for name, value in left.items())]))


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"{value[0]} and {len(value) - 1} more" if len(value) > 1 else str(next(iter(value), ""))
    return str(value)


def _chapter(cycle: Cycle, subject: Subject) -> Chapter | None:
    parts = sorted(_parts(cycle, subject), key=lambda part: part.at)
    is_asked = _is_asked(cycle, subject)
    if not parts and not is_asked:
        return None
    at = cycle.asked_at or min((part.at for part in cycle.closed.values()), default=cycle.last_at)
    assert at is not None
    root = cycle.closed.get(cycle.root)
    return Chapter(
        cycle=cycle.root,
        at=at,
        ended=max(part.at for part in cycle.closed.values()) if cycle.finished else None,
        command=command_of(cycle),
        node=next((part.key.split(" ")[0] for part in parts if part.guard is not None), ""),
        by=by(cycle),
        outcome=worst(part.outcome for part in parts) if parts else None,
        as_of=root.as_of if root else None,
        counts=_summed(parts),
        closed=len(cycle.closed),
        announced=len({cycle.root} | cycle.announced | cycle.closed.keys()),
        guards=[part.guard for part in parts if part.guard is not None],
        notes=list(dict.fromkeys(note for part in parts for note in part.notes)),
        errors=[f"{part.key}: {part.error.class_}: {part.error.message}" for part in parts if part.error is not None],
        waiting=cycle.waiting if is_asked else [],
    )


def _parts(cycle: Cycle, subject: Subject) -> Iterator[Closed]:
    is_about: dict[Kind, Callable[[Closed], bool]] = {
        "cycle": lambda _: cycle.root == subject.name,
        "node": lambda part: part.key.split(" ")[0] == subject.name,
        "dataset": lambda part: _names(part, subject.name),
        "block": lambda part: _names(part, subject.name),
    }
    return (part for part in cycle.closed.values() if is_about[subject.kind](part))


def _names(part: Closed, begin: str) -> bool:
    """True where a part names a block or dataset that begins so."""
    lists = (*part.names.values(), part.notes, part.key.split(" "))
    return any(name.startswith(begin) for listed in lists for name in listed)


def _is_asked(cycle: Cycle, subject: Subject) -> bool:
    """True where the cycle was asked for about just this."""
    asked = cycle.command
    if subject.kind == "cycle":
        return cycle.root == subject.name
    if subject.kind == "node":
        return asked.get("node") == subject.name
    blocks = asked.get("blocks")
    found = [asked.get("dataset"), *(blocks if isinstance(blocks, list) else [])]
    return any(isinstance(name, str) and name.startswith(subject.name) for name in found)


def _summed(parts: Iterable[Closed]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        for name, number in part.counts.items():
            total[name] = total.get(name, 0) + number
    return total
