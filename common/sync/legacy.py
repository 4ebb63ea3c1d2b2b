"""What may older tools have left at a site? The words for it, and what each needs; nothing acts on them here."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from common.sync.catalogue import RuleAtRse
from common.sync.findings import Finding, Kind
from common.sync.handover import Held

EXAMPLES = 5


class Left(StrEnum):
    """What was left, besides what a comparison of files finds (`findings.Kind`)."""

    FORMER_OWNER = "former_owner"
    NO_META = "no_meta"
    EXPIRING = "expiring"
    DOUBLED = "rule_doubled"
    SURPLUS = "rule_surplus"
    REPLICA_NO_RULE = "replica_no_rule"
    ORPHAN_BLOCK = "orphan_block"
    OLD_EXPRESSION = "old_expression"
    NO_BLOCK = "no_block"


MEANING = {
    Left.FORMER_OWNER: "rules of the account of an older tool",
    Left.NO_META: "rules without the PhEDEx group and custodial flag",
    Left.EXPIRING: "rules that expire",
    Left.DOUBLED: "blocks with more than one rule",
    Left.SURPLUS: "rules for blocks that PhEDEx has not whole here: the first sync's guard decides",
    Left.REPLICA_NO_RULE: "replicas of blocks that PhEDEx has here, under no rule of ours",
    Left.ORPHAN_BLOCK: "datasets with replicas here, under nobody's rule, and not in PhEDEx: left alone",
    Left.OLD_EXPRESSION: "rules with the expression rse=…: as good as ours, Rucio cannot change it",
    Left.NO_BLOCK: "rules of these accounts on a container or a file: nobody's matter here, left alone",
    Kind.RULE_DIFFERS: "rules that say or hold something else than PhEDEx",
    Kind.NOT_IN_CONTAINER: "datasets out of their container",
    Kind.FILE_MISSING: "files that are not in their block",
    Kind.FILE_UNLISTED: "files in a block where PhEDEx does not list them: left alone",
    Kind.CONFLICT: "files with another size or checksum than PhEDEx: left alone",
    Kind.REPLICA_MISSING: "files under a rule without a replica",
    Kind.REPLICA_UNAVAILABLE: "replicas that are not available",
    Kind.ORPHAN: "replicas of files that are in no block: left alone",
    Kind.UNREAD: "blocks whose files PhEDEx did not tell reliably",
}
REMARKS = (Left.OLD_EXPRESSION, Left.NO_BLOCK)  # nothing is wrong with these

# What a deep batch puts right (`consumers/apply`); the owner is changed beside it.
MENDED = {
    *(Left.NO_META, Left.EXPIRING, Left.DOUBLED, Left.REPLICA_NO_RULE, Kind.RULE_DIFFERS, Kind.NOT_IN_CONTAINER),
    *(Kind.FILE_MISSING, Kind.REPLICA_MISSING, Kind.REPLICA_UNAVAILABLE),
}
# Counted by the stream of rules, or ordinary for a block that was never synced.
_ELSEWHERE = (Kind.RULE_MISSING, Kind.RULE_DOUBLED, Kind.RULE_SURPLUS)
_OF_NO_RULE = (Kind.CONFLICT, Kind.NOT_IN_CONTAINER, Kind.REPLICA_UNAVAILABLE, Kind.FILE_UNLISTED, Kind.ORPHAN)


@dataclass
class Legacy:
    """What was looked at at a node and what was found: numbers, a few examples, and the names that need work.

    `former`: the rules whose owner is to be another. `lasting`: what a comparison found and no repair mends.
    `files_counted`: Rucio's own count of files at the RSE, -1 for none; `files_held`: those under rules of ours.
    """

    node: str
    rse: str
    rules: int = 0
    blocks: int = 0
    files: int = 0
    files_counted: int = -1
    files_held: int = 0
    doubts: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    to_mend: set[str] = field(default_factory=set)
    former: list[Held] = field(default_factory=list)
    lasting: list[tuple[Kind, str, str]] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """True where nothing was left that is not as the sync would have it."""
        return not (self.doubts or self.counts.keys() - set(REMARKS))

    def add(self, kind: Left | Kind, block: str, example: str = "", *, number: int = 1) -> None:
        """So many more of this kind, at this block."""
        self.counts[str(kind)] += number
        shown = self.examples.setdefault(str(kind), [])
        if len(shown) < EXAMPLES:
            shown.append(example or block)
        if kind in MENDED:
            self.to_mend.add(block)
        elif isinstance(kind, Kind):
            self.lasting.append((kind, block, example))


def count_rule(found: Legacy, rule: RuleAtRse, held: Held, *, owner: str, has_meta: bool) -> None:
    """One rule of ours, seen in the stream."""
    found.rules += 1
    if rule.ending:
        return
    if held.account != owner:
        found.add(Left.FORMER_OWNER, held.name, f"{held.name} ({held.account})")
        found.former.append(held)
    if not has_meta:
        found.add(Left.NO_META, held.name)
    if not rule.plain:
        found.add(Left.OLD_EXPRESSION, held.name)


def count_rules(found: Legacy, name: str, rules: list[RuleAtRse]) -> None:
    """All rules of ours on one block. One that ends beside another that stays is nothing, nor is one that was swept."""
    live = sum(not rule.ending for rule in rules)
    if live > 1:
        found.add(Left.DOUBLED, name)
    elif not live and not any(rule.marked for rule in rules):
        found.add(Left.EXPIRING, name)


def count_block(
    found: Legacy, name: str, files: int, findings: list[Finding], *, has_rule: bool, strange: bool
) -> None:
    """What a comparison of one block found, less what is ordinary for a block that was never synced."""
    missing = sum(one.kind is Kind.REPLICA_MISSING for one in findings)
    unread = any(one.kind is Kind.UNREAD for one in findings)
    if not has_rule and not unread and missing < files:
        found.add(Left.REPLICA_NO_RULE, name, f"{name}: {files - missing} files", number=files - missing)
    for one in findings:
        if one.kind in _ELSEWHERE or (strange and one.kind is Kind.RULE_DIFFERS and one.detail.startswith("group")):
            continue
        if has_rule or one.kind in _OF_NO_RULE or one.kind is Kind.UNREAD:
            found.add(one.kind, name, " ".join(filter(None, (one.block, one.file, one.detail))))


def carry_over(before: Legacy, after: Legacy) -> None:
    """What a second look, at the mended blocks alone, did not see again: blocks looked at, and what lasts elsewhere."""
    after.blocks, after.files = before.blocks, before.files
    for kind, block, example in before.lasting:
        if block not in before.to_mend:
            after.add(kind, block, example)
