"""Which RSE is a node, who owns the rules there, and does its switch let us work?"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from common import names
from common.errors import NotFound, RucioRefused, UsageError
from common.rucio.session import Rucio
from common.settings import model

SWITCH = "phedex_sync"


class Switch(StrEnum):
    """What a site's own attribute `phedex_sync` in Rucio allows."""

    ON = "on"
    ADDS_ONLY = "adds-only"
    FROZEN = "frozen"


@dataclass(frozen=True)
class Site:
    """A node as Rucio has it. `accounts`: the owner of our rules first, then whom older tools took for it."""

    rse: str
    account: str
    accounts: tuple[str, ...]
    switch: Switch


def find_site(rucio: Rucio, node: str, policy: model.Site) -> Site | None:
    """The node's RSE of type `real`, by its attributes so that a renamed one is found, or the policy's; None if none.

    Raises UsageError where several RSEs claim the node, or the owner's name would be too long.
    """
    found = [policy.rse] if policy.rse else _by_attributes(rucio, node)
    if len(found) > 1:
        raise UsageError(f"{node}: {len(found)} RSEs claim it ({', '.join(found)}): correct `pnn`, or set `rse:`")
    attributes = _attributes(rucio, found[0]) if found else None
    if attributes is None:
        return None
    account = _owner(found[0], policy)
    accounts = tuple(dict.fromkeys([account, *_former(node)]))
    return Site(found[0], account, accounts, switch_of(attributes))


def switch_of(attributes: dict[str, object]) -> Switch:
    """What the attribute says; absent is on, and what nobody can read is frozen."""
    value = attributes.get(SWITCH, Switch.ON)
    return next((switch for switch in Switch if switch == value), Switch.FROZEN)


def read_switch(rucio: Rucio, rse: str) -> Switch:
    """What the RSE's switch says now; frozen where the RSE is gone."""
    attributes = _attributes(rucio, rse)
    return Switch.FROZEN if attributes is None else switch_of(attributes)


def is_rule_for(rse: str, expression: str) -> bool:
    """True for the expressions that mean exactly this RSE: its name, or the `rse=X` of older tools."""
    return expression in (rse, f"rse={rse}")


def _by_attributes(rucio: Rucio, node: str) -> list[str]:
    """Rucio has no empty answer to an expression: it calls one that matches nothing invalid."""
    try:
        return sorted(row["rse"] for row in rucio.rows("list_rses", f"cms_type=real&pnn={node}", about=node))
    except RucioRefused as error:
        if type(error.__cause__).__name__ == "InvalidRSEExpression":
            return []
        raise


def _attributes(rucio: Rucio, rse: str) -> dict[str, object] | None:
    try:
        return dict(rucio.row("list_rse_attributes", rse, about=rse))
    except NotFound:
        return None


def _owner(rse: str, policy: model.Site) -> str:
    try:
        return policy.account or names.sync_account(rse)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _former(node: str) -> list[str]:
    """The original service's account was named after the node, which for tape is not the RSE."""
    account = f"sync_{node.lower()}"
    return [account] if len(account) <= names.ACCOUNT_LENGTH else []
