"""How does a person have the distances between RSEs set?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from common.errors import UsageError
from common.messages.setup import EXCLUDED, Exclusion, Link, Scale
from common.rucio.rses import rses_of_type
from common.settings.load import Loaded
from common.sync.selection import whole
from consumers.setup import distances
from consumers.setup.naming import KINDS
from phedex_rucio import deliver, wiring
from phedex_rucio.delivery import with_delivery
from phedex_rucio.options import typed
from phedex_rucio.roots import rooted


@click.group("link")
def command() -> None:
    """Set the distances between RSEs."""


@command.command("update")
@click.option("--phedex-links", is_flag=True, help="Only where PhEDEx has a link, by its distance; else by country.")
@click.option("--overwrite", is_flag=True, help="Correct distances that are there.")
@click.option("--disable", is_flag=True, help="Drop distances that should not be there.")
@click.option("--rse", "rses", multiple=True, metavar="NAME", help="From this RSE (repeatable).")
@click.option("--src-select", default="", metavar="RE", help="From RSEs whose whole name matches (RE2).")
@click.option("--dst-select", default="", metavar="RE", help="To RSEs whose whole name matches (RE2).")
@click.option(
    "--distance", metavar="JSON", help='The numbers, smaller is nearer: {"site":1,"link":2,"region":3,"other":5}.'
)
@click.option(
    "--exclude",
    metavar="JSON",
    help='Pairs without a distance; else [{"dst":{"type":"real"}},{"dst":{"type":"temp"}}].',
)
@with_delivery
def update(
    *,
    rses: Sequence[str],
    src_select: str,
    distance: str | None,
    exclude: str | None,
    how: deliver.How,
    dry: bool,
    loaded: Loaded,
    **fields: Any,
) -> int:
    """Set the distances from RSEs to all others, by PhEDEx' links or by country. One command a source."""
    whole(fields["dst_select"], "--dst-select")
    scale = typed("--distance", distance, Scale) if distance else Scale()
    rules = typed("--exclude", exclude, tuple[Exclusion, ...]) if exclude else EXCLUDED
    distances.check(rules)
    sources = list(dict.fromkeys(rses)) if rses else _sources(src_select, loaded)
    roots = [rooted(Link(source_rse=rse, distance=scale, exclude=rules, dry=dry, **fields)) for rse in sources]
    return deliver.deliver(roots, how, loaded.settings)


def _sources(src_select: str, loaded: Loaded) -> list[str]:
    wanted = whole(src_select, "--src-select") if src_select else lambda _: True
    rucio = wiring.Doors(loaded.settings).rucio
    found = sorted(rse for kind in KINDS for rse in rses_of_type(rucio, kind) if wanted(rse))
    if not found:
        raise UsageError("--src-select: matches no RSE with the attribute cms_type")
    return found
