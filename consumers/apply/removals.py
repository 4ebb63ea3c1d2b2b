"""How a block leaves: a mark in its rule first; when the mark is old enough, its replicas, then the rule.

A crash between any two steps leaves a marked rule, and the next batch goes on from there. This module decides, with
the evidence read anew, what is put on record, marked, or due; `sweep` does the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from common.messages.meta import now
from common.rucio import announcements
from common.rucio import rules as rucio_rules
from common.rucio.inventory import rules_at
from common.rucio.rses import announcements_at
from common.sync import marks
from common.sync.catalogue import BlockAtNode, RuleAtRse, is_custodial
from common.sync.guard import over_by_number
from common.sync.limits import Limit
from common.sync.marks import (
    DESTROYING,
    GONE_APPROVED,
    GONE_BY,
    GONE_CUSTODIAL,
    GONE_CYCLE,
    GONE_SINCE,
    GONE_WHY,
    Removal,
    permits,
    severity,
)
from common.sync.reasons import Reason
from common.sync.words import percent
from consumers.apply import beyond, rules
from consumers.apply.approved import is_approved, needs_person
from consumers.apply.batch import Fate
from consumers.apply.beyond import Known
from consumers.apply.rules import Found
from consumers.apply.task import Task, budget_of, check_permission, check_switch

BY_KIND = (Limit.TAPE, Limit.CUSTODIAL)  # for what the block is, whatever the reason why it should leave

# --- what is decided of each block -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """The blocks of one call: our rules on them, and the evidence about each."""

    found: Found
    known: Known

    def rules(self, name: str) -> list[RuleAtRse]:
        """Our rules on the block that stand."""
        return [rule for rule in self.found.every[name] if not rule.ending]

    def ends(self, name: str) -> dict[str, datetime]:
        """When those of our rules on the block will be over that somebody gave an end, by id."""
        return {rule.id: self.found.ends[rule.id] for rule in self.found.every[name] if rule.id in self.found.ends}

    def why(self, name: str) -> Reason:
        """Why the block should leave, as read now."""
        return self.known.reasons[name]


def look(task: Task, names: list[str]) -> Work:
    """Our rules on the blocks, and why each should leave; every block that is not ours to remove has its fate."""
    found = _find(task, names)
    asked = [name for name in names if name in found.ours]
    here = [name for name in asked if name in task.batch.partial]
    controls = task.command.controls
    known = beyond.read(task.sides, task.own(found.ours), asked, controls=controls, here=here, locks=found.locks)
    work = Work(found, known)
    for name in names:
        _sort_out(task, work, name)
    return work


def _find(task: Task, names: list[str]) -> Found:
    found = rules.find(task.sides.rucio, task.batch.site, names)
    lost = [name for name in names if name not in found.ours]
    return rules.find(task.sides.rucio, task.batch.site, names, thorough=True) if lost else found


def _sort_out(task: Task, work: Work, name: str) -> None:
    """Blocks without a rule of ours, with one that ends or that a person keeps or locked, and what PhEDEx has again."""
    batch = task.batch
    if name not in work.found.ours:
        batch.end(name, Fate.NOT_AT_NODE)
    elif says := contradiction(task, work.known, name, here=name in batch.partial):
        batch.end(name, Fate.DOUBTFUL, says)
    elif any(rule.keep for rule in work.found.every[name]) or is_whole_and_open(task, name):
        if rules.is_begun(task.sides.rucio, task.rse, work.rules(name)):
            _go_forward(task, work, name)
        else:
            _unmark(task, work, name)
            batch.end(name, Fate.NOT_AT_NODE)
    elif task.policy.incomplete == "keep" and name in batch.partial:
        _end_hold(task, work, name)
        batch.end(name, Fate.NOT_AT_NODE)
    elif (note := end_to_come(name, work.ends(name))) or not work.rules(name):
        batch.end(name, Fate.PENDING, note)
    elif task.is_locked(work.rules(name)):
        note = f"{name}: a person locked its rule {work.rules(name)[0].id}: it stays until that person unlocks it"
        batch.end(name, Fate.LOCKED, note)


def contradiction(task: Task, known: Known, name: str, *, here: bool) -> str:
    """How what PhEDEx says of the block, asked by its name, differs from what it lists at the node; "" if it does not.

    `here`: whether it is listed at the node, though not whole. Two replies that differ are neither of them believed.
    """
    where, node = known.where[name], task.batch.node
    if found := sorted(where.complete & task.own({}).names):
        return f"{name}: PhEDEx says that it is complete at {found[0]}, and that it is not"
    if not here and node in where.partial | where.meant:
        return f"{name}: PhEDEx says that it is at {node}, and that it is not"
    return ""


def _unmark(task: Task, work: Work, name: str) -> None:
    """What stays is marked and held no more, so that neither's age counts for anything when it is to leave again.

    A keep of before stands in the meta, which is left as it is. A delete that was sent without an answer may still be
    carried out: until its announcement is over the rule says that it has begun.
    """
    rucio = task.sides.rucio
    begun = any(rule.begun for rule in work.rules(name))
    if begun and announcements.about(announcements_at(rucio, task.rse), [name]):
        return
    for rule in work.found.every[name] if not task.batch.dry else ():
        if (rule.marked or rule.held_since) and not rule.ending:
            task.batch.written |= rules.unmark(rucio, rule)


def _end_hold(task: Task, work: Work, name: str) -> None:
    """Files of the block are here again, and the settings keep it: an approval of before is of no use when they leave.

    A mark stays with its age: it is not acted on as long as that is so.
    """
    for rule in work.rules(name) if not task.batch.dry else ():
        if rule.held_since and not rule.marked:
            check_permission(task)
            task.batch.written |= rules.unmark(task.sides.rucio, rule)


def end_to_come(name: str, ends: Mapping[str, datetime]) -> str:
    """Why a block waits one of whose rules (by id) somebody gave an end: it holds the files until then; "" for none."""
    if not ends:
        return ""
    rule, end = max(ends.items(), key=lambda one: (one[1], one[0]))
    lift = f"rucio rule update {rule} --lifetime None"
    return f"{name}: somebody had its rule {rule} end at {end:%Y-%m-%d %H:%M} UTC: left alone until then, or `{lift}`"


def _go_forward(task: Task, work: Work, name: str) -> None:
    """A keep that came too late does not leave a rule with locks on nothing: what is left of the block goes with it."""
    note = f"{name}: kept too late, replicas of it are gone: its rule ends"
    for rule in work.rules(name) if not task.batch.dry else ():
        check_permission(task)
        rucio_rules.end(task.sides.rucio, rule.id, unlock=task.is_tape)
        task.batch.written = True
    task.batch.end(name, Fate.PENDING, note)


def is_whole_and_open(task: Task, name: str) -> bool:
    """True for a block that PhEDEx has at the node, open, with all of its files so far: it has lost nothing."""
    block = task.batch.partial.get(name)
    return block is not None and block.is_open and block.here >= block.files


def _may_be_last(reason: Reason) -> bool:
    """True for what is complete nowhere, or only where it can have no place in Rucio."""
    return reason.why is Removal.PARTLY or reason.stuck


def is_due(task: Task, found: Iterable[RuleAtRse], why: Removal) -> bool:
    """True if every rule that still stands is marked, for this reason or a worse one, and for the time of grace.

    What destroys is believed without a person only if it was read twice, further apart than the caches between.
    """
    at, grace = now().timestamp(), task.policy.removal_grace
    apart = max(grace, task.sides.rucio.main.nowhere_apart)
    return all(
        rule.marked
        and permits(rule.why, why)
        and rule.counts_from <= at - (apart if why in DESTROYING and not rule.approved else grace)
        for rule in found
    )


def _is_all_approved(task: Task, work: Work, name: str) -> bool:
    """True where a person approved the removal of the block, as far as each of its rules goes."""
    here = task.batch.partial.get(name)
    return all(is_approved(task, rule, name, work.why(name).why, here) for rule in work.rules(name))


# --- on record, and marked ---------------------------------------------------------------------------------------


def record(task: Task, names: list[str]) -> None:
    """The held blocks are on record as held, from now on and for the plan's reason, with the time of that plan.

    A block whose reason is worse by now is left to the next plan: nobody has been shown that one. Since now, for the
    block may have been back meanwhile: who looked then at another plan has not seen it held.
    """
    work = look(task, task.batch.open(names))
    plan, why = task.command.held_since, marks.reason_of(task.command.held_why)
    assert plan is not None
    if not task.batch.dry:
        check_switch(task)
    for name in task.batch.open(names):
        if permits(why, work.why(name).why) and not task.batch.dry:
            for rule in work.rules(name):
                check_permission(task)
                task.batch.written |= _put_on_record(task, rule, name, marks.moment(plan), why)
        task.batch.end(name, Fate.PENDING)


def _put_on_record(task: Task, rule: RuleAtRse, name: str, plan: float, why: Removal) -> bool:
    """A hold; or, for a mark from before its block was custodial, a new mark, which nobody has approved."""
    custodial = is_custodial(rule, task.batch.partial.get(name))
    if rule.marked and custodial and not rule.marked_custodial:
        return rules.as_custodial(task.sides.rucio, rule)
    return rules.hold(task.sides.rucio, rule, plan, why, custodial=custodial)


def to_mark(task: Task, work: Work, names: list[str]) -> list[str]:
    """Those of the blocks that may be marked; each of the others has its fate.

    A batch asks for itself what it can: whether a person must say so, and whether the site's limits allow as many.
    """
    fine, free = [], 0
    for name in names:
        reason = work.why(name)
        here = task.batch.partial.get(name)
        limits = {needs_person(task, rule, name, reason.why, here) for rule in work.rules(name)} - {None}
        if _may_be_last(reason):
            task.batch.end(name, Fate.KEPT_LAST_COPY, f"{name}: kept, it may be the last copy: {reason.why}")
        elif limits:
            task.batch.end(name, Fate.PENDING, f"{name}: {reason.why}: not marked before a person approves it")
        else:
            fine.append(name)
            free += not _is_all_approved(task, work, name)
    if free and (why := _over(task, fine)):
        for name in fine:
            if not _is_all_approved(task, work, name):
                task.batch.end(name, Fate.PENDING, f"{name}: not marked: {why}")
    return task.batch.open(fine)


def _over(task: Task, names: list[str]) -> str:
    """Why the site's limits do not allow these marks beside those that are there; "" where they do."""
    every = rules_at(task.sides.rucio, task.batch.site)
    marked = {name for name, rule in every.items() if rule.marked}
    new = {name for name in names if name not in marked}
    number, most = len(marked | new), task.policy.max_removal_share
    if number > most * max(len(every), 1):
        return f"{number} of {len(every)} rules would be marked, limit {percent(most)}"
    if number > task.policy.max_removal_blocks:
        return f"{number} rules would be marked, limit {task.policy.max_removal_blocks}"
    return ""


