"""How is a rule found, made and changed?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec import Struct

from common.errors import NotFound
from common.names import SCOPE
from common.rucio.dids import called, did
from common.rucio.session import Row, Rucio, sliced
from common.sync.marks import COMMENT
from common.telemetry import metrics

SOON = timedelta(minutes=10)  # an end that is as near counts as come: clocks differ


class Lock(Struct, frozen=True):
    """A rule that holds a dataset at an RSE: the dataset's name, the RSE, the rule's id, the account that owns it."""

    name: str
    rse: str
    rule: str
    account: str


def locks(rucio: Rucio, datasets: Iterable[str]) -> list[Lock]:
    """All that holds the datasets, anybody's and anywhere. A rule that waits for approval or injection has none."""
    found: list[Lock] = []
    for part in sliced(sorted(datasets), rucio.main.rucio_dids):
        dids = [{**did(name), "type": "dataset"} for name in part]
        rows = rucio.rows("get_locks_for_dids", dids, about=f"{len(part)} names from {part[0]}")
        found += [Lock(row["name"], row["rse"], row["rule_id"], row["account"]) for row in rows]
    return found


def read(rucio: Rucio, rule: str) -> Row:
    """The rule as Rucio has it; NotFound where there is none of this id."""
    return rucio.row("get_replication_rule", rule, about=rule)


def find(rucio: Rucio, rule: str) -> Row | None:
    """The rule as Rucio has it, or None."""
    try:
        return read(rucio, rule)
    except NotFound:
        return None


def of_dataset(rucio: Rucio, dataset: str, scope: str = SCOPE) -> Iterator[Row]:
    """All rules of a dataset or container, those without locks too; none of one that does not exist."""
    try:
        yield from rucio.rows("list_did_rules", scope, dataset, about=dataset)
    except NotFound:
        return


def on_files(rucio: Rucio) -> Iterator[Row]:
    """The rules on single files of our scope: no dataset shows them."""
    return rucio.rows("list_replication_rules", {"scope": SCOPE, "did_type": "F"}, about="files")


def new_by_file(rucio: Rucio, since: datetime) -> Iterator[Row]:
    """The rules on datasets of our scope that were made since then and place each file by itself (grouping NONE).

    No lock on a dataset shows them (41.5.1).
    """
    made = f"{since.astimezone(UTC):%a, %d %b %Y %H:%M:%S} UTC"
    filters = {"scope": SCOPE, "did_type": "D", "grouping": "N", "created_after": made}
    return rucio.rows("list_replication_rules", filters, about="new rules")


def holding_file(rucio: Rucio, file: str) -> list[Row]:
    """All rules that have a lock on a file, at whichever RSE."""
    one = did(file)
    return list(rucio.rows("list_associated_rules_for_file", one["scope"], one["name"], about=file))


def locked_by(rucio: Rucio, rule: str, rse: str, *, state: str = "") -> set[str]:
    """The files that a rule holds at an RSE, one by one; none for a rule that is gone.

    `state`: of the locks that count, such as `REPLICATING` for files that Rucio is to transfer; "" for all.
    """
    try:
        rows = list(rucio.rows("list_replica_locks", rule, about=rule))
    except NotFound:
        return set()
    return {called(row) for row in rows if row["rse"] == rse and state in ("", row["state"])}


def add(rucio: Rucio, datasets: list[str], rse: str, account: str, meta: dict[str, Any]) -> None:
    """Each dataset has a rule at the RSE, without end: at most 1,000, all or nothing.

    Every file must be available there already: for one that is not Rucio queues a real transfer. Availability of the
    RSE is ignored, because a site that is blocked for writing still has what it has. Raises RucioConflict where one
    has such a rule already.
    """
    rucio.call(
        "add_replication_rule",
        [did(name) for name in sorted(datasets)],
        1,
        rse,
        account=account,
        meta=as_text(meta),
        comment=COMMENT,
        ignore_availability=True,
        about=f"{len(datasets)} names from {min(datasets)} at {rse} for {account}",
    )
    metrics.RULE_CHANGES.labels("added").inc(len(datasets))


def change(rucio: Rucio, rule: str, options: dict[str, Any], *, by: float | None = None) -> None:
    """The rule has the options; NotFound where there is no such rule any more.

    `by`: the time of the session's clock after which nothing is sent, which raises TooLate then.
    """
    if by is None:
        rucio.call("update_replication_rule", rule, options, about=rule)
    else:
        rucio.call_by(by, "update_replication_rule", rule, options, about=rule)
    metrics.RULE_CHANGES.labels("ended" if options.get("lifetime") == 0 else "updated").inc()


def is_ordering(row: Row) -> bool:
    """True for a rule that has transfers queued: a file joined its block that was not available there."""
    return bool(row.get("locks_replicating_cnt")) and row.get("state") == "REPLICATING"


def lasts_until(row: Row, at: datetime) -> datetime | None:
    """The end of a rule that stands although it has one: somebody gave it a lifetime, or ended it with notice.

    None for a rule without an end, and for one that is over.
    """
    end = _end_of(row)
    return end if end is not None and end > at + SOON else None


def is_over(row: Row, at: datetime) -> bool:
    """True for a rule whose end has come: Rucio's cleaner takes it at its next round."""
    end = _end_of(row)
    return end is not None and end <= at


def _end_of(row: Row) -> datetime | None:
    end: datetime | None = row.get("expires_at")
    if end is None or end.tzinfo:
        return end
    return end.replace(tzinfo=UTC)  # Rucio's times are UTC and do not say so


def is_recovery(rucio: Rucio, rse: str, file: str) -> bool:
    """True where Rucio is to copy the file to the RSE anew, since its replica there was declared bad (41.5.1)."""
    try:
        row = rucio.row("list_request_by_did", file, rse, scope=SCOPE, about=f"{file} at {rse}")
    except NotFound:
        return False
    return row.get("activity") == "Recovery"


def withdraw(rucio: Rucio, rule: str) -> None:
    """Nothing is transferred for the rule: what is queued is cancelled, its replicas are UNAVAILABLE, its locks STUCK.

    So are the locks that others have on the same replicas. Rucio leaves the rule's counters as they were; the rule is
    STUCK until judge-repairer has counted again (41.5.1). NotFound where there is no such rule any more.
    """
    rucio.call("update_replication_rule", rule, {"state": "STUCK", "cancel_requests": True}, about=rule)
    metrics.RULE_CHANGES.labels("withdrawn").inc()


def end(rucio: Rucio, rule: str, *, unlock: bool = False) -> None:
    """The rule is over: Rucio's cleaner takes it, and its locks, at its next round. NotFound where it is gone.

    `unlock`: at a tape RSE, where Rucio locks every rule by itself and its cleaner passes over locked ones (41.5.1).
    Anywhere else a lock is a person's.
    """
    change(rucio, rule, {"lifetime": 0, "locked": False} if unlock else {"lifetime": 0})


def as_text(meta: dict[str, Any]) -> str:
    """A rule's meta as Rucio stores it: JSON in a text."""
    return msgspec.json.encode(meta, order="sorted").decode()
