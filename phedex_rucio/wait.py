"""Is what was sent finished? Events folded until every cycle is, with the state shown meanwhile."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

import click

from common import cycles
from common.messages.commands import Command
from common.messages.events import Away, Back, Event
from common.messages.meta import now
from common.outcome import Exit
from common.settings.load import Loaded
from common.settings.model import Main
from phedex_rucio import broker, output, report, summary
from phedex_rucio.options import as_json, with_settings
from phedex_rucio.progress import Bar

log = logging.getLogger("phedex_rucio.wait")

# So far back a follower reads before what it waits for: then it knows which systems were away already.
LOOK_BACK = timedelta(hours=1)
CLOCKS = timedelta(minutes=10)


@click.command("wait")
@click.argument("names", nargs=-1, required=True, metavar="CYCLE...")
@click.option("--timeout", type=click.FloatRange(0), help="Give up looking after so many seconds.")
@as_json
@with_settings
def command(names: Sequence[str], timeout: float | None, as_json: bool, loaded: Loaded) -> int:
    """Follow cycles that were sent earlier until they are finished; their outcome is the exit code.

    Ctrl-C and --timeout end the looking, never the work.
    """
    with broker.events(loaded.settings.main, _start(names)) as stream:
        return _followed(stream, list(dict.fromkeys(names)), timeout, as_json)


def _start(names: Sequence[str]) -> datetime | Literal["first"]:
    begins = [begin for begin in map(begin_of, names) if begin is not None]
    return min(begins) if len(begins) == len(names) else "first"


def begin_of(cycle: str) -> datetime | None:
    """A time before the first event of a cycle, which its name tells; None for a name that tells no time."""
    try:
        sent = datetime.strptime(cycle.rpartition("@")[2].partition("-")[0], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
    return sent - CLOCKS


def sent_and_followed(main: Main, roots: Sequence[Command], timeout: float | None, as_json: bool) -> int:
    """The roots are sent, and followed to their end; the exit code. Attached first, so that no event is missed."""
    with broker.events(main, now() - LOOK_BACK) as stream:
        broker.publish(main, roots)
        return _followed(stream, [root.meta.cycle for root in roots], timeout, as_json)


def _followed(stream: broker.EventStream, names: list[str], timeout: float | None, as_json: bool) -> int:
    state = cycles.Cycles()
    deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
    try:
        log.debug("following", extra={"cycles": names})
        with Bar(names) as bar:
            follow(state, names, stream.until(deadline), bar)
    except KeyboardInterrupt:
        output.note(_goes_on(names))
        return Exit.INTERRUPTED
    if not summary.finished(state, names):
        _tell_unfinished(state, names, timeout)
    return report.show(state, names, as_json)


def follow(state: cycles.Cycles, names: Sequence[str], events: Iterable[Event | None], bar: Bar) -> None:
    """The events of these cycles are folded into the state, until all are finished or the events end."""
    wanted = set(names)
    for event in events:
        if event is not None and (isinstance(event, Away | Back) or event.cycle in wanted):
            cycles.apply(state, event)
        bar.show(state)
        if event is not None and summary.finished(state, names):
            return


def _goes_on(names: Sequence[str]) -> str:
    return f"The work goes on. Follow it: {output.NAME} wait {' '.join(names)}"


def _tell_unfinished(state: cycles.Cycles, names: Sequence[str], timeout: float | None) -> None:
    now_at = summary.progress(state, names)
    unseen = [name for name in names if name not in state.by_name]
    output.note(f"Not finished after {timeout:g} s: {now_at.closed:,} of {now_at.announced:,} commands are closed.")
    for text in [f"no event of {name}: is its name right?" for name in unseen] + now_at.away + now_at.waiting[:3]:
        output.note(text)
    output.note(_goes_on(names))
