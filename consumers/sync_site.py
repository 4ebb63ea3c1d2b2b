"""What does `sync.site` do? Read both sides of a node, plan, and send the batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from msgspec.structs import replace

from common.errors import NotOurs
from common.messages.commands import Command, SyncBlocks, SyncSite
from common.messages.meta import Meta
from common.outcome import Outcome
from common.phedex.inventory import read_node
from common.rucio.inventory import rules_at
from common.rucio.rses import Site, Switch, find_site
from common.settings.model import Site as Policy
from common.sync.catalogue import Reading
from common.sync.diff import diff, set_unknown, without_replica
from common.sync.plan import Limits, Plan, batches, make_plan
from common.sync.selection import Predicate, selection
from consumers.engine.result import Result
from consumers.engine.world import World


@dataclass(frozen=True)
class Observed:
    """Both sides of a node as read for one command, and the plan made of them."""

    plan: Plan
    reading: Reading


def handle(command: SyncSite, world: World) -> Result:
    """Plan the sync of one node; the batches, and the next page where there is one, are its children."""
    try:
        observed = observe(command, world)
    except NotOurs as reason:
        return Result(Outcome.SKIPPED, notes=[str(reason)])
    plan = observed.plan
    dry = command.dry or world.settings.site(command.node).dry
    follow = () if dry else _children(command, observed, world.settings.site(command.node))
    return Result(_outcome(plan), counts=_counts(command, plan), notes=_notes(plan, dry), follow=follow)


def plan_of(command: SyncSite, world: World) -> Plan:
    """What a sync would do; writes nothing. Raises NotOurs where the node is not synced, with the reason."""
    return observe(command, world).plan


def observe(command: SyncSite, world: World) -> Observed:
    """Read PhEDEx and Rucio for one node and compare them. Raises NotOurs, UnknownNode, or a system's error."""
    policy = world.settings.site(command.node)
    site = site_of(command.node, world, policy)
    chosen = selection(command.dataset, [policy.select, command.select], [policy.ignore, command.ignore])
    reading = read_node(
        world.phedex,
        policy.inventory_node or command.node,
        command.dataset,
        split=policy.multi_das_calls,
        checkpoint=world.checkpoint,
    )
    world.checkpoint()
    return Observed(_plan(command, world, site, reading, chosen), reading)


def site_of(node: str, world: World, policy: Policy) -> Site:
    """The RSE that stands for a node, open for the sync.

    Raises NotOurs with the reason where there is none, UnknownNode where PhEDEx does not know the node either.
    """
    if not policy.run:
        raise NotOurs(f"{node}: `run` is off in its settings")
    site = find_site(world.rucio, node, policy)
    if site is None:
        world.phedex.check_node(node)  # a mistyped node is a mistake, not a site that Rucio does not have yet
        raise NotOurs(f"{node}: no RSE with the attributes cms_type=real and pnn={node}")
    if site.switch is Switch.FROZEN:
        raise NotOurs(f"{node}: frozen (attribute phedex_sync of RSE {site.rse})")
    return site


def _plan(command: SyncSite, world: World, site: Site, reading: Reading, chosen: Predicate) -> Plan:
    rules = rules_at(world.rucio, site)
    found = diff(reading, rules, chosen)
    if gone := without_replica(found):
        set_unknown(found, world.phedex.known_blocks(gone))
    return make_plan(
        (command.node, site.rse, site.account, command.dataset),
        reading,
        rules,
        found,
        limits=_limits(world.settings.site(command.node)),
        after=command.after,
        limit=command.limit,
    )


def _limits(policy: Policy) -> Limits:
    return Limits(page=policy.chunck, blocks=policy.batch_blocks, files=policy.batch_files)


def _children(command: SyncSite, observed: Observed, policy: Policy) -> Iterator[Command]:
    """The batches in order of name, then the next page: at the end of the queue, so sites take turns."""
    plan = observed.plan
    for names in batches(plan.work, observed.reading.blocks, _limits(policy)):
        yield SyncBlocks(node=command.node, blocks=names, deep=command.deep, adds_only=command.adds_only)
    if plan.after:
        yield replace(command, after=plan.after, adds_only=True, meta=Meta())


def _outcome(plan: Plan) -> Outcome:
    """Removals are only shown, so they hold nothing back; a doubted part of PhEDEx' answer does."""
    if plan.doubts:
        return Outcome.HELD
    return Outcome.CHANGED if plan.work else Outcome.IN_SYNC


def _counts(command: SyncSite, plan: Plan) -> dict[str, int]:
    """This page's work; what a whole plan knows (same, to_remove, …) is counted by the first page alone."""
    updates = sum(name in plan.update for name in plan.work)
    counts = {"to_add": len(plan.work) - updates, "to_update": updates}
    if not command.after:
        counts |= {
            "same": plan.same,
            "to_remove": len(plan.remove),
            "pending": len(plan.pending),
            "empty": len(plan.empty),
            "ignored": len(plan.ignored),
            "doubts": len(plan.doubts),
        }
    return {name: number for name, number in counts.items() if number}


def _notes(plan: Plan, dry: bool) -> list[str]:
    """What a person should know of this plan, cut to a few lines."""
    notes = [f"PhEDEx's answer is not trusted for {doubt}" for doubt in plan.doubts[:5]]
    notes += [f"dry: would add {len(plan.missing)}, update {len(plan.update)}"] if dry else []
    return notes + ([f"left alone: {len(plan.remove)} blocks that Rucio has and PhEDEx has not"] if plan.remove else [])