def mark(task: Task, work: Work, names: list[str]) -> list[str]:
    """Each rule has the mark; returns the blocks that may be swept at once, where marks have no time of grace."""
    at_once = []
    for name in names:
        check_permission(task)
        why = work.why(name).why
        done = [rule for rule in work.rules(name) if _mark_rule(task, rule, name, why)]
        task.batch.written |= bool(done)
        _ask_others(task, work, name)
        if done and task.policy.removal_grace == 0:
            at_once.append(name)
        else:
            task.batch.end(name, Fate.MARKED if done else Fate.PENDING)
    return at_once


def _mark_rule(task: Task, rule: RuleAtRse, name: str, why: Removal) -> bool:
    here = task.batch.partial.get(name)
    meta = task.command.meta
    note: dict[str, object] = {
        GONE_SINCE: marks.moment(now()),
        GONE_CYCLE: meta.cycle,
        GONE_WHY: str(why),
        GONE_BY: meta.by,
    }
    note |= {GONE_APPROVED: task.command.approved} if is_approved(task, rule, name, why, here) else {}
    note |= {GONE_CUSTODIAL: True} if is_custodial(rule, here) else {}
    return rules.mark(task.sides.rucio, rule, note)


def _ask_others(task: Task, work: Work, name: str) -> None:
    """A block that waits for a place: a node that has it whole is asked to have it in Rucio too."""
    if work.why(name).why is Removal.WAITING and work.known.takers[name]:
        task.batch.wanted_at.setdefault(work.known.takers[name][0], set()).add(name)


