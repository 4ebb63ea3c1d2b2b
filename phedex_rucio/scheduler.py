"""How does a scheduler process start and stop, and what is on its agenda?"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime

import click

from common.broker.beats import VERSION, beating
from common.broker.streams import attach
from common.messages.beats import Beat
from common.messages.meta import now as time_of_day
from common.outcome import Exit
from common.settings.load import Loaded
from common.settings.model import Main, Settings
from common.settings.original import level_of
from common.settings.watched import Watched
from common.telemetry import logs
from phedex_rucio import monitoring, output
from phedex_rucio.options import as_json, with_settings
from phedex_rucio.signals import on_stop
from producers.agenda import Moment, Turn, agenda
from producers.scheduler import Scheduler, read_history
from producers.timetable import timetable


@click.command("scheduler")
@click.option("--once", is_flag=True, help="One round of what is due, then exit: for cron.")
@click.option("--dry-run", is_flag=True, help="Show what is due, what when, and why not yet; send nothing.")
@monitoring.port_option
@as_json
@with_settings
def command(once: bool, dry_run: bool, metrics_port: int | None, as_json: bool, loaded: Loaded) -> int:
    """Send what is due by the clock: every site that has a section, `datasets` and `schedule` of the settings.

    Start as many as you like: one is active, the others stand by. It ends at SIGTERM or Ctrl-C, and where `main.run`
    is off, once its open cycles have ended; the exit code is 0.
    """
    if dry_run:
        return _show(loaded.settings, as_json)
    debug = click.get_current_context().params["debug"]
    main, started = monitoring.with_port(loaded.settings, metrics_port).main, time_of_day()
    logs.setup("DEBUG" if debug else "", default=level_of(main.verbosity) or "INFO", form=main.log_format)
    scheduler = Scheduler(Watched(loaded, look_every=1.0), f"{socket.gethostname()}-{os.getpid()}", once=once)
    on_stop(scheduler.stop)
    with _watched_by_others(scheduler, main, started) if not once else nullcontext():
        scheduler.run()
    return Exit.DONE


@contextmanager
def _watched_by_others(scheduler: Scheduler, main: Main, started: datetime) -> Iterator[None]:
    """Beats are sent and the metrics port is served while the block lasts."""
    with (
        beating(main, scheduler.name, lambda: _beat(scheduler, main, started)) as beats,
        monitoring.monitored(main, scheduler.alive, scheduler.ready),
    ):
        scheduler.on_change = beats.nudge
        yield


def _beat(scheduler: Scheduler, main: Main, started: datetime) -> Beat:
    """How the scheduler is now."""
    return Beat(
        role="scheduler",
        name=scheduler.name,
        version=VERSION,
        state=scheduler.state,
        started=started,
        at=time_of_day(),
        every=main.beat,
        notes=scheduler.notes,
    )


def _show(settings: Settings, as_json: bool) -> int:
    main = settings.main
    with attach(main, "first", "command line") as stream:
        history, at = read_history(stream)
    moment = Moment(at, float("-inf"), main.pool, main.jitter, main.stalled_after)
    turns = agenda(timetable(settings, time_of_day(), time_of_day()), history, moment)
    if as_json:
        output.show_json([_plain(turn) for turn in turns])
        return Exit.DONE
    rows = [(t.entry.key, f"{t.entry.every:g} s", _last(t), _outcome(t), t.waits or _now(t)) for t in turns]
    output.show_table(("KEY", "EVERY", "LAST START", "OUTCOME", "NEXT"), rows)
    return Exit.DONE


def _now(turn: Turn) -> str:
    return "due now, deep" if turn.deep else "due now"


def _last(turn: Turn) -> str:
    return f"{datetime.fromtimestamp(turn.known.started, UTC):%Y-%m-%d %H:%M:%S}" if turn.known else "never"


def _outcome(turn: Turn) -> str:
    """How its last finished cycle ended."""
    return str(turn.known.outcome) if turn.known and turn.known.outcome else "-"


def _plain(turn: Turn) -> dict[str, object]:
    return {
        "key": turn.entry.key,
        "every": turn.entry.every,
        "last_start": _last(turn),
        "outcome": _outcome(turn),
        "now": not turn.waits,
        "waits": turn.waits,
        "deep": turn.deep,
        "stalled": turn.stalled,
    }
