"""What can be wrong with a block in Rucio, file by file? Plain findings of a comparison; nothing acts on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum

from msgspec import Struct

from common.sync.catalogue import BlockAtNode, File, RuleAtRse


class Kind(StrEnum):
    """What is wrong."""

    RULE_MISSING = "rule_missing"
    RULE_SURPLUS = "rule_surplus"
    RULE_DOUBLED = "rule_doubled"
    RULE_DIFFERS = "rule_differs"
    NOT_IN_CONTAINER = "not_in_container"
    FILE_MISSING = "file_missing"
    FILE_UNLISTED = "file_unlisted"
    CONFLICT = "conflict"
    REPLICA_MISSING = "replica_missing"
    REPLICA_UNAVAILABLE = "replica_unavailable"
    ORPHAN = "orphan"
    UNREAD = "unread"


class Finding(Struct, frozen=True, omit_defaults=True):
    """One thing that is wrong, with its block, its file where it is about one, and what both sides say."""

    kind: Kind
    block: str
    file: str = ""
    detail: str = ""
    phedex: File | None = None
    rucio: File | None = None
    rses: list[str] = []


class InRucio(Struct, frozen=True, kw_only=True):
    """A block as Rucio has it at one RSE: its files, those it knows elsewhere, and each file's replicas (RSE → state).

    `orphans`: replicas here of files that once were in it and are in nothing now.
    """

    rules: list[RuleAtRse]
    inside: Mapping[str, File]
    known: Mapping[str, File]
    in_container: bool
    states: Mapping[str, Mapping[str, str]]
    orphans: list[str]


def compare(name: str, block: BlockAtNode, listed: Mapping[str, File], there: InRucio, rse: str) -> Iterator[Finding]:
    """All that is wrong with a block that is complete at its node."""
    yield from _rules(name, block, there.rules)
    if there.inside and not there.in_container:
        yield Finding(Kind.NOT_IN_CONTAINER, name)
    for _, wanted in sorted(listed.items()):
        yield from _file(name, wanted, there, rse)
    for file in sorted(there.inside.keys() - listed.keys()):
        yield Finding(Kind.FILE_UNLISTED, name, file, "PhEDEx does not list it in the block")
    for file in there.orphans:
        yield Finding(Kind.ORPHAN, name, file, f"a replica at {rse} of a file that is in no block")


def _rules(name: str, block: BlockAtNode, rules: list[RuleAtRse]) -> Iterator[Finding]:
    live = [rule for rule in rules if not rule.ending]
    if not live:
        yield Finding(Kind.RULE_MISSING, name, detail="its rule ends" if rules else "")
        return
    if len(live) > 1:
        yield Finding(Kind.RULE_DOUBLED, name, detail=", ".join(rule.id for rule in live))
    for rule in live:
        if rule.files != block.files:
            yield Finding(Kind.RULE_DIFFERS, name, detail=f"{rule.files} files locked, PhEDEx has {block.files}")
        if rule.marked or rule.keep:
            yield Finding(Kind.RULE_DIFFERS, name, detail="marked or kept, and PhEDEx has the block")
        if len(live) == 1 and (rule.group, rule.custodial) != (block.group, block.custodial):
            yield Finding(Kind.RULE_DIFFERS, name, detail="group or custodial flag")


def _file(name: str, wanted: File, there: InRucio, rse: str) -> Iterator[Finding]:
    states = there.states.get(wanted.name, {})
    theirs = there.inside.get(wanted.name) or there.known.get(wanted.name)
    if theirs is not None and _differs(wanted, theirs):
        yield Finding(Kind.CONFLICT, name, wanted.name, "", wanted, theirs, sorted(states))
    if wanted.name not in there.inside:
        yield Finding(Kind.FILE_MISSING, name, wanted.name)
    if rse not in states:
        yield Finding(Kind.REPLICA_MISSING, name, wanted.name)
    elif states[rse] != "AVAILABLE":
        yield Finding(Kind.REPLICA_UNAVAILABLE, name, wanted.name, states[rse])


def _differs(ours: File, theirs: File) -> bool:
    """A checksum that one side lacks differs from nothing."""
    return ours.bytes != theirs.bytes or bool(ours.adler32 and theirs.adler32 and ours.adler32 != theirs.adler32)