def soften(task: Task, work: Work, names: list[str]) -> None:
    """Marks for a worse reason than today's are for today's from now on: what was nowhere and came to a node may be the
    last copy again, and neither the old mark nor its approval counts when the next reading says otherwise.

    Holds of blocks that stay are over.
    """
    for name in names:
        reason = work.why(name)
        for rule in work.rules(name):
            if rule.marked and severity(reason.why) < severity(rule.why):
                check_permission(task)
                task.batch.written |= rules.soften(task.sides.rucio, rule, reason.why)
            elif rule.held_since and not rule.marked and _may_be_last(reason):
                check_permission(task)
                task.batch.written |= rules.unmark(task.sides.rucio, rule)


def approve(task: Task, work: Work, names: list[str]) -> None:
    """Marks that were made before, or are a moment ago, say that a person approves them, where one does."""
    for name in names if task.command.approved else ():
        why, here = work.why(name).why, task.batch.partial.get(name)
        for rule in work.rules(name):
            if rule.marked and not rule.approved and is_approved(task, rule, name, why, here):
                check_permission(task)
                task.batch.written |= rules.approve(task.sides.rucio, rule, task.command.approved)


def sweep_needs_person(
    task: Task, work: Work, name: str, here: BlockAtNode | None, *, begun: bool = False
) -> Limit | None:
    """Why a marked block may not go without a person's approval of its mark. `begun`: replicas of it went already."""
    limits = [needs_person(task, rule, name, work.why(name).why, here, begun=begun) for rule in work.rules(name)]
    limit = next(filter(None, limits), None)
    # Asked only where it matters: seconds count here.
    if limit in BY_KIND and rules.is_begun(task.sides.rucio, task.rse, work.rules(name)):
        return sweep_needs_person(task, work, name, here, begun=True)
    return limit


