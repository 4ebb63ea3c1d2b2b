"""What does `sync.dataset` do? Only fan out: one `sync.site` to every node that has the dataset or pattern."""

from __future__ import annotations

from common.messages.commands import SyncDataset, SyncSite
from common.names import is_block
from common.outcome import Outcome
from common.rucio import dids, rules
from common.sync.selection import like
from consumers.apply.sides import Sites
from consumers.engine.result import Result
from consumers.engine.world import World


def handle(command: SyncDataset, world: World) -> Result:
    """One child a node: those the command names, else those where PhEDEx has a complete replica.

    Nodes that PhEDEx names no more are looked for by an approval alone, in Rucio: it is of what is held, wherever that
    is. Else nothing is removed for a pattern of which PhEDEx lists nothing; the sync of the whole site does that.
    """
    nodes = command.nodes or sorted({*world.phedex.nodes_with(command.dataset), *_held_at(command, world)})
    if not nodes:
        return Result(
            Outcome.IN_SYNC,
            notes=[f"PhEDEx has {command.dataset} at no node; what Rucio has of it is a matter of `sync site`"],
        )
    children = [_at(node, command) for node in nodes]
    return Result(Outcome.IN_SYNC, counts={"nodes": len(nodes)}, follow=children)


def _held_at(command: SyncDataset, world: World) -> set[str]:
    """The nodes where rules of this sync hold blocks of the datasets, for an approval."""
    if not command.approve:
        return set()
    sites = Sites(world.rucio, world.settings)
    chosen = like(command.dataset)
    names = sorted(name for name in dids.matching(world.rucio, command.dataset) if is_block(name) and chosen(name))
    rses = {lock.rse for lock in rules.locks(world.rucio, names) if sites.is_syncs(lock.account)}
    return {node for rse in rses if (node := sites.node_at(rse))}


def _at(node: str, command: SyncDataset) -> SyncSite:
    return SyncSite(
        node=node,
        dataset=command.dataset,
        select=command.select,
        ignore=command.ignore,
        deep=command.deep,
        dry=command.dry,
        adds_only=command.adds_only,
        approve=command.approve,
        reason=command.reason,
    )
