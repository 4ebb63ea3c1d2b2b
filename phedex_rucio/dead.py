"""What failed for good, and what becomes of it? List, show, replay, drop and load dead letters."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from common.errors import BrokerError, UsageError
from common.messages.commands import KINDS
from common.messages.meta import now
from common.outcome import Exit
from common.settings.load import Loaded
from common.sync.selection import compiled
from phedex_rucio import broker, dead_work, letters, output
from phedex_rucio.dead_work import Choice, Tally
from phedex_rucio.letters import Story, Summary, Wanted
from phedex_rucio.options import as_json, with_settings
from phedex_rucio.roots import sender

R = TypeVar("R")
SHOWN = 100
HEADER = ("ID", "KIND", "KEY", "TRIES", "FIRST", "LAST", "ERROR")


@dataclass(frozen=True)
class Filters:
    """The options that narrow, as they were typed."""

    queue: str | None
    node: str | None
    error: str | None
    since: str | None

    @property
    def are_given(self) -> bool:
        """True if any narrows."""
        return any((self.queue, self.node, self.error, self.since))

    def choice(self, ids: Sequence[str] = ()) -> Choice:
        """Which letters are meant; raises UsageError for an expression or a time that is none."""
        wanted = Wanted(
            ids=frozenset(ids) or None,
            node=compiled(self.node, "--node") if self.node else None,
            error=compiled(self.error, "--error") if self.error else None,
            since=letters.since(self.since, now()) if self.since else None,
        )
        return Choice([self.queue] if self.queue else list(KINDS), wanted)


def with_filters(wrapped: Callable[..., R]) -> Callable[..., R]:
    """Add --queue, --node, --error and --since; the command gets them as `filters`."""

    @click.option("--queue", type=click.Choice(list(KINDS)), help="Only the dead letters of this kind.")
    @click.option("--node", metavar="RE", help="Only of nodes that match (RE2, found anywhere).")
    @click.option("--error", metavar="RE", help="Only where `Class: message` of the last error matches (RE2).")
    @click.option("--since", metavar="TIME", help="Only what failed since: -2h, -30m, -7d, or 2026-01-31T12:00 (UTC).")
    @functools.wraps(wrapped)
    def command(*, queue: str | None, node: str | None, error: str | None, since: str | None, **others: Any) -> R:
        return wrapped(filters=Filters(queue, node, error, since), **others)

    return command


@click.group("dead")
def command() -> None:
    """The commands that failed for good: look, replay, drop, save and load. Looking loses nothing."""


@command.command("list")
@with_filters
@click.option("--limit", type=click.IntRange(0), default=SHOWN, show_default=True, help="Show so many; 0 shows all.")
@as_json
@with_settings
def list_(filters: Filters, limit: int, as_json: bool, loaded: Loaded) -> int:
    """List the dead letters, those that died first first, with totals a kind."""
    rows: list[Summary] = []
    matched, tally = dict.fromkeys(KINDS, 0), Tally()
    for _, one in dead_work.chosen(loaded.settings.main, filters.choice(), tally):
        matched[one.kind] += 1
        if not limit or len(rows) < limit:
            rows.append(one)
    if as_json:
        kinds = {kind: {"letters": total, "match": matched[kind]} for kind, total in tally.totals.items()}
        output.show_json({"kinds": kinds, "match": tally.matched, "letters": rows})
        return Exit.DONE
    if rows:
        _table(rows)
    for kind, total in tally.totals.items():
        if total:
            output.say(f"{kind}: {total:,} dead, {matched[kind]:,} match")
    if not any(tally.totals.values()):
        output.say("There are no dead letters.")
    if len(rows) < tally.matched:
        output.note(f"The first {len(rows):,} of {tally.matched:,} are shown; --limit 0 shows all.")
    return Exit.DONE


@command.command()
@click.argument("ident", metavar="ID")
@as_json
@with_settings
def show(ident: str, as_json: bool, loaded: Loaded) -> int:
    """Show one dead letter: the command, what it has been through, and what to type next."""
    choice = Choice(list(KINDS), Wanted(ids=frozenset([ident])))
    found = [letters.story(letter) for letter, _ in dead_work.chosen(loaded.settings.main, choice, Tally())]
    if not found:
        return _not_there([ident])
    if as_json:
        output.show_json(found)
        return Exit.DONE
    for one in found:
        _tell(one)
    return Exit.DONE


@command.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="All, or all that the filters leave.")
@with_filters
@click.option("--rate", metavar="N/s", help="At most so many a second (5/s), or a minute (30/m).")
@click.option("--dry-run", is_flag=True, help="Only list what would be replayed.")
@as_json
@with_settings
def replay(
    *,
    ids: Sequence[str],
    everything: bool,
    filters: Filters,
    rate: str | None,
    dry_run: bool,
    as_json: bool,
    loaded: Loaded,
) -> int:
    """Send dead letters again as commands: same id and history, attempts from the start, in the lane of people.

    A letter leaves the queue when the broker has confirmed its command: interrupted, it may come twice, never not.
    """
    main, choice, tally = loaded.settings.main, _meant(ids, everything, filters), Tally()
    speed = letters.rate(rate) if rate else None
    if dry_run:
        return _would_be("replayed", choice, ids, as_json, loaded)
    with _telling("replayed", tally), broker.publisher(main) as door:
        dead_work.replay(main, door, choice, speed, tally)
    return _done("replayed", tally, ids, as_json)


@command.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="All, or all that the filters leave.")
@with_filters
@click.option("--to", type=click.Path(path_type=Path, dir_okay=False), help="Keep them in this file (appended).")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
@with_settings
def drop(
    *,
    ids: Sequence[str],
    everything: bool,
    filters: Filters,
    to: Path | None,
    yes: bool,
    as_json: bool,
    loaded: Loaded,
) -> int:
    """Drop dead letters: asked first, kept in a file with --to. Who waits for them is told that they are dropped."""
    main, choice, tally = loaded.settings.main, _meant(ids, everything, filters), Tally()
    if not yes:
        agreed = _agreed(choice, to, loaded)
        if not agreed:
            return _done("dropped", tally, ids, as_json)
        choice = Choice(choice.kinds, dataclasses.replace(choice.wanted, ids=agreed))
    with _telling("dropped", tally), broker.publisher(main) as door:
        dead_work.drop(main, door, choice, dead_work.Kept(sender(), to), tally)
    return _done("dropped", tally, ids, as_json)


@command.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--dry-run", is_flag=True, help="Only check the file.")
@as_json
@with_settings
def load(file: Path, dry_run: bool, as_json: bool, loaded: Loaded) -> int:
    """Send the letters of a file that `drop --to` wrote, or a single JSON command. Twice is as good as once."""
    try:
        found = letters.loaded(file.read_bytes())
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror or error}") from error
    tally, word = Tally(), "could be loaded" if dry_run else "loaded"
    if dry_run:
        dead_work.load(None, found, tally)
        return _done(word, tally, (), as_json)
    with _telling(word, tally), broker.publisher(loaded.settings.main) as door:
        broker.declare(loaded.settings.main)
        dead_work.load(door, found, tally)
    return _done(word, tally, (), as_json)


def _meant(ids: Sequence[str], everything: bool, filters: Filters) -> Choice:
    if ids and (everything or filters.are_given):
        raise UsageError("either IDs, or --all with filters")
    if not ids and not everything:
        raise UsageError("nothing is chosen: give IDs, or --all (with --queue, --node, --error, --since to narrow it)")
    return filters.choice(ids)


def _agreed(choice: Choice, to: Path | None, loaded: Loaded) -> frozenset[str]:
    """The ids that a person has agreed to drop; none if there are none. Raises UsageError on no terminal."""
    if not sys.stdin.isatty():
        raise UsageError("drop asks first and there is no terminal to ask on: give --yes")
    tally = Tally()
    ids = frozenset(one.id for _, one in dead_work.chosen(loaded.settings.main, choice, tally))
    if ids:
        kept = f"kept in {to}" if to else "kept nowhere (--to FILE keeps them)"
        click.confirm(f"Drop {tally.matched:,} dead letters, {kept}?", abort=True, err=True)
    return ids


def _would_be(word: str, choice: Choice, ids: Sequence[str], as_json: bool, loaded: Loaded) -> int:
    tally = Tally()
    rows = [one for _, one in dead_work.chosen(loaded.settings.main, choice, tally)]
    tally.seen = {one.id for one in rows}
    tally.refused = {one.id: one.why_not for one in rows if one.why_not}
    tally.done = sum(not one.why_not for one in rows)
    if rows and not as_json:
        _table(rows)
    return _done(f"would be {word}", tally, ids, as_json)


@contextmanager
def _telling(word: str, tally: Tally) -> Iterator[None]:
    """An interruption in the middle says how far it got, and that going on is safe."""
    try:
        yield
    except (BrokerError, KeyboardInterrupt):
        output.note(f"{tally.done:,} letters were {word} before this; nothing is lost. Run it again for the rest.")
        raise


def _done(word: str, tally: Tally, ids: Sequence[str], as_json: bool) -> int:
    absent = letters.missing(ids, tally.seen)
    if as_json:
        output.show_json({word.replace(" ", "_"): tally.done, "refused": tally.refused, "not_found": absent})
    else:
        output.say(f"{tally.done:,} {word}")
        for ident, why in list(tally.refused.items())[:SHOWN]:
            output.note(f"{ident} cannot be sent: {why}")
        if len(tally.refused) > SHOWN:
            output.note(f"{len(tally.refused) - SHOWN:,} more cannot be sent (--json lists all)")
    if absent:
        _not_there(absent)
    return Exit.FAILED if tally.refused or absent else Exit.DONE


def _not_there(ids: Sequence[str]) -> int:
    for ident in ids:
        output.note(f"{output.NAME}: {ident}: no dead letter has this id; `phedex-rucio dead list` shows them")
    return Exit.FAILED


def _table(rows: Sequence[Summary]) -> None:
    output.show_table(HEADER, [_cells(one) for one in rows])


def _cells(one: Summary) -> tuple[object, ...]:
    times = [f"{at:%Y-%m-%d %H:%M:%S}" if at else "-" for at in (one.first_at, one.last_at)]
    error = letters.cut(f"{one.error}: {one.message}", 80)
    return (letters.cut(one.id, 60), one.kind, letters.cut(one.key, 60) or "-", one.attempts, *times, error)


def _tell(story: Story) -> None:
    one, meta = story.summary, story.meta
    for name, value in (("id", one.id), ("kind", one.kind), ("key", one.key), ("cycle", one.cycle), ("by", meta.by)):
        if value:
            output.say(f"{name:8} {letters.cut(value, 300)}")
    output.say(f"{'tries':8} {one.attempts}" + (", killed its worker" if meta.killed else ""))
    output.say()
    _tell_body(story)
    output.say()
    for error in meta.errors:
        output.say(f"{error.at:%Y-%m-%d %H:%M:%S}  {error.class_}: {error.message}")
    if not meta.errors:
        output.say(f"{one.error}: {one.message}")
    if meta.errors and meta.errors[-1].traceback:
        output.say(meta.errors[-1].traceback)
    output.say()
    for line in letters.next_steps(one):
        output.say(line)


def _tell_body(story: Story) -> None:
    if story.command is None:
        output.say(f"body{' (base64)' if story.is_base64 else ''}:")
        output.say(story.body)
        return
    output.show_json({name: value for name, value in story.command.items() if name != "meta"})
