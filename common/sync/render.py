"""How is a plan shown to people and to programs?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from common.sync.answer import REASONS, STUCK, announced, at, unlock
from common.sync.catalogue import RuleAtRse
from common.sync.diff import Update
from common.sync.guard import Ruling
from common.sync.limits import Limit
from common.sync.marks import Hold, Removal, permits, reason_of
from common.sync.one_block import Sweeping
from common.sync.plan import Plan
from common.sync.words import count, size

SHOWN = 20
LOCKED = 5  # locked rules whose unlocking is shown

Rules = Mapping[str, RuleAtRse]


def as_data(plan: Plan, rules: Rules | None = None, sweeping: Iterable[Sweeping] = ()) -> dict[str, Any]:
    """The whole plan as plain data for JSON, with `in_sync`, what is on record and what is locked beside its fields."""
    plain: dict[str, Any] = msgspec.to_builtins(plan)
    return {
        **plain,
        "in_sync": plan.in_sync,
        "on_record": {name: msgspec.to_builtins(hold) for name, hold in on_record(plan, rules or {}).items()},
        "locked": dict(_locked(plan, rules or {})),
        "sweeping": msgspec.to_builtins(list(sweeping)),
    }


def as_lines(
    plan: Plan, rules: Rules | None = None, sweeping: Iterable[Sweeping] = (), *, now: datetime, shown: int = SHOWN
) -> list[str]:
    """The plan as text: one summary line, then each part with at most `shown` of its names.

    `rules`: ours at the RSE, for what is on record and locked. `sweeping`: the sweeps that are announced there.
    """
    known = rules or {}
    end = [*_marked(plan, shown), *_guard(plan, known), *_sweeping(plan, sweeping, now), *_remarks(plan, known)]
    if plan.in_sync:
        return [in_sync(plan.same, plan.node), *end]
    lines = [_title(plan), _summary(plan)]
    lines += _part("+", "add", dict.fromkeys(plan.missing, ""), shown)
    lines += _part("~", "update", plan.update, shown)
    lines += _part("-", "remove", {name: _why(plan, known, name) for name in plan.remove}, shown)
    return [*lines, *_reasons(plan), *_kept(plan, shown), *end]


def in_sync(blocks: int, node: str) -> str:
    """The sentence for a node where nothing is to do."""
    return f"In sync: {count(blocks, 'block')} at {node} {'matches' if blocks == 1 else 'match'}."


def on_record(plan: Plan, rules: Rules) -> dict[str, Hold]:
    """The held blocks that are on record for their reason or a worse one: an approval given now covers these."""
    found = {}
    for name in plan.ruling.record if plan.ruling else []:
        rule = rules.get(name)
        if rule is not None and rule.hold and permits(rule.hold.why, reason_of(plan.remove.get(name))):
            found[name] = rule.hold
    return found


def _title(plan: Plan) -> str:
    what = "" if plan.dataset == "*" else f" {plan.dataset}"
    as_of = f", PhEDEx as of {plan.as_of:%Y-%m-%d %H:%M} UTC" if plan.as_of else ""
    return f"{plan.node}{what} → RSE {plan.rse}, account {plan.account}{as_of}"


def _summary(plan: Plan) -> str:
    adds = f"{count(plan.adds.blocks, 'block')} to add ({count(plan.adds.files, 'file')}, {size(plan.adds.bytes)})"
    kept = f", {len(plan.kept):,} kept" if plan.kept else ""
    return f"{adds}, {len(plan.update):,} to update, {len(plan.remove):,} to remove{kept}, {plan.same:,} unchanged"


def _part(sign: str, verb: str, names: Mapping[str, str], shown: int) -> list[str]:
    lines = [f"  {sign} {name}" + (f"  {why}" if why else "") for name, why in sorted(names.items())[:shown]]
    hidden = len(names) - len(lines)
    return [*lines, f"  … and {hidden:,} more to {verb} (--json lists all)"] if hidden else lines


# --- what should not be there


def _why(plan: Plan, rules: Rules, name: str) -> str:
    """Why a block should leave, by which limit it is held where it is, and since when that is on record."""
    limit = plan.ruling.held.get(name) if plan.ruling else None
    if limit is None:
        return plan.remove[name]
    said = f"{plan.remove[name]}, held: {limit}"
    hold = on_record(plan, rules).get(name)
    return f"{said}, on record since {_moment(hold.since)}" if hold else said


def _moment(seconds: float) -> str:
    try:
        return at(datetime.fromtimestamp(seconds, UTC))
    except (OverflowError, ValueError):
        return "a time that nobody can read"


def _reasons(plan: Plan) -> list[str]:
    """What the reasons above mean, each once."""
    met = {reason_of(why) for why in plan.remove.values()}
    return [f"{why}: {text}." for why, text in REASONS.items() if why in met and why is not Removal.GONE]


def _kept(plan: Plan, shown: int) -> list[str]:
    """What should not be there and stays, for it may be the last copy: with its mark where it has one."""
    if not plan.kept:
        return []
    means = {name: _means(why) for name, why in plan.kept.items()}
    what = "should not be there and stays" if len(means) == 1 else "should not be there and stay"
    first = f"{count(len(means), 'block')} {what}, marked or not:"
    return [first, *_part("=", "keep", means, shown)]


def _means(why: str) -> str:
    """The kept are those that are complete nowhere, or complete where they cannot be in Rucio."""
    reason = reason_of(why)
    return f"{reason}: {REASONS[reason] if reason is Removal.PARTLY else STUCK}"


def _marked(plan: Plan, shown: int) -> list[str]:
    """What is marked, and from when on it may be swept."""
    stays = {*plan.kept, *plan.unswept, *(plan.ruling.kept if plan.ruling else [])}
    due = {name: _due(when, stays=name in stays) for name, when in plan.pending.items()}
    return _number(plan.pending, "marked for removal earlier") + _part("x", "sweep", due, shown)


def _due(when: datetime | None, *, stays: bool) -> str:
    if when is None:
        return "when due: its time cannot be read"
    return f"due from {at(when)} on, and stays for now" if stays else f"swept from {at(when)} on"


# --- the guard


def _guard(plan: Plan, rules: Rules) -> list[str]:
    """What the guard says of the removals, and what a person can do about it."""
    if plan.ruling is None:
        return [f"Nothing is removed: {plan.removals}."] if plan.removals and (plan.remove or plan.pending) else []
    lines = verdict(plan.ruling, approval=False)
    locked = list(_locked(plan, rules))
    lines += [f"  {name}: who locked it types: {unlock(rule)}" for name, rule in locked[:LOCKED]]
    lines += [f"  … and {len(locked) - LOCKED:,} more (--json lists all)"] if locked[LOCKED:] else []
    return lines + _approval(plan, plan.ruling, rules)


def _locked(plan: Plan, rules: Rules) -> Iterator[tuple[str, str]]:
    """The blocks whose rule a person locked, each with that rule."""
    ruling = plan.ruling
    if ruling is None or all(stop.limit is not Limit.LOCKED for stop in ruling.stops):
        return  # at tape Rucio locks each rule by itself
    held = {name for name, limit in ruling.held.items() if limit is Limit.LOCKED}
    for name in sorted(held | set(ruling.kept)):
        if name in rules and rules[name].locked:
            yield name, rules[name].id


def _approval(plan: Plan, ruling: Ruling, rules: Rules) -> list[str]:
    """What an approval given now covers, and the command; none where it would cover nothing."""
    if not ruling.command:
        return []
    covered = on_record(plan, rules)
    lines = []
    if new := len(ruling.record) - len(covered):
        are, them = ("is", "it") if new == 1 else ("are", "them")
        lines.append(
            f"{count(new, 'held block')} {are} not on record yet: the next sync puts {them} there, and only an "
            f"approval given after that covers {them}."
        )
    return lines + (_commands(ruling) if covered or ruling.kept else [])


def _commands(ruling: Ruling) -> list[str]:
    lines = [f"To approve what is held and on record now, once you have looked: {ruling.command}"]
    lines += [f"The same at every node that has it: {ruling.everywhere}"] if ruling.everywhere else []
    return [*lines, "It lapses (approval_lifetime), covers nothing held later, and is used up when a block comes back."]


def verdict(ruling: Ruling, *, approval: bool = True) -> list[str]:
    """What the guard decided, in sentences: what may be marked, each limit that was met, and how to approve it."""
    lines = [f"Guard: {count(len(ruling.allowed), 'block')} may be marked."] if ruling.allowed else []
    lines += [f"Held ({stop.limit}): {stop.says}." for stop in ruling.stops]
    lines += [] if ruling.sweep else ["Nothing that is marked is swept either."]
    if number := len(ruling.kept):
        lines.append(f"{count(number, 'marked block')} {'stays' if number == 1 else 'stay'} until a person has looked.")
    return lines + (_commands(ruling) if approval and ruling.command else [])


# --- what else is to be known


def _sweeping(plan: Plan, sweeping: Iterable[Sweeping], now: datetime) -> list[str]:
    """The sweeps that are announced, each with the number of its blocks."""
    lines = []
    for one in sweeping:
        number = f" It is of {count(one.blocks, 'block')}." if one.blocks else ""
        lines.append(announced(one, plan.rse, now) + number)
    return lines


def _remarks(plan: Plan, rules: Rules) -> list[str]:
    """What changes nothing now and should be known."""
    found = [f"PhEDEx's answer is not trusted, additions only there: {doubt}" for doubt in plan.doubts]
    found += _left(plan, rules)
    found += _number(plan.unmark, "marked that a person keeps: the mark goes")
    found += _number(plan.empty, "closed and without files: nothing to sync")
    found += _number(plan.ignored, "with a name that does not parse: ignored")
    if plan.left:
        found.append(f"This page covers {len(plan.work):,} blocks, {plan.left:,} more are behind it.")
    return found


def _left(plan: Plan, rules: Rules) -> list[str]:
    """Files that PhEDEx lists no more in their blocks: what they wait for, or why they stay."""
    names = [name for name, why in plan.update.items() if why == Update.FILES and name in rules and rules[name].left]
    if plan.files_held:
        return [f"Files that PhEDEx lists no more stay in their blocks: {plan.files}."]
    if not names:
        return []
    what = f"{count(len(names), 'block')} with files that PhEDEx lists no more"
    if plan.files:
        return [f"{what}: they stay: {plan.files}."]
    return [f"{what}: they leave when it says so again after the time of grace, or `explain` tells why they stay."]


def _number(names: Iterable[str], what: str) -> list[str]:
    number = len(list(names))
    return [f"{count(number, 'block')} {what}."] if number else []
