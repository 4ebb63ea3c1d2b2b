"""What differs between PhEDEx and Rucio at one node?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from common.sync.catalogue import BlockAtNode, Doubt, Reading, RuleAtRse
from common.sync.marks import Removal, permits, severity
from common.sync.reasons import Reason
from common.sync.selection import Predicate, like


class Update(StrEnum):
    """Why a rule that exists needs work."""

    FILES = "files"
    META = "meta"
    ENDING = "ending"
    RETURNED = "returned"


@dataclass(frozen=True)
class Surplus:
    """A block that Rucio has at the node and PhEDEx has not, or not whole: why, and what of it is left there.

    `stuck`: it waits for a place elsewhere, and no node that has it can be one.
    """

    why: Removal
    files: int
    here: int = 0
    stuck: bool = False

    def __str__(self) -> str:
        if self.why is Removal.INCOMPLETE:
            return f"incomplete ({self.here} of {self.files} files left)"
        return f"{self.why} (no node that has it can have it in Rucio)" if self.stuck else str(self.why)

    @property
    def stays(self) -> bool:
        """True for a block that is neither marked nor swept, whatever its mark says: it may be the last copy."""
        return self.why is Removal.PARTLY or self.stuck


@dataclass
class Difference:
    """The names on each side of the comparison, and how many need no work.

    `remove`, `pending`: what should not be there, to be marked and marked earlier, each with the reason; what is marked
    for a milder reason than today's is to be marked again. `kept`: what should not be there either and stays, for it
    may be the last copy. `unmark`: whose mark or hold is to go, or to be of a milder reason. `empty`: closed blocks
    without files, which have nothing to sync.
    """

    missing: list[str] = field(default_factory=list)
    update: dict[str, Update] = field(default_factory=dict)
    remove: dict[str, Surplus] = field(default_factory=dict)
    pending: dict[str, Surplus] = field(default_factory=dict)
    kept: dict[str, Surplus] = field(default_factory=dict)
    unmark: list[str] = field(default_factory=list)
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
        unmark=sorted(found.unmark),
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
    if rule.marked or rule.keep or rule.held_since:
        return Update.RETURNED
    if rule.ending:
        return Update.ENDING
    if rule.files != block.files or rule.left or rule.ordering:
        return Update.FILES
    if (rule.group, rule.custodial) != (block.group, block.custodial):
        return Update.META
    return None


def _absent(found: Difference, name: str, block: BlockAtNode | None, rule: RuleAtRse) -> None:
    if block is not None and block.is_open and block.here >= block.files:
        found.same += 1  # an open block with all its files here has lost nothing
        found.unmark += [name] if rule.marked or rule.held_since else []
        return
    surplus = Surplus(Removal.GONE, rule.files) if block is None else _what_is_left(block)
    if rule.keep and not rule.ending:
        found.same += 1
        found.unmark += [name] if rule.marked else []
    elif rule.marked:
        found.pending[name] = surplus
    elif rule.ending:
        found.same += 1
    else:
        found.remove[name] = surplus


def _what_is_left(block: BlockAtNode) -> Surplus:
    return Surplus(Removal.INCOMPLETE, block.files, block.here)


def set_reasons(
    found: Difference, rules: Mapping[str, RuleAtRse], reasons: Mapping[str, Reason], *, keep_partial: bool = False
) -> None:
    """Give the blocks their reasons, and sort them anew by these.

    A mark permits its reason or a milder one; a block with a worse one is to be marked again. What may be the last copy
    is kept: unmarked where it is not marked yet, and with its mark, which is not acted on, where it is. `keep_partial`:
    a block of which files are left at the node stays anyway, and is not marked anew.
    """
    for part in (found.remove, found.pending):
        for name, reason in reasons.items():
            if name in part:
                part[name] = Surplus(reason.why, part[name].files, part[name].here, reason.stuck)
    for name in [name for name, one in found.remove.items() if one.stays]:
        found.kept[name] = found.remove.pop(name)
    found.unmark += [n for n, one in found.kept.items() if rules[n].held_since]
    found.unmark += [n for n, one in found.pending.items() if severity(one.why) < severity(rules[n].why)]
    partial = {name for name, one in found.pending.items() if keep_partial and one.why is Removal.INCOMPLETE}
    worse = [name for name, one in found.pending.items() if not permits(rules[name].why, one.why)]
    for name in [name for name in worse if name not in partial]:
        found.remove[name] = found.pending.pop(name)
    found.kept |= {name: one for name, one in found.pending.items() if one.stays}
    found.remove, found.kept = dict(sorted(found.remove.items())), dict(sorted(found.kept.items()))


def unsettled(found: Difference) -> list[str]:
    """The names of which PhEDEx has nothing at the node: why they are gone is told by what is elsewhere."""
    both = (*found.remove.items(), *found.pending.items())
    return [name for name, one in both if one.why is not Removal.INCOMPLETE]


def keep_incomplete(found: Difference, rules: Mapping[str, RuleAtRse]) -> None:
    """A block of which some files are left at the node stays: it is no difference, and a hold of before is over."""
    kept = [name for name, one in found.remove.items() if one.why is Removal.INCOMPLETE]
    for name in kept:
        del found.remove[name]
    found.same += len(kept)
    found.unmark += [name for name in kept if rules[name].held_since]


def in_doubt(doubts: list[Doubt]) -> Predicate:
    """True for the names in a part of PhEDEx' answer that is not trusted."""
    patterns = [like(doubt.pattern) for doubt in doubts]
    return lambda name: any(inside(name) for inside in patterns)
