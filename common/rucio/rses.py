"""Which RSE is a node, who owns the rules there, and does its switch let us work?"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from msgspec import Struct

from common import names
from common.errors import NotFound, RucioRefused, UsageError
from common.rucio import announcements
from common.rucio.announcements import Announcement
from common.rucio.session import Rucio
from common.settings import model

SWITCH = "phedex_sync"
INVENTORY = "inventory_node"
HANDED_OVER = "phedex_handed_over"  # to which accounts; while it is there the site is frozen, whatever its switch says


class Switch(StrEnum):
    """What a site's own attribute `phedex_sync` in Rucio allows."""

    ON = "on"
    ADDS_ONLY = "adds-only"
    FROZEN = "frozen"


@dataclass(frozen=True)
class Site:
    """A node as Rucio has it. `accounts`: the owner of our rules first, then whom older tools took for it.

    `announced`: the sweeps that were announced there when it was looked up.
    `listed_at`: the node whose list says what is there: itself; for tape, whose node is the buffer in front of it, the
    one that the settings name, else the RSE's attribute `inventory_node`.
    """

    rse: str
    account: str
    accounts: tuple[str, ...]
    switch: Switch
    listed_at: str
    announced: tuple[Announcement, ...] = ()


def find_site(rucio: Rucio, node: str, policy: model.Site) -> Site | None:
    """The node's RSE of type `real`, by its attributes so that a renamed one is found, or the policy's; None if none.

    Raises UsageError where several RSEs claim the node, where its RSE is another node's, whose sync would sweep what
    this one adds, or where the owner's name would be too long.
    """
    found = [policy.rse] if policy.rse else rses_of_node(rucio, node)
    if len(found) > 1:
        raise UsageError(f"{node}: {len(found)} RSEs claim it ({', '.join(found)}): correct `pnn`, or set `rse:`")
    attributes = attributes_of(rucio, found[0]) if found else None
    if attributes is None or not (policy.rse or _stands_for(attributes, node)):
        return None
    if (other := _other_node(attributes, node)) is not None:
        raise UsageError(
            f"{node}: its section says rse: {found[0]}, which is the RSE of {other} (its attribute pnn): two nodes at "
            f"one RSE would sweep each other's blocks; correct `rse:` or `pnn`"
        )
    account = _owner(found[0], policy)
    accounts = tuple(dict.fromkeys([account, *_former(found[0]), *_former(node)]))
    listed_at = _listed_at(node, policy, found[0], attributes)
    announced = tuple(announcements.of(attributes))
    return Site(found[0], account, accounts, switch_of(attributes), listed_at, announced)


def _other_node(attributes: dict[str, object], node: str) -> str | None:
    """The node that an RSE stands for, where that is another one; a tape's buffer and the tape are one."""
    pnn = str(attributes.get("pnn") or node)
    same = pnn == node or names.buffer_of(pnn) == node or names.buffer_of(node) == pnn
    return pnn if names.is_node(pnn) and not same and attributes.get("cms_type") == "real" else None


def _stands_for(attributes: dict[str, object], node: str) -> bool:
    """False where the attributes were changed a while ago: Rucio may remember for ten minutes what matched (41.5.1)."""
    return attributes.get("cms_type") == "real" and attributes.get("pnn") == node


def _listed_at(node: str, policy: model.Site, rse: str, attributes: dict[str, object]) -> str:
    listed_at = policy.inventory_node or str(attributes.get(INVENTORY) or node)
    if not names.is_node(listed_at):
        raise UsageError(f"{rse}: its attribute {INVENTORY} is {listed_at!r}, which is no node such as T1_US_FNAL_MSS")
    return listed_at


def switch_of(attributes: dict[str, object]) -> Switch:
    """What the attribute says; absent is on; frozen is what nobody can read, and a site that was handed over."""
    if HANDED_OVER in attributes:
        return Switch.FROZEN
    value = attributes.get(SWITCH, Switch.ON)
    return next((switch for switch in Switch if switch == value), Switch.FROZEN)


