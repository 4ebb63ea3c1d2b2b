"""What would a batch do with one block now, where other sites count too? Reads; writes nothing."""

from __future__ import annotations

from collections.abc import Mapping

from common.rucio import dids, replicas, rules
from common.rucio.inventory import is_ours
from common.rucio.replicas import Standing
from common.rucio.rses import Site
from common.sync.one_block import LastCopy
from consumers.apply import claims, elsewhere, late
from consumers.apply.contents import Files
from consumers.apply.last_copy import Last, Sweep, decide
from consumers.apply.sides import Sides, Sites
from consumers.engine.world import World


def foresee(world: World, site: Site, block: str, where: Mapping[str, bool]) -> LastCopy:
    """What the sweep of a block decides, by the same looks and rules. `where`: PhEDEx' nodes, complete there or not.

    Two requests for each node that has it complete, and some more; it must have a rule, so that Rucio knows it.
    """
    files = _files(world, block)
    rows = list(rules.of_dataset(world.rucio, block))
    locks = rules.locks(world.rucio, [block])
    beyond = elsewhere.read(Sites(world.rucio, world.settings), site, {block: where}, locks)
    ours = {row["id"] for row in rows if is_ours(row, site)}
    held = claims.claimed(world.rucio, site.rse, {block: files}, locks, rows, ours=ours)
    verdict = decide(block, site.rse, files, held, beyond.elsewhere[block])
    if isinstance(verdict, Last):
        known = elsewhere.with_files(world.phedex, beyond, [block])
        verdict = decide(block, site.rse, files, held, known[block]) if block in known else verdict
    return _as_fact(verdict, beyond.takers[block])


def not_at(world: World, site: Site, block: str, files: Files) -> tuple[str, ...]:
    """The RSEs whose rules hold the block, and where files that are to join it cannot be made now: they wait."""
    sides = Sides(world.phedex, world.rucio, Sites(world.rucio, world.settings))
    held_at = late.held_at(sides.sites, site, rules.locks(world.rucio, [block]))
    return tuple(late.find(sides, site, {block: files}, held_at)[block].unable) if held_at else ()


def _files(world: World, block: str) -> dict[str, Standing]:
    """Where each file of the block stands; those that were detached before count while they are in nothing else."""
    inside = dids.contents(world.rucio, [block])[block]
    standing = replicas.standing(world.rucio, dids.former(world.rucio, block) | inside)
    return {file: one for file, one in standing.items() if file in inside or not one.parents}


def _as_fact(verdict: Sweep | Last, takers: list[str]) -> LastCopy:
    if isinstance(verdict, Last):
        return LastCopy(file=verdict.file, why=verdict.why, takers=tuple(takers))
    return LastCopy(delete=len(verdict.delete), foreign=len(verdict.foreign), lost=len(verdict.lost))
