"""Are the exchanges and queues there? Declares what is missing and changes nothing that is there."""

from __future__ import annotations

import click

from common.outcome import Exit
from common.settings.load import Loaded
from phedex_rucio import broker, output
from phedex_rucio.options import as_json, with_settings


@click.command("setup")
@as_json
@with_settings
def command(as_json: bool, loaded: Loaded) -> int:
    """Declare the exchanges and queues that are missing. May be run at any time, as often as one likes."""
    created = broker.declare(loaded.settings.main)
    if as_json:
        output.show_json({"created": created})
        return Exit.DONE
    for name in created:
        output.say(f"created {name}")
    output.say("All exchanges and queues are there.")
    return Exit.DONE
