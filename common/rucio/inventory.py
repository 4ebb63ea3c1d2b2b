"""Which of our rules are at an RSE? One stream an account, kept small."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple, TypedDict

from msgspec.json import Decoder
from msgspec.structs import replace

from common.names import SCOPE, is_block
from common.rucio.rses import Site, is_rule_for
from common.rucio.rules import is_ordering
from common.rucio.session import Row, Rucio
from common.sync.catalogue import RuleAtRse
from common.sync.marks import (
    CUSTODIAL,
    GONE_APPROVED,
    GONE_CUSTODIAL,
    GONE_SINCE,
    GONE_WHY,
    GROUP,
    KEEP,
    LEFT,
    NEVER,
    SWEEPING,
    Removal,
    cleared_at,
    hold_of,
    keep_of,
    parse_meta,
    reason_of,
    seen_at,
    severity,
)

NEVER_DUE = NEVER


class RuleRow(TypedDict, total=False):
    """What is looked at of a rule, a quarter of what Rucio sends."""

    id: str
    name: str
    scope: str
    did_type: str
    account: str
    rse_expression: str
    locks_ok_cnt: int | None
    locks_replicating_cnt: int | None
    state: str | None
    locked: bool | None
    comments: str | None
    created_at: str | None
    expires_at: str | None
    meta: str | dict[str, object] | None


_decoder = Decoder(RuleRow)


def rules_at(rucio: Rucio, site: Site) -> dict[str, RuleAtRse]:
    """Our rules at the RSE by block name: live, marked and ending ones, those of former accounts and forms too.

    One request an account, as a stream: memory stays flat but for the answer. Of several rules of one block the one
    that `preferred` takes. An account that does not exist has no rules.
    """
    rules: dict[str, RuleAtRse] = {}
    for account in site.accounts:
        for row in rucio.rows("list_account_rules", account, about=account, only=_decoder):
            if is_ours(row, site):
                name = row["name"]
                rules[name] = _together(rules.get(name), rule_of(row, site))
    return rules


def is_ours(row: Row, site: Site) -> bool:
    """True for a rule of one of the site's accounts, on what is named as a block, at exactly this RSE.

    No other is ever touched.
    """
    return (
        row.get("scope") == SCOPE
        and row.get("did_type") == "DATASET"
        and row.get("account") in site.accounts
        and is_block(row.get("name", ""))
        and is_rule_for(site.rse, row.get("rse_expression", ""))
    )


def rule_of(row: Row, site: Site) -> RuleAtRse:
    """What we keep of a rule as Rucio gives it."""
    meta, comment = row.get("meta"), row.get("comments")
    said = _said(meta) if isinstance(meta, str) else told_by(meta)
    return RuleAtRse(
        row["id"],
        row.get("locks_ok_cnt") or 0,
        row.get("expires_at") is not None,
        said.gone_since,
        said.approved,
        said.keep or keep_of({}, comment) is not None,
        said.group,
        said.custodial,
        row["rse_expression"] == site.rse,
        said.why,
        said.held_since,
        said.held_why,
        cleared_at(comment),
        bool(row.get("locked")),
        said.left,
        is_ordering(row),
        said.begun,
        said.seen,
        sys.intern(str(row.get("created_at") or "")),
        said.held_plan,
        said.held_custodial,
        said.marked_custodial,
    )


class Said(NamedTuple):
    """What a rule's meta says."""

    gone_since: float
    approved: bool
    keep: bool
    group: str
    custodial: bool
    why: Removal
    held_since: float
    held_why: Removal
    left: bool
    begun: bool
    seen: float
    held_plan: float
    held_custodial: bool
    marked_custodial: bool


@lru_cache(maxsize=1024)
def _said(meta: str) -> Said:
    """What a meta's text says, read once: a site's rules have few that differ, but for those that are marked."""
    return told_by(meta)


def told_by(text: object) -> Said:
    """What a rule's meta, as Rucio has it, says of its removal."""
    meta = parse_meta(text)
    hold = hold_of(meta)
    return Said(
        _seconds(meta.get(GONE_SINCE)),
        bool(meta.get(GONE_APPROVED)),
        KEEP in meta,
        sys.intern(str(meta.get(GROUP) or "")),
        meta.get(CUSTODIAL) not in (None, False),  # what nobody can read is held
        reason_of(meta.get(GONE_WHY)),
        hold.since if hold else 0,
        hold.why if hold else Removal.GONE,
        LEFT in meta,
        SWEEPING in meta,
        seen_at(meta),
        hold.plan if hold else 0,
        hold is not None and hold.custodial,
        GONE_CUSTODIAL in meta,
    )


def made_at(rule: RuleAtRse) -> float:
    """When the rule was made, or its block was last known to be here, whichever is later (epoch seconds).

    Now where that cannot be read: then nothing was deleted after it.
    """
    for form in ("%a, %d %b %Y %H:%M:%S UTC", "%Y-%m-%d %H:%M:%S"):
        try:
            return max(datetime.strptime(rule.made, form).replace(tzinfo=UTC).timestamp(), rule.seen)
        except ValueError:
            continue
    return time.time()


def preferred(known: RuleAtRse | None, other: RuleAtRse) -> RuleAtRse:
    """Of two rules of one block: a live one before one that ends, then the plain expression, then the first."""
    if known is None:
        return other
    return max(known, other, key=lambda rule: (not rule.ending, rule.plain))


def _together(known: RuleAtRse | None, other: RuleAtRse) -> RuleAtRse:
    """The preferred of them, which says where they are not held alike: an approval covers what is on record in each.

    A rule that an older tool makes beside a held one is put on record then, and what is approved is what was looked at.
    """
    one = preferred(known, other)
    if known is None or known.ending or other.ending:
        return one
    same = bool(known.held_since) == bool(other.held_since) and severity(known.held_why) == severity(other.held_why)
    return replace(one, unlike=known.unlike or not same)


def _seconds(value: object) -> float:
    """The time of a mark, 0 for none. What cannot be read is a mark that is never due: nobody knows its age."""
    if value is None:
        return 0
    is_time = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < NEVER_DUE
    return value if is_time else NEVER_DUE  # type: ignore[return-value]
