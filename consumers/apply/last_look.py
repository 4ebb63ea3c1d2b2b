"""The last look at some marked blocks: all that decides whether they may go, read within seconds before they do.

In the order announcements, rules, replicas: whoever says something after its part was read has read our announcement.
A look decides nothing about a block but that it may not go, which is the block's fate then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from common.messages.meta import now
from common.rucio import announcements, dids, replicas
from common.rucio import rules as rucio_rules
from common.rucio.inventory import is_ours, rule_of
from common.rucio.replicas import Standing
from common.rucio.rses import Switch, announced, attributes_of, closed, switch_of
from common.rucio.session import Row, clock
from common.sync.catalogue import BlockAtNode, RuleAtRse
from common.sync.marks import severity
from consumers.apply import beyond, foreign_locks, rules
from consumers.apply.batch import Fate
from consumers.apply.beyond import Known, stands
from consumers.apply.contents import Files
from consumers.apply.removals import Work, contradiction, end_to_come, is_due, not_swept, sweep_needs_person
from consumers.apply.task import Halted, Task, check_on, check_open

LOCKS = ("locks_ok_cnt", "locks_replicating_cnt", "locks_stuck_cnt")


@dataclass
class Look:
    """What the sweep of a few blocks goes by. `began`: when its first request was sent, by the session's clock."""

    began: float
    names: list[str]
    known: Known = field(default_factory=Known)
    here: dict[str, BlockAtNode] = field(default_factory=dict)  # what PhEDEx has of them at this node
    rows: dict[str, list[Row]] = field(default_factory=dict)  # the rules on each block, anybody's and anywhere
    ours: dict[str, list[RuleAtRse]] = field(default_factory=dict)  # our own here
    inside: dict[str, Files] = field(default_factory=dict)  # the files that each block has now
    files: dict[str, Files] = field(default_factory=dict)  # those and the ones that were detached before
    standing: dict[str, dict[str, Standing]] = field(default_factory=dict)
    places: dict[str, set[str]] = field(default_factory=dict)  # other RSEs that can be relied on
    foreign: dict[str, set[str]] = field(default_factory=dict)  # files that others hold here
    clash: set[str] = field(default_factory=set)  # blocks of which somebody else has announced a sweep

    def drop(self, names: Iterable[str]) -> None:
        """These blocks are not swept now."""
        gone = set(names)
        self.names = [name for name in self.names if name not in gone]


def take_look(
    task: Task,
    work: Work,
    names: list[str],
    key: str,
    only: Mapping[str, list[str]] | None = None,
    *,
    begun: bool = False,
) -> Look:
    """All that decides, read now; blocks that may not go have their fate. `only`: some files of each block alone.

    `key`: of our own announcement. `begun`: replicas of them went already. Raises Halted where the site as a whole does
    not allow it.
    """
    look = Look(clock(), list(names))
    _read_site(task, look, key)
    _read_phedex(task, work, look)
    _read_rules(task, look)
    _still_due(task, work, look, begun=begun)
    _read_replicas(task, look, only)
    if only is None:
        _settled(task, look)
    look.foreign = foreign_locks.held(
        task.sides.rucio, task.batch.site, look.standing, look.rows, rucio_rules.locks(task.sides.rucio, look.names)
    )
    return look


def _read_site(task: Task, look: Look, key: str) -> None:
    """The switch, whether the RSE lets anything be deleted, and who else has announced a sweep here."""
    attributes = attributes_of(task.sides.rucio, task.rse)
    check_on(Switch.FROZEN if attributes is None else switch_of(attributes), task.rse)
    check_open(task, task.rse)
    found = announcements.of(attributes or {})
    if (unreadable := next((one for one in found if one.hashes is None), None)) is not None:
        raise Halted(
            f"the attribute {unreadable.key} of {task.rse} is an announcement that nobody can read: look, and unset it"
        )
    live, over = announcements.parted(found, now().timestamp(), task.sides.rucio.main.announcement_lifetime)
    clash = announcements.about(live, look.names, besides=key)
    gone = {name for name in clash if _shows_its_end(task, name)}
    look.clash |= clash - gone
    look.drop(look.clash)
    for one in over:
        announcements.withdraw(task.sides.rucio, task.rse, one.key)  # the replicas are looked at next


def _shows_its_end(task: Task, name: str) -> bool:
    """True where nothing of an announced block is left here: its delete, whose answer did not come, is done."""
    inside = dids.contents(task.sides.rucio, [name])[name]
    former = dids.former(task.sides.rucio, name)
    standing = replicas.standing(task.sides.rucio, inside.keys() | former.keys())
    return bool(inside or former) and not any(task.rse in one.states for one in standing.values())


def _read_phedex(task: Task, work: Work, look: Look) -> None:
    """PhEDEx again: the block at this node, and where else it is."""
    if not look.names:
        return
    here = look.here = task.sides.phedex.blocks_at(task.batch.node, look.names)
    back = [name for name, block in here.items() if block.complete]
    for name in back:
        task.batch.end(name, Fate.DOUBTFUL, f"{name}: PhEDEx has it at {task.batch.node} again")
    look.drop(back)
    for name in [name for name, block in here.items() if block.is_open and block.here >= block.files]:
        task.batch.end(name, Fate.PENDING, f"{name}: PhEDEx has it at {task.batch.node}, open, with all of its files")
    look.drop(name for name in list(look.names) if name in task.batch.fates)
    keep = task.policy.incomplete == "keep"
    for name in [name for name in look.names if keep and name in here]:
        task.batch.end(name, Fate.PENDING, f"{name}: PhEDEx has some of it here, and `incomplete: keep`")
    look.drop(name for name in look.names if name in task.batch.fates)
    look.known = beyond.read(
        task.sides,
        task.own(work.found.ours),
        look.names,
        controls=task.command.controls,
        here=[name for name in look.names if name in here],
    )
    for name in look.names:
        if says := contradiction(task, look.known, name, here=name in here):
            task.batch.end(name, Fate.DOUBTFUL, says)
    look.drop(name for name in look.names if name in task.batch.fates)