def not_swept(name: str, why: Removal, limit: Limit) -> str:
    """What a person is told of a mark that waits for an approval."""
    said = f"{why}, {limit}" if limit in BY_KIND else why
    return f"{name}: {said}: not swept before a person approves it"


def may_sweep(task: Task, work: Work, names: list[str]) -> list[str]:
    """Those of the due blocks that the batch itself may sweep; each of the others has its fate.

    What only a person removes, as it is now, needs that person's word for its mark; and marks that nobody approved must
    keep to the site's limits together, for plans of one moment do not see each other's.
    """
    loose = False
    for name in names:
        if limit := sweep_needs_person(task, work, name, task.batch.partial.get(name)):
            task.batch.end(name, Fate.PENDING, not_swept(name, work.why(name).why, limit))
        elif not _is_all_approved(task, work, name):
            loose = True
    names = task.batch.open(names)
    if not (loose and names):
        return names
    every = rules_at(task.sides.rucio, task.batch.site)
    number = sum(rule.marked and not rule.approved and not rule.ending for rule in every.values())
    over = next(over_by_number(number, len(every), budget_of(task.policy)), None)
    for name in names if over else ():
        if not _is_all_approved(task, work, name):
            task.batch.end(name, Fate.PENDING, f"{name}: not swept: {over.says if over else ''}")
    return task.batch.open(names)
