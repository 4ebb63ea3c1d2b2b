"""What does Rucio have of one block, at every RSE? A handful of requests, and a listing of its replicas."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from common.errors import NotFound
from common.names import SCOPE, dataset_of
from common.rucio import dids, replicas, rules
from common.rucio.announcements import Announcement
from common.rucio.inventory import is_ours, rule_of
from common.rucio.rses import Site, attributes_of
from common.rucio.session import Row, Rucio
from common.sync.marks import parse_meta
from common.sync.one_block import Holder, InRucio, RuleSeen, Sweeping


@dataclass(frozen=True)
class Outline:
    """A block without its files, and the rules on it and on its container as Rucio gives them."""

    found: InRucio
    rows: list[tuple[str, Row]]


def outline(rucio: Rucio, block: str) -> Outline:
    """What Rucio has of the block, as numbers: six requests, however many files and sites there are."""
    there = dids.existing(rucio, (block, dataset_of(block)))
    found = InRucio(
        container=dataset_of(block) in there,
        dataset=block in there,
        is_open=there.get(block, False),
        attached=block in there and dataset_of(block) in _parents(rucio, block),
        holders=_holders(rucio, block) if block in there else (),
        available=_available(rucio, block) if block in there else {},
    )
    return Outline(found, [(name, row) for name in (block, dataset_of(block)) for row in rules.of_dataset(rucio, name)])


def seen_from(whole: Outline, site: Site | None) -> InRucio:
    """The same with its rules, those of the site's accounts known as ours."""
    return replace(whole.found, rules=tuple(_seen(row, site, about) for about, row in whole.rows))


def with_files(rucio: Rucio, found: InRucio, block: str, listed: Collection[str]) -> InRucio:
    """The same with its files and the replicas of each; `listed`: PhEDEx' files, looked for outside of it too.

    Two requests, and one for each 500 files, which takes some 4 ms a file (41.5.1).
    """
    inside = dids.contents(rucio, [block])[block] if found.dataset else {}
    outside = set(listed) - inside.keys()
    standing = replicas.standing(rucio, {*inside, *outside})
    return replace(
        found,
        inside=inside,
        known=dids.known_files(rucio, outside) if outside else {},
        states={name: one.states for name, one in standing.items() if one.states},
    )


def node_of(rucio: Rucio, rse: str) -> str:
    """The node that an RSE says it stands for, "" for none or one that is no real one."""
    attributes = attributes_of(rucio, rse) or {}
    return str(attributes.get("pnn") or "") if attributes.get("cms_type") == "real" else ""


def sweeping(found: Iterable[Announcement], lifetime: float, block: str = "") -> tuple[Sweeping, ...]:
    """The sweeps that are announced, of one block or of any."""
    return tuple(_sweeping(one, lifetime) for one in found if not block or one.is_about(block))


def _sweeping(one: Announcement, lifetime: float) -> Sweeping:
    if one.hashes is None:
        return Sweeping(key=one.key)
    since = datetime.fromtimestamp(one.at, UTC)
    until = since + timedelta(seconds=lifetime)
    return Sweeping(key=one.key, by=one.by, cycle=one.cycle, since=since, until=until, blocks=len(one.hashes))


def has_account(rucio: Rucio, account: str) -> bool:
    """True if Rucio has the account that is to own the rules."""
    try:
        rucio.row("get_account", account, about=account)
    except NotFound:
        return False
    return True


def _parents(rucio: Rucio, block: str) -> set[str]:
    return {row["name"] for row in rucio.rows("list_parent_dids", SCOPE, block, about=block)}


def _holders(rucio: Rucio, block: str) -> tuple[Holder, ...]:
    return tuple(sorted(Holder(lock.rse, lock.account, lock.rule) for lock in rules.locks(rucio, [block])))


def _available(rucio: Rucio, block: str) -> dict[str, int]:
    """Counted by Rucio file by file, for its own counters lag (41.5.1)."""
    rows = rucio.rows("list_dataset_replicas", SCOPE, block, deep=True, about=block)
    return {row["rse"]: row["available_length"] or 0 for row in rows}


def _seen(row: Row, site: Site | None, about: str) -> RuleSeen:
    return RuleSeen(
        id=row["id"],
        account=row["account"],
        expression=row["rse_expression"],
        state=str(row.get("state") or ""),
        locks=(
            row.get("locks_ok_cnt") or 0,
            row.get("locks_replicating_cnt") or 0,
            row.get("locks_stuck_cnt") or 0,
        ),
        about=about,
        ends=_time(row.get("expires_at")),
        created=_time(row.get("created_at")),
        comment=str(row.get("comments") or ""),
        meta=parse_meta(row.get("meta")),
        ours=rule_of(row, site) if site is not None and is_ours(row, site) else None,
    )


def _time(value: object) -> datetime | None:
    """Rucio's times are UTC and do not say so."""
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)
