"""How is each site? Cycles in, a row a site out."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from msgspec import Struct

from common.cycles import NARROW, Cycle, synced_as_of
from common.messages.events import Closed, GuardReport, Retrying
from common.messages.meta import child_id
from common.outcome import Outcome
from phedex_rucio.overview.facts import Due, Facts


class Last(Struct, frozen=True, kw_only=True):
    """The last cycle of a site that ended."""

    cycle: str
    at: datetime
    outcome: Outcome
    counts: dict[str, int] = {}
    notes: list[str] = []


class Open(Struct, frozen=True, kw_only=True):
    """A cycle that is not finished: how far it is, what of it waits for another try, since when nothing happened."""

    cycle: str
    begun: datetime
    heard: datetime
    closed: int
    announced: int
    waiting: list[Retrying] = []
    stalled: bool = False


class Held(Struct, frozen=True, kw_only=True):
    """What a guard holds back, of the whole site or of a dataset or pattern there."""

    cycle: str
    at: datetime
    guard: GuardReport
    dataset: str = ""


class Site(Struct, kw_only=True):
    """A site. `in_sync_as_of`: PhEDEx' own time of the last reading that was made true as a whole."""

    node: str
    in_sync_as_of: datetime | None = None
    last: Last | None = None
    open: list[Open] = []
    held: list[Held] = []
    due: Due | None = None
    switch: str = "on"


def sites(facts: Facts) -> list[Site]:
    """A row for every site that the events or the settings name, or whose switch is turned; in order of name."""
    rows = {node: Site(node=node) for node in (*facts.settings.sites, *(facts.switches or {}))}
    plans: dict[str, list[tuple[Closed, Cycle]]] = {}
    for cycle in facts.state.by_name.values():
        for plan in plans_of(cycle):
            plans.setdefault(node_of(plan), []).append((plan, cycle))
        if (node := _node_asked(cycle)) is not None:
            _add(rows.setdefault(node, Site(node=node)), cycle, facts)
    for node, made in plans.items():
        rows.setdefault(node, Site(node=node)).held = _held(made)
    for node, row in rows.items():
        row.due = facts.due.get(node)
        row.switch = str(facts.switches[node].switch) if facts.switches and node in facts.switches else "on"
    return [rows[node] for node in sorted(rows)]


def node_of(part: Closed) -> str:
    """The node that a part of a cycle is about."""
    return part.key.split(" ")[0]


def _node_asked(cycle: Cycle) -> str | None:
    """The node of a `sync.site` cycle, as far as its root is known; None for any other."""
    root = cycle.closed.get(cycle.root)
    if cycle.command.get("kind") == "sync.site":
        return str(cycle.command.get("node", "")) or None
    return node_of(root) if root is not None and root.command == "sync.site" and root.key else None


def _add(row: Site, cycle: Cycle, facts: Facts) -> None:
    if not cycle.finished:
        found = _open(cycle, facts)
        row.open = sorted([*row.open, *([found] if found else [])], key=lambda one: one.begun)
        return
    if row.last is None or (cycle.last_at is not None and row.last.at <= cycle.last_at):
        row.last = last_of(cycle)
    if as_of := synced_as_of(cycle):
        row.in_sync_as_of = max(filter(None, (row.in_sync_as_of, as_of)))


def plans_of(cycle: Cycle) -> Iterator[Closed]:
    """The first pages of the plans in a cycle (only they look at removals): its root, or what a dataset's sent out."""
    root = cycle.closed.get(cycle.root)
    if root is None:
        return
    if root.command == "sync.site":
        yield root
    elif root.command == "sync.dataset":
        for number in range(root.children):
            part = cycle.closed.get(child_id(cycle.root, cycle.root, root.run, number))
            if part is not None and part.command == "sync.site":
                yield part


def last_of(cycle: Cycle) -> Last:
    """A finished cycle in short; the notes are those of its plan."""
    root = cycle.closed[cycle.root]
    return Last(cycle=cycle.root, at=cycle.ended_at, outcome=cycle.outcome, counts=cycle.counts, notes=root.notes)


def _held(made: list[tuple[Closed, Cycle]]) -> list[Held]:
    """The last word on each question counts; one on the whole site answers for all that went before."""
    held: dict[str, Held] = {}
    for plan, cycle in sorted(made, key=lambda pair: pair[0].at):
        question = plan.key + (" (narrowed)" if any(cycle.command.get(word) for word in NARROW) else "")
        if question == node_of(plan):
            held.clear()
        held.pop(question, None)
        if plan.guard is not None and plan.guard.limit:
            dataset = plan.key.partition(" ")[2]
            held[question] = Held(cycle=cycle.root, at=plan.at, guard=plan.guard, dataset=dataset)
    return list(held.values())


def _open(cycle: Cycle, facts: Facts) -> Open | None:
    """None for a cycle of which neither the question nor the root's end is among the events: it began before them."""
    begun = cycle.asked_at or (cycle.closed[cycle.root].at if cycle.root in cycle.closed else None)
    if begun is None or cycle.last_at is None:
        return None
    quiet = (facts.at - cycle.last_at).total_seconds()
    closed, announced = cycle.sizes
    return Open(
        cycle=cycle.root,
        begun=begun,
        heard=cycle.last_at,
        closed=closed,
        announced=announced,
        waiting=cycle.waiting,
        stalled=quiet > facts.settings.main.stalled_after and not facts.state.away,
    )
