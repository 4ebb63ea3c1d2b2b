"""What does the guard look at? Both readings of a site, counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from common.sync.catalogue import BlockAtNode, Reading, RuleAtRse, is_custodial
from common.sync.diff import Difference, Surplus, in_doubt
from common.sync.guard import Case, Leaving, Tally
from common.sync.limits import Budget
from common.sync.marks import Removal
from common.sync.selection import Predicate, like
from common.sync.words import count, percent

EVERYTHING = ("*", "/*/*/*")


def without_size(reading: Reading, rules: Mapping[str, RuleAtRse], found: Difference) -> list[str]:
    """The names whose bytes only PhEDEx' catalogue can tell: to be marked or marked, and not at the node at all.

    The marked ones are those of the whole RSE, for what they take of the budget does not depend on a selection.
    """
    marked = (name for name, rule in rules.items() if rule.marked)
    return [name for name in dict.fromkeys([*found.remove, *marked]) if name not in reading.blocks]


def loose(rules: Mapping[str, RuleAtRse]) -> list[str]:
    """The marks that no person approved and that are not swept yet: together they must not pass the budget."""
    return [name for name, rule in rules.items() if rule.marked and not rule.approved and not rule.ending]


def case_of(
    asked: tuple[str, str, str, str],
    reading: Reading,
    rules: Mapping[str, RuleAtRse],
    found: Difference,
    *,
    at: datetime,
    policy: Predicate,
    keep_partial: bool,
    bytes_of: Mapping[str, int],
    budget: Budget,
) -> Case:
    """The case of (node, RSE, dataset pattern, the command as typed), of a plan that began to read at that time.

    `policy`: the site's own selection, for *shrunk* compares all of the pattern whatever a command narrows it to.
    `bytes_of`: of the names of `without_size` that PhEDEx knows.
    """
    node, rse, dataset, command = asked
    inside = like(dataset)
    doubted = in_doubt(reading.doubts)
    read = {name for name in rules if inside(name) and policy(name) and not doubted(name)}
    present = {name for name, block in reading.blocks.items() if block.complete and policy(name)}
    proven = {n for part in (found.remove, found.pending) for n, one in part.items() if one.why is Removal.NOWHERE}
    custodial = {name for name in found.pending if is_custodial(rules[name], reading.blocks.get(name))}
    return Case(
        node=node,
        rse=rse,
        dataset=dataset,
        command=command,
        budget=budget,
        at=at,
        remove={name: _leaving(reading, rules[name], name, one, bytes_of) for name, one in found.remove.items()},
        pending={name: one.why for name, one in found.pending.items()},
        marked_at={name: rules[name].gone_since for name in found.pending},
        locked={name for name in found.pending if rules[name].locked},
        custodial=custodial,
        unseen={name for name in custodial if not rules[name].marked_custodial},
        site=tally(rules.values()),
        own=None if dataset in EVERYTHING else tally(rule for name, rule in rules.items() if inside(name)),
        spent_bytes=sum(_bytes(reading, name, bytes_of) for name, rule in rules.items() if rule.marked),
        present=len(present),
        loose={name: _bytes(reading, name, bytes_of) for name in loose(rules)},
        standing=sum(
            _should_stand(rules[name], name in present, reading.blocks.get(name), keep_partial)
            for name in read
            if name not in proven
        ),
        proven=len(proven),
    )


def tally(rules: Iterable[RuleAtRse]) -> Tally:
    """How many rules, and how many of them are marked."""
    marks = [rule.marked for rule in rules]
    return Tally(len(marks), sum(marks))


def _should_stand(rule: RuleAtRse, present: bool, block: BlockAtNode | None, keep_partial: bool) -> bool:
    """False for a rule whose block is absent for a reason that was decided: marked, kept, ending, or policy."""
    decided = rule.marked or rule.keep or rule.ending or (keep_partial and block is not None)
    return present or not decided


def _leaving(reading: Reading, rule: RuleAtRse, name: str, surplus: Surplus, bytes_of: Mapping[str, int]) -> Leaving:
    return Leaving(
        surplus.why,
        _bytes(reading, name, bytes_of),
        custodial=is_custodial(rule, reading.blocks.get(name)),
        locked=rule.locked,
        marked=rule.marked,
        hold=rule.hold,
    )


def _bytes(reading: Reading, name: str, bytes_of: Mapping[str, int]) -> int:
    block = reading.blocks.get(name)
    return bytes_of.get(name, 0) if block is None else block.bytes


FEW_FILES = 10  # no mass, however few the files of a site are


def most_files(share: float, every: int) -> float:
    """So many of these files may leave their blocks at one time: the share of them, and a few in any case but for 0."""
    return max(FEW_FILES if share else 0, share * every)


def over_files(reading: Reading, rules: Mapping[str, RuleAtRse], found: Difference, budget: Budget) -> str:
    """Why so many files as PhEDEx lists no more are not to leave their blocks at once; "" where they may.

    By numbers alone: the locks of each rule, and the files of its block. A site loses no larger share of its files than
    of its rules.
    """
    gone = sum(max(0, rules[name].files - reading.blocks[name].files) for name in found.update if name in rules)
    every = sum(rule.files for rule in rules.values())
    if gone <= most_files(budget.share, every):
        return ""
    share = percent(gone / every)
    return (
        f"{count(gone, 'file')} of {count(every, 'file')} ({share}) are listed no more, limit {percent(budget.share)}"
    )
