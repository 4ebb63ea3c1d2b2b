"""What does `sync.site` do? Read both sides of a node, plan, and send the batches."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from msgspec.structs import replace

from common.errors import NotOurs
from common.messages.commands import Command, SyncBlocks, SyncSite
from common.messages.meta import Meta
from common.outcome import Outcome
from common.rucio import announcements
from common.rucio.session import sliced
from common.settings.model import Site as Policy
from common.sync import approvals
from common.sync.plan import PERMISSION, Limits, Plan, batches
from common.sync.render import verdict
from common.sync.words import count
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
    stay = {*plan.ruling.held, *plan.ruling.kept} if plan.ruling else set()
    held = sorted(stay | plan.kept.keys())[:HELD_NAMES]
    return Result(
        _outcome(plan),
        counts=_counts(command, plan),
        names={"held": held} if held else {},
        notes=_notes(command, plan, dry),
        guard=report_of(command, plan),
        as_of=plan.as_of,
        follow=() if dry else _children(command, observed, policy),
        after=None if dry or not observed.expired else partial(_withdraw, world, observed),
    )


def _withdraw(world: World, observed: Observed) -> None:
    """What a process announced that is gone since long is taken back: a batch looks at the blocks file by file."""
    for one in observed.expired:
        announcements.withdraw(world.rucio, observed.plan.rse, one.key)


def plan_of(command: SyncSite, world: World) -> Plan:
    """What a sync would do; writes nothing. Raises NotOurs where the node is not synced, with the reason."""
    return observe(command, world).plan


def _children(command: SyncSite, observed: Observed, policy: Policy) -> Iterator[Command]:
    """The batches in order of name, those that may remove after those that add; then the next page.

    The page goes to the end of the queue, so that sites take turns. No block leaves by it: the root removes for all.
    Files that PhEDEx lists no more may leave their blocks, where the root and the page itself may.
    """
    plan, limits = observed.plan, limits_of(policy)
    files = observed.at + PERMISSION if observed.may_drop else None
    for names in batches(plan.work, observed.reading.blocks, limits):
        yield _versioned(
            SyncBlocks(
                node=command.node, blocks=names, files_until=files, deep=command.deep, adds_only=command.adds_only
            )
        )
    for names in sliced(observed.doubtful, limits.blocks):
        yield SyncBlocks(node=command.node, blocks=names, deep=True)
    yield from _removals(command, observed, limits)
    if plan.after:
        yield replace(command, after=plan.after, adds_only=not observed.may_drop, approve="", meta=Meta())


def _removals(command: SyncSite, observed: Observed, limits: Limits) -> Iterator[SyncBlocks]:
    """What is to be marked or swept, with a person's approval and without; and what is put on record as held."""
    plan, found = observed.plan, observed.found
    sizes = found.pending | found.remove | found.kept
    ruling = plan.ruling
    approved = set(ruling.approved) if ruling else set()
    acted = {*plan.mark, *plan.sweep, *plan.approve}
    until = observed.at + PERMISSION
    permitted = SyncBlocks(
        node=command.node,
        blocks=[],
        removable_until=until,
        controls=observed.controls,
        approved_for=command.dataset if approved else "*",
        approved_narrowed=approvals.narrowing(command.select, command.ignore) if approved else "",
    )
    unmark = sorted({name for name in plan.unmark if name not in acted})
    for names in batches(sorted(acted - approved), sizes, limits):
        yield _versioned(replace(permitted, blocks=names))
    for names in sliced(unmark, limits.blocks):
        yield _versioned(replace(permitted, blocks=names))
    for names in batches(sorted(acted & approved), sizes, limits):
        yield _versioned(replace(permitted, blocks=names, approved=ruling.approval if ruling else ""))
    for why, held in _to_record(observed).items():
        for names in batches(held, sizes, limits):
            yield _versioned(replace(permitted, blocks=names, held_since=observed.at, held_why=why))


def _to_record(observed: Observed) -> dict[str, list[str]]:
    """The blocks that are to be put on record and are not yet, by reason: a page of them at most."""
    ruling = observed.plan.ruling
    whys = {name: one.why for name, one in (observed.found.pending | observed.found.remove).items()}
    names = [name for name in ruling.record if not observed.holds(name, whys[name])] if ruling else []
    by_reason: dict[str, list[str]] = {}
    for name in names[: observed.page]:
        by_reason.setdefault(str(whys[name].value), []).append(name)
    return by_reason


def _versioned(command: SyncBlocks) -> SyncBlocks:
    """The version that came with the newest of the fields that it uses: an older worker waits for its upgrade."""
    if command.approved_narrowed:
        return replace(command, v=4)
    if command.held_since or command.files_until or command.controls:
        return replace(command, v=3)
    return replace(command, v=2) if command.approved else command


def _outcome(plan: Plan) -> Outcome:
    """Held beats changed. Removals that were not to happen (adds only, a canary) are only shown."""
    if plan.doubts or plan.kept or (plan.ruling and (plan.ruling.held or plan.ruling.kept or plan.unswept)):
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
            "kept": len(plan.kept),
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
    if plan.kept and not command.after:
        name, why = next(iter(plan.kept.items()))
        notes.append(f"kept, for they may be the last copy: {count(len(plan.kept), 'block')}, such as {name}: {why}")
    if plan.ruling is not None and plan.ruling.approved:
        notes.append(f"{len(plan.ruling.approved)} removals were approved: {command.reason}")
    if plan.files_held and not command.after:
        notes.append(f"files stay in their blocks: {plan.files}")
    held = plan.ruling is not None and (plan.ruling.held or plan.ruling.kept or plan.unswept)
    return notes + (verdict(plan.ruling) if plan.ruling and held else [])
