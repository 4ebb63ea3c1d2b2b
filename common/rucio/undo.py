"""Which marks at an RSE are taken back, and what is too late for that?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from common.errors import NotFound
from common.names import is_block
from common.rucio import dids, replicas, rules
from common.rucio.inventory import is_ours
from common.rucio.rses import Site
from common.rucio.session import Row, Rucio
from common.sync.catalogue import parse_meta
from common.sync.keep import Undone, cleared, is_meant, kept


class Order(Struct, frozen=True, kw_only=True):
    """What a person wants: the cycles and blocks meant, to keep them or to clear that again, who it is and when."""

    asked: frozenset[str]
    clear: bool = False
    dry: bool = False
    by: str = ""
    at: str = ""


class Done(Struct, frozen=True):
    """One block, and what became of it."""

    block: str
    state: Undone


def undo(rucio: Rucio, site: Site, order: Order) -> list[Done]:
    """Every rule that was meant is kept (or cleared), or it is said why not; nothing else of it changes.

    One request for each account of the site, four for each rule that was meant. What a sweep has begun to take cannot
    be given back and is left to it.
    """
    found = [_one(rucio, site, row, order) for row in _meant(rucio, site, order)]
    named = {one.block for one in found}
    found += [Done(name, Undone.NO_RULE) for name in order.asked if is_block(name) and name not in named]
    return sorted(found, key=lambda one: one.block)


def _meant(rucio: Rucio, site: Site, order: Order) -> Iterator[Row]:
    """Listed to its end before anything is written: a slow reader holds a transaction in Rucio's database."""
    for account in site.accounts:
        rows = list(_listed(rucio, site, account, order))
        yield from rows


def _listed(rucio: Rucio, site: Site, account: str, order: Order) -> Iterable[Row]:
    for row in rucio.rows("list_account_rules", account, about=account):
        if is_ours(row, site) and is_meant(parse_meta(row.get("meta")), row["name"], order.asked, clear=order.clear):
            yield row


def _one(rucio: Rucio, site: Site, row: Row, order: Order) -> Done:
    name = row["name"]
    try:
        return Done(name, _cleared(rucio, row, order) if order.clear else _kept(rucio, site, row, order))
    except NotFound:
        return Done(name, Undone.NO_RULE)


def _kept(rucio: Rucio, site: Site, row: Row, order: Order) -> Undone:
    """The mark is read again, and the rule once more after the note: a sweep may run at this moment."""
    now = rules.read(rucio, row["id"])
    meta = kept(parse_meta(now.get("meta")), order.by, order.at)
    if meta is None:
        return Undone.NOT_MARKED
    if _is_swept(rucio, site, now):
        return Undone.SWEPT
    if not order.dry:
        rules.change(rucio, row["id"], {"meta": rules.as_text(meta)})
        if _is_swept(rucio, site, rules.read(rucio, row["id"])):
            return Undone.SWEPT
    return Undone.KEPT


def _is_swept(rucio: Rucio, site: Site, row: Row) -> bool:
    """True where the rule ends or a file of the block has no replica at the RSE any more."""
    if row.get("expires_at") is not None:
        return True
    inside = dids.contents(rucio, [row["name"]])[row["name"]]
    there = [standing for standing in replicas.standing(rucio, inside).values() if site.rse in standing.states]
    return len(there) < max(len(inside), row.get("locks_ok_cnt") or 0)


def _cleared(rucio: Rucio, row: Row, order: Order) -> Undone:
    meta = cleared(parse_meta(rules.read(rucio, row["id"]).get("meta")))
    if meta is None:
        return Undone.NOT_MARKED
    if not order.dry:
        rules.change(rucio, row["id"], {"meta": rules.as_text(meta)})
    return Undone.CLEARED
