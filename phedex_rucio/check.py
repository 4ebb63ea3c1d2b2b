"""Do the broker, PhEDEx and Rucio answer, each with these settings, and are the queues what they should be?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click
import msgspec

from common.broker.drift import MISSING, Drift, drifts
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
    """Ask each system with a small real question, and compare the queues with what `setup` declares.

    Exit code 1 where a queue would lose messages, 3 where one differs otherwise, 5 where a system is away, 6 where
    Rucio refuses us.
    """
    found = {system: _answer(ask) for system, ask in _questions(loaded).items()}
    differing = [] if found[System.BROKER] else drifts(loaded.settings.main)
    lines = [(str(system), "fails" if error else "answers", _text(error)) for system, error in found.items()]
    if as_json:
        systems: dict[str, object] = {system: {"state": state, "error": error} for system, state, error in lines}
        output.show_json(systems | {"queues": [msgspec.to_builtins(drift) for drift in differing]})
    else:
        output.show_table(("SYSTEM", "STATE", "ERROR"), lines)
        _tell(differing)
    return max((output.exit_code_of(error) for error in found.values() if error), default=exit_of(differing))


def exit_of(differing: Sequence[Drift]) -> int:
    """1 if anything loses messages, 3 if anything differs; what is missing is declared by whoever starts first."""
    if any(drift.is_dangerous for drift in differing):
        return Exit.FAILED
    return Exit.DIFFERENCES if any(drift.argument != MISSING for drift in differing) else Exit.DONE


def _tell(differing: Sequence[Drift]) -> None:
    for drift in differing:
        output.say(f"{'DANGEROUS: ' if drift.is_dangerous else ''}{drift}")
    if any(drift.is_dangerous for drift in differing):
        output.note("Messages can be lost: stop the workers, empty and delete such a queue, then `phedex-rucio setup`.")


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
