"""How does a person take a removal back, while the mark lasts?"""

from __future__ import annotations

from collections.abc import Sequence

import click

from common import names
from common.errors import NotOurs, UsageError
from common.messages.meta import now
from common.outcome import Exit
from common.rucio.rses import Site, find_site
from common.rucio.session import Rucio
from common.rucio.undo import Done, Order, undo
from common.settings.load import Loaded
from common.sync.keep import Undone
from phedex_rucio import output, wiring
from phedex_rucio.options import as_json, with_settings
from phedex_rucio.roots import sender

SAID = {
    Undone.KEPT: "kept: not marked again until PhEDEx has had the block back, or --clear",
    Undone.CLEARED: "cleared: may be marked again",
    Undone.SWEPT: "too late: swept already, or its rule is over",
    Undone.UNSURE: "not known yet: a sweep of it is under way and has not ended; ask again",
    Undone.NOT_MARKED: "nothing to take back",
    Undone.NO_RULE: "no rule of this site: never synced, or gone already",
}
TOO_LATE = (Undone.SWEPT, Undone.UNSURE, Undone.NO_RULE)


@click.command("undo")
@click.argument("asked", nargs=-1, required=True, metavar="CYCLE|BLOCK...")
@click.option("--node", required=True, help="The site whose marks are taken back.")
@click.option("--clear", is_flag=True, help="Forget an earlier undo: the blocks may be marked again.")
@click.option("--dry-run", "dry", is_flag=True, help="Show what would be taken back; write nothing.")
@as_json
@with_settings
def command(asked: Sequence[str], *, node: str, clear: bool, dry: bool, as_json: bool, loaded: Loaded) -> int:
    """Take marks for removal back: those that a CYCLE made, or those of single BLOCKs.

    Exit code 0: all of it, 1: something was swept already, may have been, or has no rule that stands (see which).
    """
    _check(asked)
    rucio = wiring.Doors(loaded.settings).rucio
    order = Order(asked=frozenset(asked), clear=clear, dry=dry, by=sender(), at=f"{now():%Y-%m-%dT%H:%M:%SZ}")
    done = undo(rucio, _site(rucio, node, loaded), order)
    if as_json:
        output.show_json({"node": node, "dry": dry, "blocks": {one.block: one.state for one in done}})
    else:
        _show(done, dry)
    return Exit.FAILED if any(one.state in TOO_LATE for one in done) else Exit.DONE


def _check(asked: Sequence[str]) -> None:
    for one in asked:
        if one.startswith("/") and not names.is_block(one):
            raise UsageError(f"{one}: neither a cycle nor a block such as /Primary/Processed/TIER#id (quote the #)")


def _site(rucio: Rucio, node: str, loaded: Loaded) -> Site:
    site = find_site(rucio, node, loaded.settings.site(node))
    if site is None:
        raise NotOurs(f"{node}: no RSE with the attributes cms_type=real and pnn={node}: nothing was removed there")
    return site


def _show(done: Sequence[Done], dry: bool) -> None:
    if not done:
        output.say("Nothing is marked by that; what was swept is told by the events of its cycle.")
        return
    output.show_table(("BLOCK", "STATE"), [(one.block, SAID[one.state]) for one in done])
    if dry:
        output.say("dry: nothing was written")
