"""In which steps does a block leave? A mark in its rule first; when the mark is old enough its replicas, then the rule.

A crash between any two steps leaves a marked rule, and the next batch goes on from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from common.messages.commands import SyncBlocks
from common.messages.meta import now
from common.names import dataset_of
from common.rucio import dids, replicas
from common.rucio import rules as rucio_rules
from common.rucio.dids import Attachment
from common.rucio.inventory import is_ours, rule_of
from common.rucio.rses import Switch, read_switch
from common.rucio.session import Row, sliced
from common.settings.model import Site
from common.sync.catalogue import GONE_APPROVED, GONE_BY, GONE_CYCLE, GONE_SINCE, GONE_WHY, RuleAtRse
from common.sync.diff import Removal, Surplus
from common.sync.plan import PERMISSION
from consumers.apply import claims, contents, elsewhere, rules
from consumers.apply.batch import Batch, Fate
from consumers.apply.contents import Files
from consumers.apply.elsewhere import Beyond
from consumers.apply.last_copy import Elsewhere, Last, Sweep, decide
from consumers.apply.rules import Found
from consumers.apply.sides import Sides

LOCKS = ("locks_ok_cnt", "locks_replicating_cnt", "locks_stuck_cnt")
CLOCKS = timedelta(minutes=10)  # so far apart may the clocks of two workers be


class Halted(Exception):
    """Raised before a write that nothing permits any more; the text says what is missing."""


@dataclass(frozen=True)
class Task:
    """The removals of a batch: by which policy, and the command that says until when and by whose approval."""

    sides: Sides
    policy: Site
    batch: Batch
    command: SyncBlocks

    @property
    def rse(self) -> str:
        return self.batch.site.rse


def is_permitted(until: datetime | None) -> bool:
    """True while the permission of a plan lasts. One that lasts longer than any plan gives is nobody's."""
    if until is None:
        return False
    left = (until if until.tzinfo else until.replace(tzinfo=UTC)) - now()
    return timedelta(0) < left <= PERMISSION + CLOCKS


def candidates(batch: Batch, policy: Site, names: Iterable[str]) -> list[str]:
    """The blocks that are not complete at the node and may leave, as far as the policy goes."""
    keep = policy.incomplete == "keep"
    return [name for name in names if name not in batch.blocks and not (keep and name in batch.partial)]


def remove(task: Task, names: list[str]) -> None:
    """Every block has its fate in the batch: marked, pending, swept, kept, or not ours to remove.

    Safe to repeat after an error. Writes only while the permission lasts and the site's switch, read again here, is on.
    """
    names = task.batch.open(names)
    found = _find(task, names)
    where = task.sides.phedex.replicas_of(list(found.ours)) if found.ours else {}
    for name in names:
        _sort_out(task, found, where, name)
    names = task.batch.open(names)
    due = [name for name in names if _is_due(task, found.every[name])]
    try:
        if not names or _is_dry(task, names, due):
            return
        check_switch(task)
        _approve(task, found, names)
        _mark(task, found, [name for name in names if name not in due])
        if due:
            _sweep(task, found, where, due)
    except Halted as reason:
        for name in task.batch.open(names):
            task.batch.end(name, Fate.PENDING, f"{name}: left as it is: {reason}")


def _find(task: Task, names: list[str]) -> Found:
    found = rules.find(task.sides.rucio, task.batch.site, names)
    lost = [name for name in names if name not in found.ours]
    return rules.find(task.sides.rucio, task.batch.site, names, thorough=True) if lost else found


def _sort_out(task: Task, found: Found, where: Mapping[str, Mapping[str, bool]], name: str) -> None:
    """Blocks without a rule of ours, with one that ends or that a person keeps, and those that PhEDEx is unsure of."""
    batch = task.batch
    if name not in found.ours:
        batch.end(name, Fate.NOT_AT_NODE)
    elif where[name].get(batch.node):
        batch.end(name, Fate.DOUBTFUL, f"{name}: PhEDEx says that it is complete at {batch.node}, and that it is not")
    elif any(rule.keep for rule in found.every[name]):
        batch.end(name, Fate.NOT_AT_NODE)
    elif all(rule.ending for rule in found.every[name]):
        batch.end(name, Fate.PENDING)  # swept, or ended by somebody; Rucio's cleaner has not been


def _is_due(task: Task, found: list[RuleAtRse]) -> bool:
    """True if every rule that still stands is marked, and has been for the time of grace."""
    oldest = now().timestamp() - task.policy.removal_grace
    return all(rule.marked and rule.gone_since <= oldest for rule in found if not rule.ending)


def _is_dry(task: Task, names: list[str], due: list[str]) -> bool:
    if task.batch.dry:
        for name in names:
            task.batch.end(name, Fate.WOULD_SWEEP if name in due else Fate.WOULD_MARK)
    return task.batch.dry


def check_switch(task: Task) -> None:
    switch = read_switch(task.sides.rucio, task.rse)
    if switch is not Switch.ON:
        raise Halted(f"the switch at {task.rse} says {switch}")