def read_switch(rucio: Rucio, rse: str) -> Switch:
    """What the RSE's switch says now; frozen where the RSE is gone."""
    attributes = attributes_of(rucio, rse)
    return Switch.FROZEN if attributes is None else switch_of(attributes)


def is_rule_for(rse: str, expression: str) -> bool:
    """True for the expressions that mean exactly this RSE: its name, or the `rse=X` of older tools."""
    return expression in (rse, f"rse={rse}")


def real_rses(rucio: Rucio) -> list[str]:
    """The RSEs that stand for nodes, by name."""
    return _matching(rucio, "cms_type=real")


def turned_rses(rucio: Rucio) -> list[str]:
    """The RSEs whose switch says frozen or adds-only, by name; one that nobody can read is not among them."""
    turned = (Switch.FROZEN, Switch.ADDS_ONLY)
    return sorted({rse for switch in turned for rse in _matching(rucio, f"{SWITCH}={switch}")})


def rses_of_type(rucio: Rucio, kind: str) -> list[str]:
    """The RSEs of a type (real, temp, test), by name."""
    return _matching(rucio, f"cms_type={kind}")


def rses_of_node(rucio: Rucio, node: str) -> list[str]:
    """The RSEs of type `real` that say they are this node: one, or none; more is somebody's mistake."""
    return _matching(rucio, f"cms_type=real&pnn={node}")


def _matching(rucio: Rucio, expression: str) -> list[str]:
    """Rucio has no empty answer to an expression: it calls one that matches nothing invalid."""
    try:
        return sorted(row["rse"] for row in rucio.rows("list_rses", expression, about=expression))
    except RucioRefused as error:
        if type(error.__cause__).__name__ == "InvalidRSEExpression":
            return []
        raise


class Closed(Struct, frozen=True):
    """What an RSE itself says: it is closed for deletion, or on tape, or its replicas are none to rely on.

    `unsure`: it cannot be read from now, or is volatile, which may lose a replica at any time.
    """

    for_deletion: bool
    tape: bool
    unsure: bool


def closed(rucio: Rucio, rse: str) -> Closed:
    """Whether the RSE lets replicas be deleted now, whether it is a tape, and whether another site can rely on it."""
    row = rucio.row("get_rse", rse, about=rse)
    unsure = row.get("availability_read") is False or row.get("volatile") is True
    return Closed(row.get("availability_delete") is False, row.get("rse_type") == "TAPE", unsure)


def attributes_of(rucio: Rucio, rse: str) -> dict[str, object] | None:
    """All attributes of an RSE; None where there is no such RSE."""
    try:
        return dict(rucio.row("list_rse_attributes", rse, about=rse))
    except NotFound:
        return None


def announcements_at(rucio: Rucio, rse: str) -> list[Announcement]:
    """All sweeps announced at the RSE, read now, whether they are over or not. None at an RSE that is not there."""
    return announcements.of(attributes_of(rucio, rse) or {})


def announced(rucio: Rucio, rse: str, at: float) -> tuple[list[Announcement], list[Announcement]]:
    """The sweeps announced at the RSE, read now: those that may still be carried out, and those that are over.

    `at`: epoch seconds. None at an RSE that is not there.
    """
    return announcements.parted(announcements_at(rucio, rse), at, rucio.main.announcement_lifetime)


def is_announced(rucio: Rucio, rse: str, block: str, at: float) -> bool:
    """True where, at this time (epoch seconds), somebody is about to delete the block at the RSE."""
    live, _ = announced(rucio, rse, at)
    return bool(announcements.about(live, [block]))


def _owner(rse: str, policy: model.Site) -> str:
    try:
        return policy.account or names.sync_account(rse)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _former(name: str) -> list[str]:
    """The original service's account was named after the node, its tools' after the RSE, which for tape differs."""
    account = f"sync_{name.lower()}"
    return [account] if len(account) <= names.ACCOUNT_LENGTH else []
