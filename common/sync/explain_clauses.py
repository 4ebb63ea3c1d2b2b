"""Clauses that `explain` says of a block that PhEDEx does not have complete at the node; they decide nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from common.sync.answer import at
from common.sync.catalogue import BlockAtNode
from common.sync.marks import GONE_APPROVED, GONE_BY, GONE_CYCLE, GONE_HELD, GONE_WHY, keep_of
from common.sync.one_block import Facts, LastCopy, RuleSeen
from common.sync.words import count


def later(block: BlockAtNode | None) -> str:
    """When a block of which not all is there is added."""
    if block is None:
        return ""
    return " (it is added when PhEDEx has closed it)" if block.here >= block.files else " (it is added when complete)"


def are(number: int) -> str:
    """The verb for so many."""
    return "is" if number == 1 else "are"


def kept_by(rule: RuleSeen) -> str:
    """Who keeps the block, and since when."""
    keep = keep_of(rule.meta, rule.comment)
    if keep is None:
        return "a person"
    return f"{keep.by or 'a person'} (at {keep.at or 'an unknown time'})"


def complete_elsewhere(facts: Facts) -> list[str]:
    """The other nodes that have it complete."""
    places = facts.phedex.places if facts.phedex else {}
    return sorted(node for node, part in places.items() if part.complete and node not in (facts.node, facts.source))


def mark_told(rule: RuleSeen) -> str:
    """Since when, by which cycle, why and by whom it is marked, as a sentence."""
    since = "an unknown time"
    if rule.ours is not None and (moment := time_at(rule.ours.gone_since)):
        since = at(moment)
    said = f"Marked at {since} by cycle {rule.meta.get(GONE_CYCLE) or 'unknown'}"
    said += f" ({rule.meta[GONE_WHY]})" if rule.meta.get(GONE_WHY) else ""
    said += f", sent by {rule.meta[GONE_BY]}" if rule.meta.get(GONE_BY) else ""
    said += f", approved as {rule.meta[GONE_APPROVED]}" if rule.meta.get(GONE_APPROVED) else ""
    return said + (f"; held since: {rule.meta[GONE_HELD]}" if rule.meta.get(GONE_HELD) else "")


def time_at(seconds: float) -> datetime | None:
    """The time of epoch seconds; None for what no calendar holds."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError):
        return None


def last_told(last: LastCopy) -> str:
    """That it would be the last copy, as a clause."""
    return f"it would be the last copy of {last.file} ({last.why}), so the whole block stays."


def takers_told(last: LastCopy) -> Iterator[str]:
    """Who is asked to have it in Rucio."""
    if last.takers:
        have = "has" if len(last.takers) == 1 else "have"
        yield f"{', '.join(last.takers[:5])} {have} it in PhEDEx and is asked to have it in Rucio; then it goes here."


def foreseen(facts: Facts) -> Iterator[str]:
    """What the last-copy rule would say if it were due now."""
    if facts.last_copy is not None and facts.last_copy.file:
        yield f"As things are it would then be held: {last_told(facts.last_copy)}"
        yield from takers_told(facts.last_copy)


def sweep_counts(last: LastCopy | None) -> str:
    """How many replicas a sweep would delete, in brackets."""
    if last is None:
        return ""
    foreign = f", {last.foreign:,} stay for others" if last.foreign else ""
    return f" ({count(last.delete, 'replica')} to delete{foreign})"


def has(facts: Facts, block: BlockAtNode | None) -> str:
    """What PhEDEx has of it at the node, as a clause."""
    assert facts.phedex is not None
    if not facts.phedex.known:
        return "PhEDEx does not know the block at all"
    if block is None:
        return f"PhEDEx does not have it at {facts.source}"
    if block.is_open and block.here >= block.files:
        return f"PhEDEx has it open at {facts.source}, with all its {count(block.files, 'file')} so far"
    state = "open, " if block.is_open else ""
    return f"PhEDEx has it {state}with {block.here:,} of {count(block.files, 'file')} at {facts.source}"