def _check_permission(task: Task) -> None:
    if not is_permitted(task.command.removable_until):
        raise Halted("the permission to remove it has run out")


# --- mark --------------------------------------------------------------------------------------------------------


def _mark(task: Task, found: Found, names: list[str]) -> None:
    """Each rule that has none has the mark; with no time of grace the blocks are swept at once."""
    unmarked = [name for name in names if any(not (rule.marked or rule.ending) for rule in found.every[name])]
    whys = _whys(task, unmarked, found)
    for name in names:
        _check_permission(task)
        rules_ = [rule for rule in found.every[name] if not (rule.marked or rule.ending or rule.keep)]
        done = [rule for rule in rules_ if rules.mark(task.sides.rucio, rule.id, _note(task, whys[name]))]
        task.batch.written |= bool(done)
        if not (done and task.policy.removal_grace == 0):
            task.batch.end(name, Fate.MARKED if done else Fate.PENDING)
    if task.batch.open(names):
        remove(task, task.batch.open(names))


def _approve(task: Task, found: Found, names: list[str]) -> None:
    """Marks that were made before, or are a moment ago, say that a person approves them, where one does."""
    rules_ = [
        rule for name in names for rule in found.every[name] if rule.marked and not (rule.approved or rule.ending)
    ]
    for rule in rules_ if task.command.approved else ():
        _check_permission(task)
        task.batch.written |= rules.approve(task.sides.rucio, rule.id, task.command.approved)


def _whys(task: Task, names: list[str], found: Found) -> dict[str, str]:
    """Why each block leaves, in the words of the plan."""
    partial = task.batch.partial
    gone = [name for name in names if name not in partial]
    known = task.sides.phedex.known_blocks(gone) if gone else set()
    surplus = {
        name: Surplus(Removal.GONE if name in known else Removal.UNKNOWN, found.ours[name].files) for name in gone
    }
    surplus |= {n: Surplus(Removal.INCOMPLETE, partial[n].files, partial[n].here) for n in names if n in partial}
    return {name: str(why) for name, why in surplus.items()}


def _note(task: Task, why: str) -> dict[str, object]:
    meta, approved = task.command.meta, task.command.approved
    note: dict[str, object] = {
        GONE_SINCE: int(now().timestamp()),
        GONE_CYCLE: meta.cycle,
        GONE_WHY: why,
        GONE_BY: meta.by,
    }
    return note | {GONE_APPROVED: approved} if approved else note


# --- sweep -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """What the sweep goes by: the files of each block (those that were detached before too), and where each stands.

    `inside`: the files that each block has now.
    """

    files: dict[str, Files]
    standing: dict[str, dict[str, replicas.Standing]]
    inside: dict[str, Files]


def _sweep(task: Task, found: Found, where: Mapping[str, Mapping[str, bool]], names: list[str]) -> None:
    beyond = elsewhere.read(task.sides.sites, task.batch.site, {name: where[name] for name in names}, found.locks)
    look = _look(task, names)
    rows = [row for name in names for row in rucio_rules.of_dataset(task.sides.rucio, name)]
    rules_ = [row for row in rows if is_ours(row, task.batch.site)]
    ours = {row["id"]: rule_of(row, task.batch.site) for row in rules_}
    names = _settled(task, look, rules_, _still_due(task, found, ours, names))
    held = claims.claimed(task.sides.rucio, task.rse, look.standing, found.locks, rows, ours=ours)
    sweeps, apart = _decide(task, look, beyond, held, names)
    take(task, look, apart)
    mend(task, sorted(apart))
    _withdraw(task, found, [row for row in rules_ if row["name"] in sweeps])
    take(task, look, sweeps)
    mend(task, [name for name, sweep in sweeps.items() if sweep.lost or not beyond.elsewhere[name].anywhere])
    for name in sweeps:
        for rule in found.every[name]:
            if not rule.ending:
                _check_permission(task)
                rucio_rules.end(task.sides.rucio, rule.id)
                task.batch.written = True
        task.batch.end(name, Fate.SWEPT)


def _withdraw(task: Task, found: Found, rows: Iterable[Row]) -> None:
    """No transfer outlives its rule: Rucio's cleaner cancels it only while the replica is there (41.5.1)."""
    for row in rows:
        if rucio_rules.is_ordering(row):
            _check_permission(task)
            task.batch.written |= rules.withdraw(task.sides.rucio, found, task.rse, row["name"], [row["id"]])


def _look(task: Task, names: list[str]) -> Look:
    rucio = task.sides.rucio
    inside = dids.contents(rucio, names)
    files = {name: dids.former(rucio, name) | inside[name] for name in names}
    standing = replicas.standing(rucio, {file for listed in files.values() for file in listed})
    for name, listed in files.items():
        strays = [file for file in listed if file not in inside[name] and standing[file].parents]
        for file in strays:  # left this block for another
            del listed[file]
    standings = {name: {file: standing[file] for file in listed} for name, listed in files.items()}
    return Look(files, standings, inside)


