"""How is a plan shown to people and to programs?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from common.sync.plan import Plan

SHOWN = 20
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def as_data(plan: Plan) -> dict[str, Any]:
    """The whole plan as plain data for JSON, with `in_sync` beside its fields."""
    plain: dict[str, Any] = msgspec.to_builtins(plan)
    return {**plain, "in_sync": plan.in_sync}


def as_lines(plan: Plan, shown: int = SHOWN) -> list[str]:
    """The plan as text: one summary line, then each part with at most `shown` of its names."""
    if plan.in_sync:
        return [in_sync(plan.same, plan.node), *_remarks(plan)]
    lines = [_title(plan), _summary(plan)]
    lines += _part("+", "add", dict.fromkeys(plan.missing, ""), shown)
    lines += _part("~", "update", plan.update, shown)
    lines += _part("-", "remove", plan.remove, shown)
    return lines + _remarks(plan)


def in_sync(blocks: int, node: str) -> str:
    """The sentence for a node where nothing is to do."""
    return f"In sync: {count(blocks, 'block')} at {node} {'matches' if blocks == 1 else 'match'}."


def count(number: int, noun: str) -> str:
    """`1 block`, `12,431 blocks`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def size(number: float) -> str:
    """Bytes in decimal units, as PhEDEx and Rucio show them: `1.2 TB`."""
    for unit in _UNITS[:-1]:
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.1f} {_UNITS[-1]}"


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


def _remarks(plan: Plan) -> list[str]:
    """What changes nothing now and should be known."""
    found = [f"PhEDEx's answer is not trusted, additions only there: {doubt}" for doubt in plan.doubts]
    found += _number(plan.pending, "marked for removal earlier")
    found += _number(plan.empty, "closed and without files: nothing to sync")
    found += _number(plan.ignored, "with a name that does not parse: ignored")
    if plan.left:
        found.append(f"This page covers {len(plan.work):,} blocks, {plan.left:,} more are behind it.")
    return found


def _number(names: Iterable[str], what: str) -> list[str]:
    number = len(list(names))
    return [f"{count(number, 'block')} {what}."] if number else []
