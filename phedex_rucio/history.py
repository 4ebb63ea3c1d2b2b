"""What was done at a site, with a dataset or a block, or in a cycle? Told from the stream of events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import click
from msgspec.structs import replace

from common import cycles, names
from common.broker.past import past
from common.broker.topology import EVENTS
from common.messages.codec import decode_event
from common.messages.events import Away, Back, Closed, Event
from common.messages.meta import now
from common.outcome import Exit
from common.settings.load import Loaded
from common.settings.model import Main
from phedex_rucio import letters, output
from phedex_rucio.options import as_json, with_settings
from phedex_rucio.overview import told
from phedex_rucio.overview.told import Chapter, Deed, Subject
from phedex_rucio.overview.words import age
from phedex_rucio.report import COLUMNS

LIMIT = 20
NOTES = 5


@click.command("history")
@click.argument("name", metavar="NODE|BLOCK|DATASET|CYCLE")
@click.option("--since", default="30d", show_default=True, metavar="TIME", help="30d, 2h, or 2026-01-31T12:00 (UTC).")
@click.option(
    "--limit", type=click.IntRange(0), default=LIMIT, show_default=True, help="The newest so many; 0 shows all."
)
@as_json
@with_settings
def command(name: str, since: str, limit: int, as_json: bool, loaded: Loaded) -> int:
    """What was done at a NODE, with a DATASET or BLOCK, or in a CYCLE: when, by whom, with what outcome.

    The broker keeps events for 30 days. Exit code 1: none of them is about this.
    """
    subject = told.subject_of(name)
    state = read(loaded.settings.main, subject, letters.since(since, now()))
    found = told.chapters(state.by_name.values(), subject)
    done = told.deeds(state.by_name.values(), subject.name) if subject.kind == "block" else []
    if as_json:
        output.show_json({"subject": subject, "chapters": found[-limit:], "deeds": done[-limit:]})
    elif subject.kind == "block" and done:
        _tell_deeds(subject, done, limit)
    else:
        _tell(found, limit)
    if not found and not done:
        output.note(f"{output.NAME}: {name}: no event is about this {subject.kind} (--since {since})")
    return Exit.DONE if found or done else Exit.FAILED


def read(main: Main, subject: Subject, begin: datetime) -> cycles.Cycles:
    """The cycles since then that may be about the subject; the others are forgotten when they have ended."""
    needle = subject.name.encode()
    state, meant = cycles.Cycles(), set[str]()

    def decode(body: bytes) -> Event | None:
        event = decode_event(body)
        if event is None or isinstance(event, Away | Back):
            return None
        if needle in body:
            meant.add(event.cycle)
            return event
        return slim(event)

    events: Iterator[Event] = past(main, EVENTS, begin, decode)
    for event in events:
        cycles.apply(state, event)
        if isinstance(event, Closed) and event.cycle not in meant:
            _forget(state, event.cycle)
    return state


def slim(event: Event) -> Event:
    """The event without what may be large: a month of names does not fit into memory."""
    return replace(event, names={}, notes=[]) if isinstance(event, Closed) else event


def _forget(state: cycles.Cycles, name: str) -> None:
    cycle = state.by_name[name]
    if len(cycle.closed) > len(cycle.announced) and cycle.finished:
        del state.by_name[name]


def _tell_deeds(subject: Subject, done: Sequence[Deed], limit: int) -> None:
    output.say(subject.name)
    shown = done[-limit:]
    rows = [(f"{one.at:%Y-%m-%d %H:%M:%S}", one.node, one.what, one.by, one.cycle) for one in shown]
    output.show_table(("WHEN (UTC)", "SITE", "WHAT", "BY", "CYCLE"), rows)
    for one in shown:
        if one.note and one.note != one.what:
            output.say(f"{one.at:%Y-%m-%d %H:%M:%S}  {one.note}")
    _tell_more(len(done), len(shown), "deeds")


def _tell(found: Sequence[Chapter], limit: int) -> None:
    shown = found[-limit:]
    for number, one in enumerate(shown):
        if number:
            output.say()
        for line in _lines(one):
            output.say(line)
    _tell_more(len(found), len(shown), "cycles")


def _tell_more(found: int, shown: int, what: str) -> None:
    if shown < found:
        output.note(f"The newest {shown:,} of {found:,} {what} are shown; --limit 0 shows all.")


def _lines(one: Chapter) -> Iterator[str]:
    yield f"{one.at:%Y-%m-%d %H:%M:%S}  {one.command}  {_outcome(one)}"
    as_of = f", PhEDEx as of {one.as_of:%Y-%m-%d %H:%M:%S}" if one.as_of else ""
    yield f"    cycle {one.cycle}, by {one.by}{as_of}"
    if counted := _counted(one.counts):
        yield f"    {counted}"
    for guard in one.guards:
        approved = f"approved by {guard.approved_by}: {guard.reason}" if guard.approved_by else ""
        yield f"    guard: {'; '.join(filter(None, [*guard.says, approved])) or guard.limit}"
        if guard.held and names.is_node(one.node):
            yield f"      → phedex-rucio plan {one.node}"
    for note in one.notes[:NOTES]:
        yield f"    {note}"
    for error in one.errors[:NOTES]:
        yield f"    failed: {error}"
    for retry in one.waiting[:NOTES]:
        yield f"    try {retry.attempt + 1} at {retry.next_at:%H:%M:%S}: {retry.error.class_}: {retry.error.message}"
    hidden = sum(max(0, len(items) - NOTES) for items in (one.notes, one.errors, one.waiting))
    if hidden:
        yield f"    … {hidden:,} more lines (--json has all)"


def _outcome(one: Chapter) -> str:
    if one.ended is None:
        return f"open: {one.closed:,} of {one.announced:,} commands closed"
    return f"{one.outcome}, took {age(one.ended - one.at)}"


def _counted(counts: dict[str, int]) -> str:
    """The counts of the report, in its order, without what is nought."""
    return ", ".join(f"{counts[name]:,} {COLUMNS[name].lower()}" for name in COLUMNS if counts.get(name))
