"""What is wrong with sites, cycles and commands? Facts in, problems out."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from msgspec import Struct

from common.broker.topology import dead_name
from common.messages.commands import KINDS
from common.messages.events import Closed, Retrying
from common.outcome import Outcome
from common.sync.words import count
from phedex_rucio.overview.facts import Facts, Problem
from phedex_rucio.overview.sites import Held, Open, Site, sites
from phedex_rucio.overview.words import age, clock, listed, since

PILED = 10  # retries at once, or a command's attempt, that are no accident any more
TRIED = 3
LONG = timedelta(hours=24)


class DeadGroup(Struct, frozen=True, kw_only=True):
    """Commands that died of the same error: class, the last message, how many, examples of keys."""

    kind: str
    error: str
    message: str
    number: int
    keys: list[str]
    at: datetime


def found(facts: Facts) -> Iterator[Problem]:
    """The problems of sites and commands; a site that has its own is not also said to be late."""
    rows = sites(facts)
    yield from _dead(facts)
    yield from _stalled(rows, facts)
    yield from _retries(facts)
    yield from _hit(facts)
    told: set[str] = set()
    for row in rows:
        for problem in _site(row, facts):
            told.add(row.node)
            yield problem
    yield from _late([row for row in rows if row.node not in told], facts)


def dead_groups(facts: Facts) -> list[DeadGroup]:
    """The dead commands that the events tell of, by kind and class of error, the largest group first."""
    groups: dict[tuple[str, str], list[Closed]] = {}
    for cycle in facts.state.by_name.values():
        for part in cycle.closed.values():
            if part.outcome is Outcome.DEAD:
                error = part.error.class_ if part.error else "unknown"
                groups.setdefault((part.command, error), []).append(part)
    found = [_group(kind, error, parts) for (kind, error), parts in groups.items()]
    return sorted(found, key=lambda group: -group.number)


def _group(kind: str, error: str, parts: list[Closed]) -> DeadGroup:
    last = max(parts, key=lambda part: part.at)
    message = last.error.message if last.error else ""
    keys = sorted({part.key or part.id for part in parts})
    return DeadGroup(kind=kind, error=error, message=message, number=len(parts), keys=keys[:5], at=last.at)


def _dead(facts: Facts) -> Iterator[Problem]:
    """The queues say how many there are; the events since the look-back say of what, as far as they do."""
    groups = dead_groups(facts)
    for kind in KINDS:
        lying = facts.ready(dead_name(kind))
        if not lying:
            continue
        says = f"{count(lying, 'dead letter')} of {kind}"
        mine = [group for group in groups if group.kind == kind]
        for group in mine[:2]:
            says += f"; {group.number:,} × {group.error}: {group.message} ({listed(group.keys, 2)})"
        if not mine:
            says += f", older than {clock(facts.since, facts.at)}"
        yield Problem(code="dead_letters", says=says, next=[f"phedex-rucio dead list --queue {kind}"])


def _stalled(rows: Iterable[Site], facts: Facts) -> Iterator[Problem]:
    for row in rows:
        for one in row.open:
            if one.stalled:
                yield Problem(code="stalled", says=_stands_still(row, one, facts), next=_ask_again(row, one))


def _stands_still(row: Site, one: Open, facts: Facts) -> str:
    return (
        f"{row.node}: cycle {one.cycle} stands still {since(one.heard, facts.at)}: "
        f"{one.closed:,} of {one.announced:,} commands are closed"
    )


def _ask_again(row: Site, one: Open) -> list[str]:
    return [f"phedex-rucio history {one.cycle}", f"phedex-rucio sync site {row.node}"]


def waiting(facts: Facts) -> list[Retrying]:
    """All retries that have not ended, the next one first."""
    found = [retry for cycle in facts.state.by_name.values() if cycle.retrying for retry in cycle.waiting]
    return sorted(found, key=lambda retry: retry.next_at)


def _retries(facts: Facts) -> Iterator[Problem]:
    """One problem a class of error, once it is no accident any more."""
    by_class: dict[str, list[Retrying]] = {}
    for retry in waiting(facts):
        by_class.setdefault(retry.error.class_, []).append(retry)
    for error, retries in by_class.items():
        tries = max(retry.attempt for retry in retries)
        if len(retries) < PILED and tries < TRIED:
            continue
        last = max(retries, key=lambda retry: retry.at)
        says = f"Waiting for another try: {count(len(retries), 'command')}, after {tries} at most: "
        says += f"{error}: {last.error.message}"
        cycles = sorted({retry.cycle for retry in retries})
        yield Problem(code="retries", says=says, next=[f"phedex-rucio history {cycles[0]}"])


def _site(row: Site, facts: Facts) -> Iterator[Problem]:
    for held in row.held:
        guard = held.guard
        says = f"{row.node}: removals are held since {clock(held.at, facts.at)}: "
        says += "; ".join(guard.says) or guard.limit
        yield Problem(code="held", says=says, next=[_list(row, held)])
    yield from _kept(row)
    yield from _switch(row, facts)
    if row.last is not None and row.last.outcome is Outcome.SKIPPED and row.switch == "on":
        yield _skipped(row)


def _list(row: Site, held: Held) -> str:
    """What lists what is held, block by block: an approval is shown there, for whoever has looked."""
    narrowed = ["--dataset", held.dataset] if held.dataset else []
    return shlex.join(["phedex-rucio", "plan", row.node, *narrowed])


def _kept(row: Site) -> Iterator[Problem]:
    """Blocks that PhEDEx has not at the site and that may be the last copies: what waits, or needs a person."""
    number = row.last.counts.get("kept", 0) if row.last is not None else 0
    if number:
        stay = "stays, for it" if number == 1 else "stay, for they"
        says = f"{row.node}: {count(number, 'block')} that should not be there {stay} may be the last copy"
        yield Problem(code="kept", level="note", says=says, next=[f"phedex-rucio plan {row.node}"])


def _hit(facts: Facts) -> Iterator[Problem]:
    """Rules that others made while the replicas went: they hold nothing, and whoever made them should know."""
    for cycle in facts.state.by_name.values():
        if number := cycle.counts.get("hit", 0):
            says = f"Cycle {cycle.root}: {count(number, 'block')} got a rule of somebody else while "
            says += f"{'its' if number == 1 else 'their'} replicas went: that rule has nothing"
            yield Problem(code="hit", says=says, next=[f"phedex-rucio history {cycle.root}"])


def _skipped(row: Site) -> Problem:
    """Without an RSE or frozen by what Rucio was not asked for: its notes tell."""
    assert row.last is not None
    why = "; ".join(row.last.notes) or f"{row.node}: skipped"
    if "no RSE" in why:
        says = f"{why}: nothing is synced there"
        return Problem(code="no_rse", says=says, next=[f"phedex-rucio setup {row.node}"])
    return Problem(code="skipped", level="note", says=why, next=[f"phedex-rucio site list {row.node}"])


def _switch(row: Site, facts: Facts) -> Iterator[Problem]:
    state = (facts.switches or {}).get(row.node)
    if state is None or state.switch == "on":
        return
    says = f"{row.node} is {state.switch}"
    if state.handed_over:
        says += f", handed over to {state.handed_over}"
    elif state.unreadable:
        says += f": its switch says {state.unreadable!r}, which nobody can read"
    if state.note.at:
        says += f" since {state.note.at} by {state.note.by or 'somebody'}: {state.note.why}"
    following = [] if state.handed_over else [f"phedex-rucio site resume {row.node} --reason …"]
    yield Problem(code="switched", level="note", says=says, next=following)


def _late(rows: Iterable[Site], facts: Facts) -> Iterator[Problem]:
    """Sites that the clock should keep true, and that were not made true as a whole for long."""
    for row in rows:
        policy = facts.settings.sites.get(row.node)
        if policy is None or row.last is None or policy.dry or (row.due is not None and row.due.off):
            continue
        limit = max(3 * timedelta(seconds=policy.every), LONG)
        if row.in_sync_as_of is None and facts.at - facts.since < limit:
            continue  # it may have been before what was read
        if row.in_sync_as_of is None or facts.at - row.in_sync_as_of > limit:
            yield _not_in_sync(row, facts, row.last.outcome)


def _not_in_sync(row: Site, facts: Facts, outcome: Outcome) -> Problem:
    was = f"in sync as of {clock(row.in_sync_as_of, facts.at)}, not later" if row.in_sync_as_of else "not in sync once"
    says = f"{row.node}: {was} in the last {age(facts.at - facts.since)}; its last cycle: {outcome}"
    return Problem(code="not_in_sync", says=says, next=[f"phedex-rucio history {row.node}"])
