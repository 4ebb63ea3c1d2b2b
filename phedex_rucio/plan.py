"""What would a sync of a node do? The observing code of the handler, and nothing written anywhere."""

from __future__ import annotations

from typing import Any

import click

from common.errors import NotOurs
from common.messages.codec import checked
from common.messages.commands import SyncSite
from common.outcome import Exit
from common.rucio import announcements, one_block
from common.rucio.rses import attributes_of
from common.settings.load import Loaded
from common.sync import render
from consumers.planning.observe import observe
from phedex_rucio import output, wiring
from phedex_rucio.options import as_json, with_settings


@click.command("plan")
@click.argument("node")
@click.option("--dataset", default="*", help="A dataset or pattern; else all.")
@click.option("--select", default="", metavar="RE", help="Only blocks whose name matches (RE2).")
@click.option("--ignore", default="", metavar="RE", help="Without blocks whose name matches (RE2).")
@click.option("--limit", type=click.IntRange(1), help="At most so many blocks to add or update.")
@as_json
@with_settings
def command(node: str, as_json: bool, loaded: Loaded, **fields: Any) -> int:
    """Show what a sync of NODE would add, update and remove, what the guard says of it, and what is marked already.

    Exit code 0: in sync, 3: differences.
    """
    asked = checked(SyncSite(node=node, **fields))
    assert isinstance(asked, SyncSite)
    world = wiring.engine(loaded.settings).world(lambda: None)
    try:
        observed = observe(asked, world)
    except NotOurs as reason:
        output.show_json({"node": node, "skipped": str(reason)}) if as_json else output.say(f"Skipped: {reason}")
        return Exit.DONE
    plan, rules = observed.plan, observed.rules
    found = announcements.of(attributes_of(world.rucio, plan.rse) or {})
    sweeping = one_block.sweeping(found, loaded.settings.main.announcement_lifetime)
    if as_json:
        output.show_json(render.as_data(plan, rules, sweeping))
    else:
        for line in render.as_lines(plan, rules, sweeping, now=observed.at):
            output.say(line)
    return Exit.DONE if plan.in_sync else Exit.DIFFERENCES
