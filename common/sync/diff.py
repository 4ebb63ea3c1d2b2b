"""What differs between PhEDEx and Rucio at one node?"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from common.sync.catalogue import BlockAtNode, Doubt, Reading, RuleAtRse
from common.sync.selection import Predicate, like


class Update(StrEnum):
    """Why a rule that exists needs work."""

    FILES = "files"
    META = "meta"
    ENDING = "ending"
    RETURNED = "returned"


class Removal(StrEnum):
    """Why a block that Rucio has should not be there."""

    GONE = "gone"
    INCOMPLETE = "incomplete"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Surplus:
    """A block that Rucio has at the node and PhEDEx has not, or not whole: why, and what of it is left there."""

    why: Removal
    files: int
    here: int = 0

    def __str__(self) -> str:
        if self.why is Removal.INCOMPLETE:
            return f"incomplete ({self.here} of {self.files} files left)"
        return str(self.why)


@dataclass
class Difference:
    """The names on each side of the comparison, and how many need no work.

    `remove`, `pending`: what should not be there, not marked yet and marked earlier, each with the reason.
    `empty`: closed blocks without files, which have nothing to sync.
    """

    missing: list[str] = field(default_factory=list)
    update: dict[str, Update] = field(default_factory=dict)
    remove: dict[str, Surplus] = field(default_factory=dict)
    pending: dict[str, Surplus] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    same: int = 0


def diff(reading: Reading, rules: Mapping[str, RuleAtRse], chosen: Predicate) -> Difference:
    """Compare what PhEDEx says with our rules at the RSE, for the chosen names that were read without doubt.

    The filter and the doubts hold on both sides alike: a name that PhEDEx was not asked about proves nothing.
    """
    found = Difference()
    for name, block in reading.blocks.items():
        if block.complete and chosen(name):
            _present(found, name, block, rules.get(name))
    doubted = in_doubt(reading.doubts)
    for name, rule in rules.items():
        there = reading.blocks.get(name)
        if not (there and there.complete) and chosen(name) and not doubted(name):
            _absent(found, name, there, rule)
    return _in_order(found)


def _in_order(found: Difference) -> Difference:
    """Everything by name: sorted here, where little is left, and not all that is at the node."""
    return Difference(
        missing=sorted(found.missing),
        update=dict(sorted(found.update.items())),
        remove=dict(sorted(found.remove.items())),
        pending=dict(sorted(found.pending.items())),
        empty=sorted(found.empty),
        same=found.same,
    )


def _present(found: Difference, name: str, block: BlockAtNode, rule: RuleAtRse | None) -> None:
    if not block.files:
        found.empty.append(name)
    elif rule is None:
        found.missing.append(name)
    elif (why := update_reason(block, rule)) is not None:
        found.update[name] = why
    else:
        found.same += 1


def update_reason(block: BlockAtNode, rule: RuleAtRse) -> Update | None:
    """Why the rule of a block that is complete at its node needs work, or None."""
    if rule.marked or rule.keep:
        return Update.RETURNED
    if rule.ending:
        return Update.ENDING
    if rule.files != block.files:
        return Update.FILES
    if (rule.group, rule.custodial) != (block.group, block.custodial):
        return Update.META
    return None


def _absent(found: Difference, name: str, block: BlockAtNode | None, rule: RuleAtRse) -> None:
    if block is not None and block.is_open and block.here >= block.files:
        found.same += 1  # an open block with all its files here has lost nothing
        return
    surplus = Surplus(Removal.GONE, rule.files) if block is None else _what_is_left(block)
    if rule.marked:
        found.pending[name] = surplus
    elif rule.ending or rule.keep:
        found.same += 1
    else:
        found.remove[name] = surplus


def _what_is_left(block: BlockAtNode) -> Surplus:
    return Surplus(Removal.INCOMPLETE, block.files, block.here)


def set_unknown(found: Difference, known: Container[str]) -> None:
    """Give the reason *unknown* to the gone blocks that PhEDEx does not know anywhere any more."""
    for part in (found.remove, found.pending):
        for name, one in part.items():
            if one.why is Removal.GONE and name not in known:
                part[name] = Surplus(Removal.UNKNOWN, one.files)


def keep_incomplete(found: Difference) -> None:
    """A block of which some files are left at the node stays: it is no difference."""
    kept = [name for name, one in found.remove.items() if one.why is Removal.INCOMPLETE]
    for name in kept:
        del found.remove[name]
    found.same += len(kept)


def in_doubt(doubts: list[Doubt]) -> Predicate:
    """True for the names in a part of PhEDEx' answer that is not trusted."""
    patterns = [like(doubt.pattern) for doubt in doubts]
    return lambda name: any(inside(name) for inside in patterns)
