"""How is a plan shown to people and to programs?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from common.sync.guard import Ruling
from common.sync.plan import Plan
from common.sync.words import count, size

SHOWN = 20


def as_data(plan: Plan) -> dict[str, Any]:
    """The whole plan as plain data for JSON, with `in_sync` beside its fields."""
    plain: dict[str, Any] = msgspec.to_builtins(plan)
    return {**plain, "in_sync": plan.in_sync}


def as_lines(plan: Plan, shown: int = SHOWN) -> list[str]:
    """The plan as text: one summary line, then each part with at most `shown` of its names."""
    if plan.in_sync:
        return [in_sync(plan.same, plan.node), *_marked(plan, shown), *_guard(plan), *_remarks(plan)]
    lines = [_title(plan), _summary(plan)]
    lines += _part("+", "add", dict.fromkeys(plan.missing, ""), shown)
    lines += _part("~", "update", plan.update, shown)
    lines += _part("-", "remove", {name: _why(plan, name) for name in plan.remove}, shown)
    return lines + _marked(plan, shown) + _guard(plan) + _remarks(plan)


def in_sync(blocks: int, node: str) -> str:
    """The sentence for a node where nothing is to do."""
    return f"In sync: {count(blocks, 'block')} at {node} {'matches' if blocks == 1 else 'match'}."


def _title(plan: Plan) -> str:
    what = "" if plan.dataset == "*" else f" {plan.dataset}"
    as_of = f", PhEDEx as of {plan.as_of:%Y-%m-%d %H:%M} UTC" if plan.as_of else ""
    return f"{plan.node}{what} → RSE {plan.rse}, account {plan.account}{as_of}"


def _summary(plan: Plan) -> str:
    adds = f"{count(plan.adds.blocks, 'block')} to add ({count(plan.adds.files, 'file')}, {size(plan.adds.bytes)})"
    return f"{adds}, {len(plan.update):,} to update, {len(plan.remove):,} to remove, {plan.same:,} to keep"


def _part(sign: str, verb: str, names: Mapping[str, str], shown: int) -> list[str]:
    lines = [f"  {sign} {name}" + (f"  {why}" if why else "") for name, why in sorted(names.items())[:shown]]
    hidden = len(names) - len(lines)
    return [*lines, f"  … and {hidden:,} more to {verb} (--json lists all)"] if hidden else lines


def _why(plan: Plan, name: str) -> str:
    """Why a block should leave, and by which limit it is held where it is."""
    held = plan.ruling.held.get(name) if plan.ruling else None
    return f"{plan.remove[name]}, held: {held}" if held else plan.remove[name]


def _marked(plan: Plan, shown: int) -> list[str]:
    """What is marked, and from when on it may be swept."""
    due = {
        name: "when due: its time cannot be read" if at is None else f"swept from {at:%Y-%m-%d %H:%M} UTC on"
        for name, at in plan.pending.items()
    }
    return _number(plan.pending, "marked for removal earlier") + _part("x", "sweep", due, shown)


def _guard(plan: Plan) -> list[str]:
    """What the guard says of the removals, and what a person can do about it."""
    if plan.ruling is None:
        return [f"Nothing is removed: {plan.removals}."] if plan.removals and (plan.remove or plan.pending) else []
    return verdict(plan.ruling)


def verdict(ruling: Ruling) -> list[str]:
    """What the guard decided, in sentences: what may be marked, each limit that was met, and how to allow it."""
    lines = [f"Guard: {count(len(ruling.allowed), 'block')} may be marked."] if ruling.allowed else []
    lines += [f"Held ({stop.limit}): {stop.says}." for stop in ruling.stops]
    lines += [] if ruling.sweep else ["Nothing that is marked is swept either."]
    lines += [f"{count(len(ruling.kept), 'marked block')} stay until a person has looked."] if ruling.kept else []
    lines += [f"To allow exactly this: {ruling.command}"] if ruling.command else []
    return (
        [*lines, f"Checksum of what is or would be marked: {ruling.checksum}"] if ruling.held or ruling.kept else lines
    )


def _remarks(plan: Plan) -> list[str]:
    """What changes nothing now and should be known."""
    found = [f"PhEDEx's answer is not trusted, additions only there: {doubt}" for doubt in plan.doubts]
    found += _number(plan.empty, "closed and without files: nothing to sync")
    found += _number(plan.ignored, "with a name that does not parse: ignored")
    if plan.left:
        found.append(f"This page covers {len(plan.work):,} blocks, {plan.left:,} more are behind it.")
    return found


def _number(names: Iterable[str], what: str) -> list[str]:
    number = len(list(names))
    return [f"{count(number, 'block')} {what}."] if number else []
