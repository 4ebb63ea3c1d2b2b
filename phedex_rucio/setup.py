"""Is all there that the sync needs? The queues; and for nodes their RSEs, accounts, distances, and a first sync."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import click

from common.errors import UsageError
from common.messages.commands import Command, SyncSite
from common.messages.setup import Account, Link, Rse, RseOptions
from common.names import sync_account
from common.outcome import Exit
from common.settings.load import Loaded
from common.settings.model import Settings
from common.sync.words import count
from consumers.setup.naming import KINDS, RseKind, rse_of
from phedex_rucio import broker, deliver, output, wiring
from phedex_rucio.options import as_json, with_settings
from phedex_rucio.roots import rooted

CANARY = 5


@click.command("setup")
@click.argument("nodes", nargs=-1, metavar="[NODE...]")
@click.option("--type", "types", multiple=True, type=click.Choice(KINDS), help="RSEs of these types; else all three.")
@click.option("--fts", default="", metavar="URL", help="The FTS server; else what the nodes' agents said.")
@click.option("--phedex-links", is_flag=True, help="Distances by PhEDEx' links; else by country.")
@click.option("--canary", default=CANARY, show_default=True, type=click.IntRange(1), help="Blocks of the first sync.")
@click.option("--no-sync", is_flag=True, help="Set up only.")
@click.option("--timeout", type=click.FloatRange(0), help="Give up looking at a step after so many seconds.")
@click.option("--local", is_flag=True, help="Do the work in this process, without broker and workers.")
@as_json
@with_settings
def command(
    *, nodes: Sequence[str], timeout: float | None, local: bool, as_json: bool, loaded: Loaded, **options: Any
) -> int:
    """Declare the exchanges and queues that are missing; with NODEs, set the sites up and sync them.

    In this order, each step to its end before the next: RSEs, accounts, distances, a sync of a few blocks, the whole
    sync. What is there stays as it is, so it may be run again at any time; it stops at the first step that fails.
    """
    if not local:
        created = broker.declare(loaded.settings.main)
        if not nodes:
            return _declared(created, as_json)
    _check(nodes, loaded.settings)
    how = deliver.How(wait=not local, timeout=timeout, local=local, as_json=as_json)
    for name, roots in _steps(list(dict.fromkeys(nodes)), loaded.settings, **options):
        output.note(f"{name}: {count(len(roots), 'command')}")
        code = deliver.deliver([rooted(root) for root in roots], how, loaded.settings)
        if code != Exit.DONE:
            output.note(f"{name}: not done, so nothing after it is tried; run it again when it is mended")
            return code
    return Exit.DONE


def _declared(created: Sequence[str], as_json: bool) -> int:
    if as_json:
        output.show_json({"created": created})
        return Exit.DONE
    for name in created:
        output.say(f"created {name}")
    output.say("All exchanges and queues are there.")
    return Exit.DONE


def _check(nodes: Sequence[str], settings: Settings) -> None:
    """Every step can name what it is about: said before the first one writes anything.

    Raises UnknownNode, and UsageError for a tape, or an account's name that would be too long.
    """
    with wiring.Doors(settings).phedex as phedex:
        for node in nodes:
            phedex.check_node(node)
            try:
                settings.site(node).account or sync_account(_rse(node, "real", settings))
            except ValueError as error:
                raise UsageError(f"{node}: {error}") from None


def _steps(
    nodes: Sequence[str],
    settings: Settings,
    *,
    types: Sequence[RseKind],
    fts: str,
    phedex_links: bool,
    canary: int,
    no_sync: bool,
) -> Iterator[tuple[str, list[Command]]]:
    """The steps by name, each with the commands that make it."""
    kinds = list(dict.fromkeys(types or KINDS))
    yield (
        "RSEs",
        [
            Rse(node=node, type=kind, options=RseOptions(fts=fts, rse=_by_hand(node, kind, settings)))
            for node in nodes
            for kind in kinds
        ],
    )
    if "real" in kinds:
        yield "accounts", [Account(rse=_rse(node, "real", settings)) for node in nodes]
    yield (
        "distances",
        [Link(source_rse=_rse(node, kind, settings), phedex_links=phedex_links) for node in nodes for kind in kinds],
    )
    if not no_sync and "real" in kinds:
        yield "canary", [SyncSite(node=node, limit=canary) for node in nodes]
        yield "sync", [SyncSite(node=node) for node in nodes]


def _rse(node: str, kind: RseKind, settings: Settings) -> str:
    return _by_hand(node, kind, settings) or rse_of(node, kind).rse


def _by_hand(node: str, kind: RseKind, settings: Settings) -> str:
    """The RSE that the settings name for a node; temporary and test RSEs follow from the node's own name."""
    return settings.site(node).rse if kind == "real" else ""
