"""How is it? What is wrong first, in words; then queues, workers and sites."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from common.errors import System
from common.messages.meta import now
from common.outcome import Exit
from common.settings.load import Loaded
from phedex_rucio import letters, output, status_shown
from phedex_rucio.options import as_json, with_settings
from phedex_rucio.overview.facts import Facts
from phedex_rucio.overview.wrong import problems
from phedex_rucio.status_looks import Looks
from phedex_rucio.status_shown import Line

EVERY = 5.0
SLOW = "Reading the events since {}; with --since -1h it is faster."
PIPED = 120  # columns where nobody says how many there are


@click.command("status")
@click.option(
    "--watch",
    type=click.FloatRange(1),
    is_flag=False,
    flag_value=EVERY,
    metavar="[SECONDS]",
    help="Look again and again.",
)
@click.option(
    "--since",
    default="24h",
    show_default=True,
    metavar="TIME",
    help="Read the events since: 24h, 7d, or 2026-01-31T12:00 (UTC).",
)
@click.option("--no-rucio", is_flag=True, help="Do not ask Rucio, neither for life nor for the sites' switches.")
@as_json
@with_settings
def command(watch: float | None, since: str, no_rucio: bool, as_json: bool, loaded: Loaded) -> int:
    """How is it? What is wrong first, each with what to type next; then systems, queues, workers and sites.

    Exit code 0: nothing is wrong, 3: something is, 5: the broker is away, so that little is known.
    """
    begin = letters.since(since, now())
    looks = Looks(loaded.settings, now() - begin, ask_rucio=not no_rucio, slow=lambda: output.note(SLOW.format(since)))
    try:
        if watch is None:
            return _once(looks.look(), as_json)
        return _watched(looks, watch, as_json)
    finally:
        looks.close()


def exit_of(facts: Facts) -> int:
    """0: all is well, 3: something is wrong, 5: the broker is away."""
    if any(answer.system is System.BROKER and answer.error for answer in facts.answers):
        return Exit.AWAY
    return Exit.DIFFERENCES if any(problem.level == "wrong" for problem in problems(facts)) else Exit.DONE


def _once(facts: Facts, as_json: bool) -> int:
    if as_json:
        output.show_json(status_shown.as_data(facts))
    else:
        _console().print(_page(status_shown.lines(facts, _width())), end="")
    return exit_of(facts)


def _watched(looks: Looks, every: float, as_json: bool) -> int:
    """Until Ctrl-C; in place on a terminal, elsewhere one page after the other."""
    if as_json or not sys.stdout.isatty():
        for facts in _again_and_again(looks, every):
            _once(facts, as_json)
            output.say()
    with Live(console=_console(), screen=False, auto_refresh=False, vertical_overflow="crop") as live:
        for facts in _again_and_again(looks, every):
            live.update(_page(status_shown.lines(facts, _width())), refresh=True)
    return Exit.DONE


def _again_and_again(looks: Looks, every: float) -> Iterator[Facts]:
    while True:
        yield looks.look()
        time.sleep(every)


def _console() -> Console:
    return Console(width=_width(), highlight=False, markup=False, soft_wrap=True)


def _width() -> int:
    return shutil.get_terminal_size((PIPED, 40)).columns if sys.stdout.isatty() else PIPED


def _page(lines: list[Line]) -> Text:
    page = Text()
    for text, style in lines:
        page.append(text + "\n", style or None)
    return page
