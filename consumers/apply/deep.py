"""What happened to a block behind our back, that its names and numbers do not show? Found file by file, and mended."""

from __future__ import annotations

from collections.abc import Iterable

from common.rucio import dids, replicas
from common.rucio import rules as rucio_rules
from common.rucio.rses import closed
from common.rucio.session import Rucio
from common.sync.catalogue import RuleAtRse
from consumers.apply.contents import Files


def revive(rucio: Rucio, rse: str, files: Iterable[str]) -> list[str]:
    """The files that were UNAVAILABLE at the RSE are available again; returns them. For what PhEDEx has there whole.

    Only that state: a BAD replica was declared so by somebody, one that is copied or deleted is at work.
    """
    standing = replicas.standing(rucio, files)
    dead = sorted(name for name, one in standing.items() if one.states.get(rse) == "UNAVAILABLE")
    if dead:
        replicas.make_available(rucio, rse, dead)
    return dead


def end_surplus(rucio: Rucio, rse: str, kept: RuleAtRse, every: Iterable[RuleAtRse], files: int) -> int:
    """Of several rules of ours on a block only one is left, and how many end now; none where that one holds too little.

    The locks of the one that stays keep every replica from a tombstone.
    """
    if kept.ending or kept.marked or kept.files != files:
        return 0
    surplus = [rule for rule in every if rule.id != kept.id and not rule.ending]
    tape = bool(surplus) and closed(rucio, rse).tape
    surplus = [rule for rule in surplus if tape or not rule.locked]  # at a disk a person locked it
    for rule in surplus:
        rucio_rules.end(rucio, rule.id, unlock=tape)
    return len(surplus)


def orphans(rucio: Rucio, rse: str, name: str, inside: Files, files: Files, *, anywhere: bool = False) -> Files:
    """The replicas at the RSE (or anywhere) of files that were once in the block and are in nothing now.

    A removal was cut short.
    """
    former = {file: one for file, one in dids.former(rucio, name).items() if file not in inside and file not in files}
    standing = replicas.standing(rucio, former)
    return {
        file: former[file]
        for file, one in standing.items()
        if (rse in one.states or (anywhere and one.states)) and not one.parents
    }
