"""How do our rules at an RSE get another owner? Listed, weighed, given one by one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from enum import StrEnum

from common.errors import NotFound, RucioError
from common.rucio import dids, rules
from common.rucio.inventory import is_ours, rule_of
from common.rucio.rses import Site
from common.rucio.session import Row, Rucio
from common.sync.handover import Held
from common.sync.marks import GONE_CYCLE, parse_meta


class Given(StrEnum):
    """What became of one rule: theirs; ours still, for they have one of their own; or not ours (to give) any more."""

    GIVEN = "given"
    CONFLICT = "conflict"
    GONE = "gone"


def our_rules(rucio: Rucio, site: Site) -> Iterator[Held]:
    """Our rules at the RSE, those of former accounts and forms too, as a stream: one request an account."""
    for account in site.accounts:
        for row in rucio.rows("list_account_rules", account, about=account):
            if is_ours(row, site):
                yield held(row, site)


def held(row: Row, site: Site) -> Held:
    """What a change of owner needs of a rule as Rucio gives it."""
    rule, meta = rule_of(row, site), parse_meta(row.get("meta"))
    return Held(
        id=row["id"],
        name=row["name"],
        files=rule.files,
        group=rule.group,
        account=row["account"],
        cycle=str(meta.get(GONE_CYCLE) or ""),
        marked=rule.marked and not rule.keep,  # what a person keeps is marked only until the engine sees that
        ending=rule.ending,
    )


def give(rucio: Rucio, site: Site, rule: Held, account: str, comment: str) -> Given:
    """The rule, its locks and what it counts for are the account's: two requests. Its meta, state and files stay.

    Read first: a rule that is not ours any more, marked, or ending is left. Rucio does not look at the new owner's
    limit here (look at `room`), and where that has such a rule already it only says "database exception" (41.5.1).
    """
    row = rules.find(rucio, rule.id)
    if row is None or not is_ours(row, site) or held(row, site).marked or row.get("expires_at") is not None:
        return Given.GONE
    try:
        rules.change(rucio, rule.id, {"account": account, "comment": comment})
    except RucioError:
        if (why := _why_not(rucio, row, account)) is None:
            raise
        return why
    return Given.GIVEN


def _why_not(rucio: Rucio, row: Row, account: str) -> Given | None:
    """The foreseen reasons why a rule could not be given; None for another error."""
    if rules.find(rucio, row["id"]) is None:
        return Given.GONE
    for other in rules.of_dataset(rucio, row["name"]):
        if other["account"] == account and other["rse_expression"] == row["rse_expression"]:
            return Given.CONFLICT
    return None


def room(rucio: Rucio, account: str, rse: str) -> float:
    """How many bytes more the account may have at the RSE; infinite for an admin. Raises NotFound for no such account.

    A rule whose owner has too little room turns STUCK when Rucio looks at its dataset again (41.5.1).
    """
    rucio.row("get_account", account, about=account)
    if _is_admin(rucio, account):
        return math.inf
    limit = rucio.row("get_local_account_limit", account, rse, about=f"{account} at {rse}").get(rse)
    if limit is None or limit == math.inf:
        return 0.0 if limit is None else math.inf
    usage = rucio.rows("get_local_account_usage", account, rse, about=f"{account} at {rse}")
    return float(limit) - float(sum(row["bytes"] for row in usage))


def _is_admin(rucio: Rucio, account: str) -> bool:
    """The client gives the attributes as one list of all of them."""
    pages = rucio.call("list_account_attributes", account, about=account)
    return any(row["key"] == "admin" and row["value"] in (True, "true", "True") for page in pages for row in page)


def sizes(rucio: Rucio, rse: str, found: Iterable[Held]) -> dict[str, int]:
    """The bytes of each rule's block: by Rucio's own count where that agrees with the rule's files, else file by file.

    One stream for the RSE, and a request for every 500 blocks whose count lags (daemon abacus-collection-replica).
    """
    files = {rule.name: rule.files for rule in found}
    known = {
        row["name"]: int(row["available_bytes"])
        for row in rucio.rows("list_datasets_per_rse", rse, about=rse)
        if row["name"] in files and row["available_length"] == files[row["name"]] and row["available_bytes"]
    }
    inside = dids.contents(rucio, files.keys() - known.keys())
    return known | {name: sum(file.bytes for file in listed.values()) for name, listed in inside.items()}


def exists(rucio: Rucio, account: str) -> bool:
    """True for an account that Rucio has."""
    try:
        rucio.row("get_account", account, about=account)
    except NotFound:
        return False
    return True