def _still_due(task: Task, found: Found, ours: Mapping[str, RuleAtRse], names: list[str]) -> list[str]:
    """A person may have taken a mark back since the rules were read: what was read last counts."""
    due = []
    for name in names:
        fresh = [ours[rule.id] for rule in found.every[name] if rule.id in ours]
        if fresh and _is_due(task, fresh) and not any(rule.keep for rule in fresh):
            due.append(name)
        else:
            task.batch.end(name, Fate.PENDING, f"{name}: its mark was taken back a moment ago")
    return due


def _settled(task: Task, look: Look, rows: Iterable[Row], names: list[str]) -> list[str]:
    """A block waits while Rucio has not given its rule the locks of all its files.

    It would give them to a rule that ends as well, and queue a transfer of a file whose replica went (41.5.1).
    """
    behind = {row["name"] for row in rows if not _has_locks(task, look, row)}
    for name in behind.intersection(names):
        task.batch.end(name, Fate.PENDING, f"{name}: waits until Rucio's evaluator has seen files that joined it")
    return [name for name in names if name not in behind]


def _has_locks(task: Task, look: Look, row: Row) -> bool:
    """True where the rule has a lock on each file of its block.

    Their number tells, but for a block that lost files: the lock of one that left may stand for one that joined.
    """
    name = row["name"]
    inside = look.inside[name].keys()
    if sum(row.get(key) or 0 for key in LOCKS) < len(inside):
        return False
    return look.files[name].keys() <= inside or inside <= rucio_rules.locked_by(task.sides.rucio, row["id"], task.rse)


def _decide(
    task: Task, look: Look, beyond: Beyond, held: set[str], names: list[str]
) -> tuple[dict[str, Sweep], dict[str, Sweep]]:
    """What to do with each block that may go, and with files of those that stay, for which the reason is told."""
    verdicts = {name: judged(task, look, beyond.elsewhere[name], held, name) for name in names}
    unsure = [name for name, verdict in verdicts.items() if isinstance(verdict, Last)]
    for name, known in elsewhere.with_files(task.sides.phedex, beyond, unsure).items():
        verdicts[name] = judged(task, look, known, held, name)
    for name, verdict in verdicts.items():
        if isinstance(verdict, Last):
            _keep(task, name, verdict, beyond.takers[name])
    apart = {name: v.apart for name, v in sorted(verdicts.items()) if isinstance(v, Last) and v.apart.delete}
    return {name: v for name, v in sorted(verdicts.items()) if isinstance(v, Sweep)}, apart


def judged(task: Task, look: Look, known: Elsewhere, held: set[str], name: str) -> Sweep | Last:
    return decide(name, task.rse, look.standing[name], held, known)


def _keep(task: Task, name: str, last: Last, takers: list[str]) -> None:
    """The block and its rule stay; another node that has it whole is asked to have it in Rucio too.

    Said once, by the batch that finds it: it is remembered beside the mark.
    """
    _check_permission(task)
    rows = rucio_rules.of_dataset(task.sides.rucio, name)
    ids = [row["id"] for row in rows if is_ours(row, task.batch.site)]
    if sum(rules.note_held(task.sides.rucio, rule, last.why) for rule in ids):
        task.batch.found_held.add(name)
        task.batch.written = True
    if takers:
        task.batch.wanted_at.setdefault(takers[0], set()).add(name)
    task.batch.end(name, Fate.KEPT_LAST_COPY, f"{name}: kept for {last.file}: {last.why}")


def take(task: Task, look: Look, sweeps: Mapping[str, Sweep]) -> None:
    """The replicas are gone; while the rules still stand, so that none gets a tombstone on the way."""
    rucio, batch = task.sides.rucio, task.batch
    for name, sweep in sweeps.items():
        if sweep.detach:
            _check_permission(task)
            dids.detach(rucio, name, sweep.detach)
    for part in sliced(sorted({file for sweep in sweeps.values() for file in sweep.delete}), rucio.main.rucio_files):
        _check_permission(task)
        replicas.delete(rucio, task.rse, part)
        batch.written = True
        for name, sweep in sweeps.items():
            taken = {file: look.files[name][file] for file in set(part).intersection(sweep.delete)}
            batch.removed[name] = batch.removed.get(name, {}) | taken
    for name, sweep in sweeps.items():
        if sweep.foreign:
            batch.foreign[name] = set(sweep.foreign)
            batch.notes[name] = (
                f"{name}: {len(sweep.foreign)} replicas stay: others hold them, such as {sweep.foreign[0]}"
            )


def mend(task: Task, names: list[str]) -> None:
    """The blocks are in their containers: where two sites took the last copies at once, one tore them out.

    Done before their rules end, so that a run that is cut before it is repeated by the next.
    """
    rucio = task.sides.rucio
    known = contents.existing(rucio, names) if names else {}
    there = [name for name in names if name in known and dataset_of(name) in known]
    inside = {container: dids.children(rucio, container) for container in sorted({dataset_of(n) for n in there})}
    for name in there:
        if name not in inside[dataset_of(name)]:
            dids.attach(rucio, [Attachment(parent=dataset_of(name), names=(name,))])
