"""Which of our rules are at an RSE? One stream an account, kept small."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import TypedDict

from msgspec.json import Decoder

from common.names import SCOPE
from common.rucio.rses import Site, is_rule_for
from common.rucio.session import Row, Rucio
from common.sync.catalogue import CUSTODIAL, GONE_APPROVED, GONE_SINCE, GROUP, KEEP, RuleAtRse, parse_meta

NEVER_DUE = 253_402_300_799  # the end of the year 9999


class RuleRow(TypedDict, total=False):
    """What is looked at of a rule, a quarter of what Rucio sends."""

    id: str
    name: str
    scope: str
    did_type: str
    account: str
    rse_expression: str
    locks_ok_cnt: int | None
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
                rules[name] = preferred(rules.get(name), rule_of(row, site))
    return rules


def is_ours(row: Row, site: Site) -> bool:
    """True for a rule of one of the site's accounts, on a block, at exactly this RSE. No other is ever touched."""
    return (
        row.get("scope") == SCOPE
        and row.get("did_type") == "DATASET"
        and row.get("account") in site.accounts
        and is_rule_for(site.rse, row.get("rse_expression", ""))
    )


def rule_of(row: Row, site: Site) -> RuleAtRse:
    """What we keep of a rule as Rucio gives it."""
    meta = row.get("meta")
    gone_since, approved, keep, group, custodial = _said(meta) if isinstance(meta, str) else _told(meta)
    return RuleAtRse(
        row["id"],
        row.get("locks_ok_cnt") or 0,
        row.get("expires_at") is not None,
        gone_since,
        approved,
        keep,
        group,
        custodial,
        row["rse_expression"] == site.rse,
    )


@lru_cache(maxsize=1024)
def _said(meta: str) -> tuple[int, bool, bool, str, bool]:
    """What a meta's text says, read once: a site's rules have few that differ, but for those that are marked."""
    return _told(meta)


def _told(text: object) -> tuple[int, bool, bool, str, bool]:
    meta = parse_meta(text)
    return (
        _seconds(meta.get(GONE_SINCE)),
        bool(meta.get(GONE_APPROVED)),
        KEEP in meta,
        sys.intern(str(meta.get(GROUP) or "")),
        meta.get(CUSTODIAL) is True,
    )


def preferred(known: RuleAtRse | None, other: RuleAtRse) -> RuleAtRse:
    """Of two rules of one block: a live one before one that ends, then the plain expression, then the first."""
    if known is None:
        return other
    return max(known, other, key=lambda rule: (not rule.ending, rule.plain))


def _seconds(value: object) -> int:
    """The time of a mark, 0 for none. What cannot be read is a mark that is never due: nobody knows its age."""
    if value is None:
        return 0
    return int(value) if isinstance(value, int | float) and value > 0 else NEVER_DUE