def _read_rules(task: Task, look: Look) -> None:
    """First the announcements at the places to rely on, then all rules on the blocks, here and there.

    A place that cannot be read from, or may lose what it has at any time, is none.
    """
    rses = {rse for name in look.names for rse in look.known.places[name]}
    unsure = {rse for rse in rses if closed(task.sides.rucio, rse).unsure}
    for name in look.names:
        look.known.places[name] -= unsure
    rses -= unsure
    live: dict[str, list[announcements.Announcement]] = {}
    for rse in sorted(rses):
        live[rse], over = announced(task.sides.rucio, rse, now().timestamp())
        for one in over:
            announcements.withdraw(task.sides.rucio, rse, one.key)
    for rse in rses:
        theirs = announcements.about(live[rse], look.names)
        look.clash |= {name for name in theirs if rse in look.known.places[name]}
    look.drop(look.clash)
    for name in look.names:
        look.rows[name] = list(rucio_rules.of_dataset(task.sides.rucio, name))
        look.ours[name] = [rule_of(row, task.batch.site) for row in look.rows[name] if is_ours(row, task.batch.site)]


def _still_due(task: Task, work: Work, look: Look, *, begun: bool) -> None:
    """What was read last counts: the reason, the mark, a person's keep and lock, whether only a person removes it.

    A keep comes too late once replicas went, and `undo` says so: it would only leave locks without them.
    """
    fresh = Work(replace(work.found, every=look.ours), look.known)
    for name in look.names:
        standing = [rule for rule in look.ours[name] if not rule.ending]
        why = look.known.reasons[name].why
        if (any(rule.keep for rule in look.ours[name]) and not begun) or not standing:
            task.batch.end(name, Fate.PENDING, f"{name}: its mark was taken back a moment ago")
        elif not begun and (note := end_to_come(name, rules.ends_of(look.rows[name], task.batch.site))):
            task.batch.end(name, Fate.PENDING, note)
        elif task.is_locked(standing):
            task.batch.end(name, Fate.LOCKED, f"{name}: a person locked its rule {standing[0].id}: it stays")
        elif severity(why) > severity(work.why(name).why):
            note = f"{name}: {why} now, and {work.why(name).why} a moment ago: left for the next cycle"
            task.batch.end(name, Fate.PENDING, note)
        elif not is_due(task, standing, why):
            task.batch.end(name, Fate.PENDING, f"{name}: its mark does not permit it: {why}")
        elif limit := sweep_needs_person(task, fresh, name, look.here.get(name), begun=begun):
            task.batch.end(name, Fate.PENDING, not_swept(name, why, limit))
    look.drop(name for name in look.names if name in task.batch.fates)


def _read_replicas(task: Task, look: Look, only: Mapping[str, list[str]] | None) -> None:
    rucio = task.sides.rucio
    look.inside = dids.contents(rucio, look.names)
    look.files = {name: dids.former(rucio, name) | look.inside[name] for name in look.names}
    wanted = {name: set(only[name]) if only else look.files[name].keys() for name in look.names}
    standing = replicas.standing(rucio, {file for listed in wanted.values() for file in listed})
    for name in look.names:
        mine = {file: standing[file] for file in wanted[name]}
        strays = [file for file, one in mine.items() if file not in look.inside[name] and one.parents]
        for file in strays:  # left this block for another
            del mine[file]
        look.standing[name] = mine
        rows, number = look.rows[name], len(look.inside[name])
        look.places[name] = {rse for rse in look.known.places[name] if stands(task.sides.sites, rows, rse, number)}


def _settled(task: Task, look: Look) -> None:
    """A block waits while Rucio has not given its rule the locks of all its files.

    It would give them to a rule that ends as well, and queue a transfer of a file whose replica went (41.5.1). Where
    replicas are missing already the sweep has begun, and goes on.
    """
    rows = {row["id"]: row for name in look.names for row in look.rows[name]}
    behind = [
        name
        for name in look.names
        if not all(_has_locks(task, look, rows[rule.id]) for rule in look.ours[name] if not rule.ending)
    ]
    for name in behind:
        task.batch.end(name, Fate.PENDING, f"{name}: waits until Rucio's evaluator has seen files that joined it")
    look.drop(behind)


def _has_locks(task: Task, look: Look, row: Row) -> bool:
    """True where the rule has a lock on each file of its block.

    Their number tells, but for a block that lost files: the lock of one that left may stand for one that joined.
    """
    name = row["name"]
    inside = look.inside[name].keys()
    if sum(row.get(key) or 0 for key in LOCKS) < len(inside):
        return False
    return look.files[name].keys() <= inside or inside <= rucio_rules.locked_by(task.sides.rucio, row["id"], task.rse)


def apart(look: Look) -> list[str]:
    """The blocks that share a file with one before them: their turn comes when that one's rule is over."""
    seen: set[str] = set()
    later = []
    for name in look.names:
        if seen.isdisjoint(look.standing[name]):
            seen |= look.standing[name].keys()
        else:
            later.append(name)
    look.drop(later)
    return later
