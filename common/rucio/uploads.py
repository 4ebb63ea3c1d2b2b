"""What does Rucio know of an upload: both RSEs and the way between them, the file, its replica and its rule?"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from common.errors import NotFound, RucioConflict, RucioRefused, UsageError
from common.rucio import accounts, distances
from common.rucio.replicas import STATES
from common.rucio.rses import is_rule_for
from common.rucio.session import Row, Rucio
from common.rucio.storage import Place
from common.spool import Content

COMMENT = "phedex-rucio: uploaded"


class Way(Struct, frozen=True):
    """From an RSE (as `get_rse` gives it) to another, and what a person should know of it."""

    temp: Row
    notes: list[str]


class Errand(Struct, frozen=True, kw_only=True):
    """A file's name in a scope, from which RSE to which it is to be copied, and for whom."""

    scope: str
    name: str
    temp: str
    dest: str
    account: str

    @property
    def did(self) -> dict[str, str]:
        """The file as Rucio wants it."""
        return {"scope": self.scope, "name": self.name}

    def __str__(self) -> str:
        return f"{self.scope}:{self.name}"


class Known(Struct, frozen=True):
    """A file as Rucio has it; `state` of its replica at the temporary RSE, "" for none; whether the rule is there."""

    content: Content
    state: str
    ruled: bool


def way(rucio: Rucio, temp: str, dest: str, pfn: str) -> Way:
    """Both RSEs are there, are two, and the first one knows or is told where the file belongs; else UsageError."""
    if temp == dest:
        raise UsageError(f"{temp}: is both the temporary RSE and the destination: nothing would be transferred")
    row = _rse(rucio, temp)
    _rse(rucio, dest)
    if not row["deterministic"] and not pfn:
        raise UsageError(f"{temp}: does not tell where a file belongs (not deterministic): give its PFN there, --pfn")
    if row["deterministic"] and pfn:
        raise UsageError(f"{temp}: tells by itself where a file belongs: leave out --pfn")
    if not row["availability_write"]:
        raise UsageError(f"{temp}: is closed for writing")
    notes = []
    if distances.read(rucio, temp, dest) is None:
        notes.append(f"no distance leads from {temp} to {dest}: the rule will wait until there is one (`link update`)")
    return Way(row, notes)


def known(rucio: Rucio, errand: Errand) -> Known | None:
    """The file of this name, or None. Raises UsageError where the name is that of a dataset or container."""
    about = str(errand)
    try:
        row = rucio.row("get_metadata", errand.scope, errand.name, about=about)
    except NotFound:
        return None
    if row["did_type"] != "FILE":
        raise UsageError(f"{about}: is a {str(row['did_type']).lower()} in Rucio")
    states: dict[str, str] = {}
    for found in rucio.rows("list_replicas", [errand.did], **STATES, about=about):
        states.update(found["states"])
    rules = list(rucio.rows("list_did_rules", errand.scope, errand.name, about=about))
    return Known(
        Content(int(row["bytes"] or 0), str(row["adler32"] or "")),
        states.get(errand.temp, ""),
        any(rule["account"] == errand.account and is_rule_for(errand.dest, rule["rse_expression"]) for rule in rules),
    )


def scope_exists(rucio: Rucio, scope: str) -> bool:
    """True if Rucio has the scope."""
    return scope in rucio.call("list_scopes", about=scope)


def add_scope(rucio: Rucio, account: str, scope: str) -> None:
    """The scope exists and is the account's. UsageError where we may not make it."""
    try:
        rucio.call("add_scope", account, scope, about=f"{scope} of {account}")
    except NotFound:
        raise
    except RucioConflict:
        return
    except RucioRefused as error:
        raise UsageError(f"{scope}: no such scope, and we may not make it: {error}") from None


def register(rucio: Rucio, where: Place, content: Content) -> None:
    """Rucio knows the file and its replica at the place. Only to be said once it is true."""
    file: dict[str, Any] = {
        "scope": where.scope,
        "name": where.name,
        "bytes": content.bytes,
        "adler32": content.adler32,
    }
    if not where.row["deterministic"]:
        file["pfn"] = where.pfn
    rucio.call("add_replicas", where.rse, [file], about=f"{where.scope}:{where.name} at {where.rse}")


def make_available(rucio: Rucio, where: Place) -> None:
    """The replica at the place is one that Rucio reads."""
    file = {"scope": where.scope, "name": where.name, "state": "A"}
    rucio.call("update_replicas_states", where.rse, [file], about=f"{where.scope}:{where.name} at {where.rse}")


def ask_for(rucio: Rucio, errand: Errand) -> None:
    """The account has a rule for the file at the destination, to be copied from the source. UsageError if refused."""
    about = f"{errand} at {errand.dest} for {errand.account}"
    options = {"account": errand.account, "source_replica_expression": errand.temp, "comment": COMMENT}
    try:
        rucio.call("add_replication_rule", [errand.did], 1, errand.dest, about=about, **options)
    except NotFound:
        raise
    except RucioConflict:
        return
    except RucioRefused as error:
        if type(error.__cause__).__name__ == "InsufficientAccountLimit":
            raise UsageError(
                f"{errand.account}: has no quota left at {errand.dest}; the file is at {errand.temp}: "
                "once it has, repeat or replay this command"
            ) from error
        raise


def has_quota(rucio: Rucio, account: str, rse: str) -> bool:
    """False where Rucio will refuse a rule of the account there: no limit set, and no administrator.

    Raises UsageError where there is no such account. Three requests.
    """
    found = accounts.read(rucio, account, rse)
    if found is None:
        raise UsageError(f"{account}: no such account in Rucio")
    return found.is_admin or found.limits.get(rse, 0) > 0


def _rse(rucio: Rucio, rse: str) -> Row:
    try:
        return rucio.row("get_rse", rse, about=rse)
    except NotFound:
        raise UsageError(f"{rse}: no such RSE in Rucio") from None
