"""What was done and what failed, site by site? Pure: cycles in, rows out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import Struct, field

from common.cycles import Cycle, Cycles
from common.messages.events import Change, Closed, GuardReport
from common.outcome import Exit, Outcome, exit_code, worst
from consumers.apply.batch import Fate

NOTES = 20
TO_DO = ("to_add", "to_update", "to_mark", "to_sweep")  # what a plan sends out, block by block


class Row(Struct, kw_only=True):
    """What became of one site (or of the dataset that was asked for). `changes`: each with the key of its command."""

    about: str
    kinds: set[str] = field(default_factory=set)
    outcome: Outcome = Outcome.IN_SYNC
    counts: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    changes: list[tuple[str, Change]] = field(default_factory=list)
    guard: list[GuardReport] = field(default_factory=list)


class Progress(Struct, frozen=True, kw_only=True):
    """How far some cycles are: commands closed of those announced, retries that wait, systems that are away."""

    closed: int
    announced: int
    blocks: int
    to_do: int
    waiting: list[str]
    away: list[str]


def rows(cycles: Iterable[Cycle]) -> list[Row]:
    """One row a site in order of name; a part that fanned out and had nothing to say has no row."""
    parts: dict[str, list[Closed]] = {}
    for cycle in cycles:
        for closed in cycle.closed.values():
            parts.setdefault(closed.key.split(" ")[0], []).append(closed)
    found = [_row(about, closed) for about, closed in sorted(parts.items())]
    return [row for row in found if not _only_fanned_out(row)]


def _row(about: str, parts: Iterable[Closed]) -> Row:
    row = Row(about=about)
    for closed in sorted(parts, key=lambda part: part.at):
        row.kinds.add(closed.command)
        row.outcome = worst((row.outcome, closed.outcome))
        for name, number in closed.counts.items():
            row.counts[name] = row.counts.get(name, 0) + number
        row.notes += [note for note in closed.notes if note not in row.notes]
        row.changes += [(closed.key, change) for change in closed.changes]
        row.guard += [closed.guard] if closed.guard else []
        if closed.error is not None:
            row.errors.append(f"{closed.key}: {closed.error.class_}: {closed.error.message}")
    return row


def _only_fanned_out(row: Row) -> bool:
    return row.about.startswith("/") and row.outcome is Outcome.IN_SYNC and not row.notes


def progress(state: Cycles, roots: Iterable[str]) -> Progress:
    """How far the cycles of these roots are. `blocks`: handled of those that plans so far want to work on."""
    cycles = [state.by_name.get(root, Cycle(root=root)) for root in roots]
    closed = [part for cycle in cycles for part in cycle.closed.values()]
    return Progress(
        closed=len(closed),
        announced=sum(len({cycle.root} | cycle.announced | cycle.closed.keys()) for cycle in cycles),
        blocks=sum(part.counts.get(fate, 0) for part in closed if part.command == "sync.blocks" for fate in Fate),
        to_do=sum(part.counts.get(name, 0) for part in closed for name in TO_DO),
        waiting=[
            f"try {retry.attempt + 1} at {retry.next_at:%H:%M:%S} UTC: {retry.error.message}"
            for cycle in cycles
            for retry in cycle.waiting
        ],
        away=[
            f"{away.system} is away for {away.worker} since {away.since:%H:%M:%S} UTC" for away in state.away.values()
        ],
    )


def finished(state: Cycles, roots: Iterable[str]) -> bool:
    """True once every one of these cycles is finished."""
    return all(root in state.by_name and state.by_name[root].finished for root in roots)


def exit_of(state: Cycles, roots: Iterable[str]) -> int:
    """The exit code: of finished cycles by their outcomes; of others 5 where a system is away, else 1."""
    names = list(roots)
    if not finished(state, names):
        return Exit.AWAY if state.away else Exit.FAILED
    return exit_code(part.outcome for name in names for part in state.by_name[name].closed.values())


def as_data(state: Cycles, roots: Iterable[str]) -> dict[str, Any]:
    """The same for programs."""
    names = list(roots)
    cycles = [state.by_name.get(name, Cycle(root=name)) for name in names]
    return {
        "finished": finished(state, names),
        "exit": exit_of(state, names),
        "cycles": [_cycle(cycle) for cycle in cycles],
        "sites": rows(cycles),
        "away": sorted({str(away.system) for away in state.away.values()}),
    }


def _cycle(cycle: Cycle) -> dict[str, Any]:
    return {
        "cycle": cycle.root,
        "finished": cycle.finished,
        "outcome": cycle.outcome if cycle.closed else None,
        "counts": cycle.counts,
        "open": len(cycle.open),
        "retrying": cycle.waiting,
    }
