"""What would a batch do with one block now, where other sites count too? Reads; writes nothing."""

from __future__ import annotations

from collections.abc import Collection

from common.rucio import dids, replicas, rules
from common.rucio.inventory import is_ours, rule_of
from common.rucio.replicas import Standing
from common.rucio.rses import Site
from common.sync.marks import DESTROYING
from common.sync.one_block import LastCopy
from consumers.apply import beyond, foreign_locks, late
from consumers.apply.beyond import Own, stands
from consumers.apply.contents import Files
from consumers.apply.last_copy import Last, decide
from consumers.apply.sides import Sides, Sites
from consumers.engine.world import World


def foresee(world: World, site: Site, node: str, block: str, *, here: bool, controls: Collection[str] = ()) -> LastCopy:
    """What the sweep of a block decides, by the same looks and rules. `here`: PhEDEx lists it at the node in part.

    `controls`: blocks that PhEDEx surely has: a reply that leaves them out too is not believed. Two requests for each
    node that has it complete, and some more; it must have a rule, so that Rucio knows it.
    """
    sides = Sides(world.phedex, world.rucio, Sites(world.rucio, world.settings))
    inside = dids.contents(world.rucio, [block])[block]
    files = _files(world, block, inside)
    rows = list(rules.of_dataset(world.rucio, block))
    locks = rules.locks(world.rucio, [block])
    ours = [rule_of(row, site) for row in rows if is_ours(row, site)]
    own = Own(node, site, {block: ours[0]} if ours else {})
    known = beyond.read(sides, own, [block], controls=controls, here=[block] if here else (), locks=locks)
    foreign = foreign_locks.held(world.rucio, site, {block: files}, {block: rows}, locks)
    destroys = known.reasons[block].why in DESTROYING
    places = {rse for rse in known.places[block] if stands(sides.sites, rows, rse, len(inside))}
    verdict = decide(block, site.rse, files, foreign[block], places, destroys=destroys)
    if isinstance(verdict, Last):
        return LastCopy(file=verdict.file, why=verdict.why, takers=tuple(known.takers[block]))
    return LastCopy(delete=len(verdict.delete), foreign=len(verdict.foreign), lost=len(verdict.lost))


def not_at(world: World, site: Site, block: str, files: Files) -> tuple[str, ...]:
    """The RSEs whose rules hold the block, and where files that are to join it cannot be made now: they wait."""
    sides = Sides(world.phedex, world.rucio, Sites(world.rucio, world.settings))
    held_at = late.held_at(sides.sites, site, rules.locks(world.rucio, [block]))
    return tuple(late.find(sides, site, {block: files}, held_at)[block].unable) if held_at else ()


def _files(world: World, block: str, inside: Files) -> dict[str, Standing]:
    """Where each file of the block stands; those that were detached before count while they are in nothing else."""
    standing = replicas.standing(world.rucio, dids.former(world.rucio, block) | inside)
    return {file: one for file, one in standing.items() if file in inside or not one.parents}
