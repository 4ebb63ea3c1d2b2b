"""What does a dataset pattern expand to? Shown before it is sent; `--node` turns it into names of nodes."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from common import names
from common.errors import PhedexError, RucioError, UsageError
from common.messages.codec import checked
from common.messages.commands import SyncDataset
from common.rucio.rses import find_site
from common.settings.model import Settings
from common.sync.selection import whole
from common.sync.words import count
from phedex_rucio import output, wiring


def narrowed(commands: Sequence[SyncDataset], node: str, settings: Settings) -> list[SyncDataset]:
    """The commands, limited to the nodes that match the expression `node` where there is one; shown on stderr.

    Without an expression nothing depends on what is shown: where PhEDEx does not answer, that is said and the
    commands go out all the same. Raises InvalidMessage, and UsageError where no node matches.
    """
    wanted = whole(node, "--node") if node else lambda _: True
    doors = wiring.Doors(settings)
    result = []
    for command in commands:
        checked(command)
        try:
            found = {name: blocks for name, blocks in doors.phedex.nodes_with(command.dataset).items() if wanted(name)}
        except PhedexError as error:
            if node:
                raise
            output.note(f"{command.dataset}: sent without a preview: {error}")
            result.append(command)
            continue
        also = "; an approval also goes where Rucio alone has blocks of it" if command.approve and not node else ""
        output.note(f"{command.dataset}: {preview(found, _without_rse(doors, found))}{also}")
        result.append(
            _at(command, sorted(n for n in doors.phedex.nodes() if names.is_node(n) and wanted(n))) if node else command
        )
    return result


def _at(command: SyncDataset, nodes: list[str]) -> SyncDataset:
    """Every node of that name, not only those that still have blocks: where all are gone, Rucio still has them.

    So an approval too finds what is held there; a node that PhEDEx does not know any more is not synced at all.
    """
    if not nodes:
        raise UsageError(f"{command.dataset}: --node matches no node that PhEDEx knows")
    return replace(command, nodes=nodes)


def preview(found: dict[str, list[str]], without_rse: list[str] | None) -> str:
    """`3 datasets, 214 blocks, 9 nodes; 2 skipped: no RSE` of complete blocks by node."""
    blocks = {block for there in found.values() for block in there}
    datasets = {names.dataset_of(block) for block in blocks}
    text = f"{count(len(datasets), 'dataset')}, {count(len(blocks), 'block')}, {count(len(found), 'node')}"
    if without_rse:
        text += f"; {len(without_rse)} skipped: no RSE ({', '.join(without_rse[:5])}{', …' if without_rse[5:] else ''})"
    return text if without_rse is not None else f"{text}; Rucio was not asked for their RSEs"


def _without_rse(doors: wiring.Doors, nodes: dict[str, list[str]]) -> list[str] | None:
    """The nodes that have no RSE; None where Rucio does not tell."""
    try:
        return sorted(node for node in nodes if find_site(doors.rucio, node, doors.settings.site(node)) is None)
    except (RucioError, UsageError):
        return None
