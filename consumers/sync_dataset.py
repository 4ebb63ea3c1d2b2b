"""What does `sync.dataset` do? Only fan out: one `sync.site` to every node that has the dataset or pattern."""

from __future__ import annotations

from common.messages.commands import SyncDataset, SyncSite
from common.outcome import Outcome
from consumers.engine.result import Result
from consumers.engine.world import World


def handle(command: SyncDataset, world: World) -> Result:
    """One child a node: those the command names, else those where PhEDEx has a complete replica.

    Nodes that PhEDEx names no more are not looked for: that would be a listing of every site's rules, and the guard
    removes nothing for a pattern of which PhEDEx lists nothing. The sync of the whole site does.
    """
    nodes = command.nodes or sorted(world.phedex.nodes_with(command.dataset))
    if not nodes:
        return Result(
            Outcome.IN_SYNC,
            notes=[f"PhEDEx has {command.dataset} at no node; what Rucio has of it is a matter of `sync site`"],
        )
    children = [_at(node, command) for node in nodes]
    return Result(Outcome.IN_SYNC, counts={"nodes": len(nodes)}, follow=children)


def _at(node: str, command: SyncDataset) -> SyncSite:
    return SyncSite(
        node=node,
        dataset=command.dataset,
        select=command.select,
        ignore=command.ignore,
        deep=command.deep,
        dry=command.dry,
        adds_only=command.adds_only,
        reason=command.reason,
    )
