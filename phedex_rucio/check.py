"""Do the broker, PhEDEx and Rucio answer, each with these settings?"""

from __future__ import annotations

from collections.abc import Callable

import click

from common.errors import PhedexRucioError, System
from common.outcome import Exit
from common.settings.load import Loaded
from common.settings.model import Main
from common.telemetry.redact import redact
from phedex_rucio import broker, output, wiring
from phedex_rucio.options import as_json, with_settings


@click.command("check")
@as_json
@with_settings
def command(as_json: bool, loaded: Loaded) -> int:
    """Ask each system with a small real question; exit code 5 where one is away, 6 where Rucio refuses us."""
    found = {system: _answer(ask) for system, ask in _questions(loaded).items()}
    lines = [(str(system), "fails" if error else "answers", _text(error)) for system, error in found.items()]
    if as_json:
        output.show_json({system: {"state": state, "error": error} for system, state, error in lines})
    else:
        output.show_table(("SYSTEM", "STATE", "ERROR"), lines)
    return max((output.exit_code_of(error) for error in found.values() if error is not None), default=Exit.DONE)


def _questions(loaded: Loaded) -> dict[System, Callable[[], None]]:
    main: Main = loaded.settings.main
    return {System.BROKER: lambda: broker.reach(main), **wiring.Doors(loaded.settings).probes()}


def _answer(ask: Callable[[], None]) -> PhedexRucioError | None:
    try:
        ask()
    except PhedexRucioError as error:
        return error
    return None


def _text(error: PhedexRucioError | None) -> str:
    return redact(str(error)) if error else ""
