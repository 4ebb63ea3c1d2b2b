"""What does `sync.site` do? Read both sides of a node, plan, and send the batches."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from common.errors import NotOurs
from common.messages.commands import Command, SyncBlocks, SyncSite
from common.messages.meta import Meta
from common.outcome import Outcome
from common.settings.model import Site as Policy
from common.sync.plan import PERMISSION, Plan, batches
from common.sync.render import verdict
from consumers.engine.result import Result
from consumers.engine.world import World
from consumers.planning.guarding import report_of
from consumers.planning.observe import Observed, limits_of, observe

HELD_NAMES = 100


def handle(command: SyncSite, world: World) -> Result:
    """Plan the sync of one node; the batches, and the next page where there is one, are its children."""
    try:
        observed = observe(command, world)
    except NotOurs as reason:
        return Result(Outcome.SKIPPED, notes=[str(reason)])
    plan = observed.plan
    policy = world.settings.site(command.node)
    dry = command.dry or policy.dry
    held = sorted({*plan.ruling.held, *plan.ruling.kept})[:HELD_NAMES] if plan.ruling else []
    return Result(
        _outcome(plan),
        counts=_counts(command, plan),
        names={"held": held} if held else {},
        notes=_notes(command, plan, dry),
        guard=report_of(command, plan),
        as_of=plan.as_of,
        follow=() if dry else _children(command, observed, policy),
    )


def plan_of(command: SyncSite, world: World) -> Plan:
    """What a sync would do; writes nothing. Raises NotOurs where the node is not synced, with the reason."""
    return observe(command, world).plan


def _children(command: SyncSite, observed: Observed, policy: Policy) -> Iterator[Command]:
    """The batches in order of name, those that may remove after those that add; then the next page.

    The page goes to the end of the queue, so that sites take turns. No block leaves by it: the root removes for all.
    A deep look may also take files away that PhEDEx lists no more, where the root and the page itself may.
    """
    plan, found, limits = observed.plan, observed.found, limits_of(policy)
    until = observed.at + PERMISSION
    thorough = until if observed.may_drop else None
    for names in batches(plan.work, observed.reading.blocks, limits):
        yield SyncBlocks(
            node=command.node, blocks=names, removable_until=thorough, deep=command.deep, adds_only=command.adds_only
        )
    approved = plan.ruling.checksum if plan.ruling and plan.ruling.approved else ""
    for names in batches(sorted({*plan.mark, *plan.sweep, *plan.approve}), found.pending | found.remove, limits):
        version = 2 if approved else 1
        yield SyncBlocks(v=version, node=command.node, blocks=names, removable_until=until, approved=approved)
    if plan.after:
        yield replace(command, after=plan.after, adds_only=not observed.may_drop, approve="", meta=Meta())


def _outcome(plan: Plan) -> Outcome:
    """Held beats changed. Removals that were not to happen (adds only, a canary) are only shown."""
    if plan.doubts or (plan.ruling and (plan.ruling.held or plan.ruling.kept or plan.unswept)):
        return Outcome.HELD
    return Outcome.CHANGED if plan.work or plan.mark or plan.sweep or plan.approve else Outcome.IN_SYNC


def _counts(command: SyncSite, plan: Plan) -> dict[str, int]:
    """This page's work; what a whole plan knows (same, to_remove, …) is counted by the first page alone."""
    missing = set(plan.missing)
    counts = {
        "to_add": sum(name in missing for name in plan.work),
        "to_update": sum(name in plan.update for name in plan.work),
        "to_check": sum(name not in missing and name not in plan.update for name in plan.work),
    }
    if not command.after:
        counts |= {
            "same": plan.same,
            "to_remove": len(plan.remove),
            "to_mark": len(plan.mark),
            "held": len(plan.ruling.held) + len(plan.ruling.kept) if plan.ruling else 0,
            "to_sweep": len(plan.sweep),
            "pending": len(plan.pending) - len(plan.sweep),
            "empty": len(plan.empty),
            "ignored": len(plan.ignored),
            "doubts": len(plan.doubts),
        }
    return {name: number for name, number in counts.items() if number}


def _notes(command: SyncSite, plan: Plan, dry: bool) -> list[str]:
    """What a person should know of this plan, cut to a few lines."""
    notes = [f"PhEDEx's answer is not trusted for {doubt}" for doubt in plan.doubts[:5]]
    if dry:
        removals = f", mark {len(plan.mark)}, sweep {len(plan.sweep)}" if plan.mark or plan.sweep else ""
        notes.append(f"dry: would add {len(plan.missing)}, update {len(plan.update)}{removals}")
    if plan.remove and plan.ruling is None and not command.after:
        notes.append(f"left alone: {len(plan.remove)} blocks that Rucio has and PhEDEx has not: {plan.removals}")
    if plan.ruling is not None and plan.ruling.approved:
        notes.append(f"{len(plan.mark) + len(plan.approve)} removals were approved: {command.reason}")
    held = plan.ruling is not None and (plan.ruling.held or plan.ruling.kept or plan.unswept)
    return notes + (verdict(plan.ruling) if plan.ruling and held else [])
