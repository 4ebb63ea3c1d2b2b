"""How does a person ask for a sync: of sites, of datasets, or of single blocks?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from common.errors import UsageError
from common.messages.commands import Command, SyncDataset, SyncSite
from common.settings.load import Loaded
from phedex_rucio import deliver, expand
from phedex_rucio.options import as_json, with_settings
from phedex_rucio.roots import of_blocks, rooted


def _asked_for(wrapped: Callable[..., int]) -> Callable[..., int]:
    """The options that every sync has; --wait and what belongs to it come as `how`."""

    @click.option("--dry-run", "dry", is_flag=True, help="Read both sides and plan; write nothing.")
    @click.option("--deep", is_flag=True, help="Compare every file, not only names and numbers.")
    @click.option("--adds-only", is_flag=True, help="Add and update; remove nothing.")
    @click.option("--reason", default="", help="Why, for the record.")
    @click.option("--wait", is_flag=True, help="Follow the work to its end; else it is only sent.")
    @click.option("--timeout", type=click.FloatRange(0), help="With --wait: give up looking after so many seconds.")
    @click.option("--local", is_flag=True, help="Do the work in this process, without broker and workers.")
    @as_json
    @with_settings
    def command(*, wait: bool, timeout: float | None, local: bool, as_json: bool, loaded: Loaded, **others: Any) -> int:
        how = deliver.How(wait=wait, timeout=timeout, local=local, as_json=as_json)
        return wrapped(how=how, loaded=loaded, **others)

    command.__name__, command.__doc__ = wrapped.__name__, wrapped.__doc__
    return command


_select = click.option("--select", default="", metavar="RE", help="Only blocks whose name matches (RE2).")
_ignore = click.option("--ignore", default="", metavar="RE", help="Without blocks whose name matches (RE2).")
_limit = click.option("--limit", type=click.IntRange(1), help="A canary: at most so many blocks.")


@click.group("sync")
def command() -> None:
    """Bring Rucio to PhEDEx's state: a site, a dataset, or blocks."""


@command.command("site")
@click.argument("nodes", nargs=-1, required=True, metavar="NODE...")
@click.option("--dataset", default="*", metavar="PATTERN", help="Only this dataset or pattern.")
@_select
@_ignore
@_limit
@click.option("--approve", default="", metavar="CODE", help="Let what is held and on record pass the guard.")
@_asked_for
def site(nodes: Sequence[str], how: deliver.How, loaded: Loaded, **fields: Any) -> int:
    """Compare whole sites, or some datasets there, with Rucio and bring Rucio to PhEDEx's state.

    What the guard holds is told with the CODE that approves it. --approve lets pass what was held when the code was
    given, as far as it is held still, and nothing else.
    """
    if fields["approve"]:
        _check_approval(nodes, **fields)
    return _deliver([SyncSite(node=node, **fields) for node in dict.fromkeys(nodes)], how, loaded)


def _check_approval(asked: Sequence[str], *, reason: str, limit: int | None, adds_only: bool, **_: Any) -> None:
    """An approval is of one site or pattern, says why, and is for a plan that may remove. Raises UsageError."""
    if not reason.strip():
        raise UsageError("--approve: say why, with --reason: it is kept with the event")
    if len(set(asked)) != 1:
        raise UsageError("--approve: a code is of one site or pattern, name only that one")
    if limit is not None or adds_only:
        raise UsageError("--approve: with --limit or --adds-only nothing is removed")


@command.command("dataset")
@click.argument("patterns", nargs=-1, required=True, metavar="PATTERN...")
@click.option("--node", default="", metavar="RE", help="Only nodes whose whole name matches (RE2).")
@_select
@_ignore
@click.option("--approve", default="", metavar="CODE", help="Let what is held of it at any site pass the guards.")
@_asked_for
def dataset(patterns: Sequence[str], node: str, how: deliver.How, loaded: Loaded, **fields: Any) -> int:
    """Sync datasets, or all that match a PATTERN (quote it), at every site that has them.

    --approve is of one dataset or pattern, and of what is held of it wherever that is.
    """
    if fields["approve"]:
        _check_approval(patterns, limit=None, **fields)
    version = 2 if fields["approve"] else 1
    wanted = [SyncDataset(v=version, dataset=pattern, **fields) for pattern in dict.fromkeys(patterns)]
    return _deliver(expand.narrowed(wanted, node, loaded.settings), how, loaded)


@command.command("block")
@click.argument("blocks", nargs=-1, required=True, metavar="BLOCK...")
@click.option("--node", required=True, help="The site where the blocks are looked at.")
@_asked_for
def block(blocks: Sequence[str], node: str, how: deliver.How, loaded: Loaded, **fields: Any) -> int:
    """Sync single blocks at one site: the plan of that site, limited to exactly these names."""
    return _deliver(of_blocks(node, blocks, SyncSite(node=node, **fields)), how, loaded)


def _deliver(commands: Sequence[Command], how: deliver.How, loaded: Loaded) -> int:
    return deliver.deliver([rooted(each) for each in commands], how, loaded.settings)
