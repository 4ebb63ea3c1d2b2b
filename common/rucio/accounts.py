"""What is an account in Rucio, and how does it become what it should be?"""

from __future__ import annotations

import contextlib

from msgspec import Struct

from common.errors import NotFound, RucioConflict
from common.rucio.session import Rucio

EMAIL = "phedex-rucio@localhost"  # Rucio wants one; nobody writes to a site's account
ADMIN = "admin"
UNLIMITED = -1  # as it is set; read back it is infinity


class Identity(Struct, frozen=True, order=True):
    """Who may log in as an account: the name, and how it proves itself (X509, USERPASS, GSS, SSH, OIDC, SAML)."""

    name: str
    type: str
    email: str = EMAIL


class Account(Struct, frozen=True, kw_only=True):
    """An account as Rucio has it. `limits`: bytes it may own at an RSE, infinity for no limit; only asked RSEs."""

    name: str
    is_admin: bool
    identities: frozenset[Identity]
    limits: dict[str, float]


def read(rucio: Rucio, name: str, rse: str) -> Account | None:
    """The account with its limit at an RSE, or None. Four requests at most."""
    try:
        rucio.row("get_account", name, about=name)
    except NotFound:
        return None
    attributes = [pair for row in rucio.call("list_account_attributes", name, about=name) for pair in row]
    limit = rucio.row("get_local_account_limit", name, rse, about=f"{name} at {rse}").get(rse)
    return Account(
        name=name,
        is_admin=any(pair["key"] == ADMIN and pair["value"] is True for pair in attributes),
        identities=frozenset(identities(rucio, name)),
        limits={} if limit is None else {rse: float(limit)},
    )


def identities(rucio: Rucio, name: str) -> list[Identity]:
    """Who may log in as the account."""
    rows = rucio.rows("list_identities", name, about=name)
    return sorted(Identity(row["identity"], row["type"], row.get("email") or EMAIL) for row in rows)


def add(rucio: Rucio, name: str) -> None:
    """The account exists; it is a program's."""
    with contextlib.suppress(RucioConflict):
        rucio.call("add_account", name, "SERVICE", EMAIL, about=name)


def make_admin(rucio: Rucio, name: str) -> None:
    """The account has the attribute `admin`: with the policy package it may do what the sync does."""
    with contextlib.suppress(RucioConflict):
        rucio.call("add_account_attribute", name, ADMIN, "True", about=name)


def map_identity(rucio: Rucio, name: str, identity: Identity) -> None:
    """The identity may log in as the account. (One that Rucio knows needs no password again.)"""
    with contextlib.suppress(RucioConflict):
        rucio.call("add_identity", name, identity.name, identity.type, identity.email, about=name)


def lift_limit(rucio: Rucio, name: str, rse: str) -> None:
    """The account may own any number of bytes at the RSE."""
    rucio.call("set_local_account_limit", name, rse, UNLIMITED, about=f"{name} at {rse}")
