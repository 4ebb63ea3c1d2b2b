"""What does `account` do? The account that owns the sync's rules at an RSE is there and may own them."""

from __future__ import annotations

from collections.abc import Iterator

from common import names
from common.errors import UsageError
from common.messages.events import Change
from common.messages.setup import Account
from common.outcome import Outcome
from common.rucio import accounts
from common.rucio.accounts import Identity
from common.rucio.rses import attributes_of
from common.rucio.session import Rucio
from consumers.engine.result import Result
from consumers.engine.world import World


def handle(command: Account, world: World) -> Result:
    """Account, attribute, identities and limit are as asked; only what lacks is written, nothing is taken away.

    Raises UsageError where there is no such RSE, or its account's name would be too long.
    """
    name = _owner(command.rse, world)
    have = accounts.read(world.rucio, name, command.rse)
    wanted = _identities(command, world.rucio)
    changes = list(_changes(command, name, have, wanted))
    if not command.dry:
        _write(world.rucio, command.rse, name, changes, wanted)
    counts = {"created": int(have is None), "changed": len(changes)} if changes else {}
    return Result(
        Outcome.CHANGED if changes else Outcome.IN_SYNC, counts={k: n for k, n in counts.items() if n}, changes=changes
    )


def _owner(rse: str, world: World) -> str:
    """The account of the RSE's node where the settings name one, else `sync_<rse>`."""
    attributes = attributes_of(world.rucio, rse)
    if attributes is None:
        raise UsageError(f"there is no RSE {rse} in Rucio: define it first, with `phedex-rucio rse update`")
    try:
        return world.settings.site(str(attributes.get("pnn", ""))).account or names.sync_account(rse)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _identities(command: Account, rucio: Rucio) -> list[Identity]:
    if command.identity:
        return [Identity(command.identity, command.type)]
    return accounts.identities(rucio, command.from_account or rucio.probe())


def _changes(command: Account, name: str, have: accounts.Account | None, wanted: list[Identity]) -> Iterator[Change]:
    if have is None:
        yield Change(what="account", name=name, wants="SERVICE")
    if command.admin and not (have and have.is_admin):
        yield Change(what="attribute", name=accounts.ADMIN, wants="True")
    known = {(each.type, each.name) for each in have.identities} if have else set()
    for identity in wanted:
        if (identity.type, identity.name) not in known:
            yield Change(what="identity", name=identity.name, wants=identity.type)
    limit = have.limits.get(command.rse) if have else None
    if limit != float("inf"):
        yield Change(what="limit", name=command.rse, was="" if limit is None else f"{limit:,.0f} bytes", wants="none")


def _write(rucio: Rucio, rse: str, name: str, changes: list[Change], wanted: list[Identity]) -> None:
    """The account first; what fails after it is found again at the next try."""
    for change in changes:
        if change.what == "account":
            accounts.add(rucio, name)
        elif change.what == "attribute":
            accounts.make_admin(rucio, name)
        elif change.what == "identity":
            identity = next(each for each in wanted if (each.name, each.type) == (change.name, change.wants))
            accounts.map_identity(rucio, name, identity)
        else:
            accounts.lift_limit(rucio, name, rse)
