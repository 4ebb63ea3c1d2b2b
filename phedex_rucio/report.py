"""How is the end of a sync shown? A table of what was done; what failed, on stderr; what should be known."""

from __future__ import annotations

from collections.abc import Sequence

from common.cycles import Cycle, Cycles
from common.outcome import Outcome
from common.sync.render import in_sync
from common.sync.words import count
from phedex_rucio import output, summary

# Columns in this order where any site has the count; other counts follow by name.
COLUMNS = {
    "created": "CREATED",
    "changed": "CHANGED",
    "disabled": "DISABLED",
    "added": "ADDED",
    "updated": "UPDATED",
    "marked": "MARKED",
    "swept": "SWEPT",
    "pending": "PENDING",
    "held": "HELD",
    "kept": "KEPT",
    "kept_last_copy": "LAST COPY",
    "locked": "LOCKED",
    "same": "UNCHANGED",
    "in_sync": "IN SYNC",
    "conflicts": "CONFLICTS",
    "withheld": "WITHHELD",
    "failed": "FAILED",
}
CHANGES_SHOWN = 40
_NOT_SHOWN = {*summary.TO_DO, "nodes", "phedex_requests", "rucio_requests"}


def show(state: Cycles, roots: Sequence[str], as_json: bool) -> int:
    """Show what became of the cycles of these roots; the exit code."""
    if as_json:
        output.show_json(summary.as_data(state, roots))
        return summary.exit_of(state, roots)
    rows = summary.rows(state.by_name.get(root, Cycle(root=root)) for root in roots)
    if rows and all(_nothing_done(row) for row in rows):
        _each_in_sync(rows)
    elif rows:
        _table(rows)
    _changes(rows)
    _details(rows)
    return summary.exit_of(state, roots)


def _nothing_done(row: summary.Row) -> bool:
    return row.outcome is Outcome.IN_SYNC


def _each_in_sync(rows: Sequence[summary.Row]) -> None:
    for row in rows:
        if any(kind.startswith("sync.") for kind in row.kinds):
            output.say(in_sync(row.counts.get("same", 0) + row.counts.get("in_sync", 0), row.about))
        else:
            output.say(f"Nothing to change: {row.about}, {' and '.join(sorted(row.kinds))}")


def _table(rows: Sequence[summary.Row]) -> None:
    columns = _columns(rows)
    header = ["SITE", "OUTCOME", *(COLUMNS.get(name, name.upper().replace("_", " ")) for name in columns)]
    output.show_table(header, [[row.about, row.outcome, *(row.counts.get(c, 0) for c in columns)] for row in rows])


def _columns(rows: Sequence[summary.Row]) -> list[str]:
    found = {name for row in rows for name, number in row.counts.items() if number}
    others = sorted(found - COLUMNS.keys() - _NOT_SHOWN)
    return [name for name in COLUMNS if name in found] + others


def _changes(rows: Sequence[summary.Row]) -> None:
    """What was written at the sites that were set up, or would be: each difference on a line."""
    found = [(key, change) for row in rows for key, change in row.changes]
    if not found:
        return
    output.say()
    cells = [(key, change.what, change.name, change.was or "-", change.wants or "-") for key, change in found]
    output.show_table(["OF", "WHAT", "NAME", "WAS", "BECOMES"], cells[:CHANGES_SHOWN])
    if len(found) > CHANGES_SHOWN:
        output.say(f"… {count(len(found) - CHANGES_SHOWN, 'more change')} (--json lists all)")


def _details(rows: Sequence[summary.Row]) -> None:
    for row in rows:
        for error in row.errors[: summary.NOTES]:
            output.note(f"failed: {error}")
        if len(row.errors) > summary.NOTES:
            output.note(f"failed: {len(row.errors) - summary.NOTES:,} more at {row.about} (--json lists all)")
        for note in row.notes[: summary.NOTES]:
            output.say(note if note.startswith(row.about) else f"{row.about}: {note}")
