"""Which marks at an RSE are taken back, and what is too late for that?"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from msgspec import Struct

from common.errors import NotFound
from common.names import is_block
from common.rucio import rules
from common.rucio.begun import is_begun
from common.rucio.inventory import is_ours
from common.rucio.rses import Site, is_announced
from common.rucio.session import Row, Rucio, clock
from common.sync.keep import Undone, is_meant, kept
from common.sync.marks import COMMENT, KEEP, cleared_text, keep_of, keep_text, named_of, parse_meta

PAUSE = 0.3  # seconds between two looks whether a sweep is over


class Order(Struct, frozen=True, kw_only=True):
    """What a person wants: the cycles and blocks meant, to keep them or to clear that again, who it is and when.

    `wait`: so many seconds for a sweep that is under way to show its end.
    """

    asked: frozenset[str]
    clear: bool = False
    dry: bool = False
    by: str = ""
    at: str = ""
    wait: float = 20


class Done(Struct, frozen=True):
    """One block, and what became of it."""

    block: str
    state: Undone


def undo(rucio: Rucio, site: Site, order: Order) -> list[Done]:
    """Every rule that was meant is kept (or cleared), or it is said why not; nothing else of it changes.

    But for an end that is still to come, which is lifted: what is kept would go with it. One request for each account
    of the site, six for each rule that was meant. What a sweep has begun to take is left to it: nothing gives it back.
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
        meta, comment = parse_meta(row.get("meta")), row.get("comments")
        if is_ours(row, site) and is_meant(meta, comment, row["name"], order.asked, clear=order.clear):
            yield row


def _one(rucio: Rucio, site: Site, row: Row, order: Order) -> Done:
    name = row["name"]
    try:
        return Done(name, _cleared(rucio, row, order) if order.clear else _kept(rucio, site, row, order))
    except NotFound:
        return Done(name, Undone.NO_RULE)


def _kept(rucio: Rucio, site: Site, row: Row, order: Order) -> Undone:
    """The keep is written first, then it is looked whether it came in time.

    A sweep announces itself before it looks at the rules: it has seen the keep, or its announcement is seen here.
    """
    now = rules.read(rucio, row["id"])
    meta, comment = parse_meta(now.get("meta")), now.get("comments")
    keep, before = kept(meta, order.by, order.at), keep_of(meta, comment)
    if keep is None and before is None:
        return Undone.NOT_MARKED
    if _is_swept(rucio, site, now):
        return Undone.SWEPT if order.dry else _let_go(rucio, row["id"], comment)
    if keep is None or before is not None:
        return Undone.NOT_MARKED
    if order.dry:
        return Undone.KEPT
    lasting: dict[str, object] = {"lifetime": None} if now.get("expires_at") is not None else {}
    rules.change(rucio, row["id"], {"comment": keep_text(keep), **lasting})
    is_clear = _wait(rucio, site.rse, row["name"], order.wait)
    after = rules.find(rucio, row["id"])
    if after is None or _is_swept(rucio, site, after):
        return _let_go(rucio, row["id"], comment)
    return Undone.KEPT if is_clear else Undone.UNSURE


def _let_go(rucio: Rucio, rule: str, comment: str | None) -> Undone:
    """What is left of a block that is swept is the sweep's: a keep would stop it half-way, with locks on nothing."""
    now = rules.find(rucio, rule)
    if now is not None and keep_of({}, now.get("comments")) is not None:
        rules.change(rucio, rule, {"comment": comment if comment and not keep_of({}, comment) else COMMENT})
    return Undone.SWEPT


def _wait(rucio: Rucio, rse: str, block: str, seconds: float) -> bool:
    """True once no sweep of the block is announced at the RSE; False where one still is after so many seconds.

    Rucio tells nobody when an attribute goes, so it is asked again and again.
    """
    deadline = clock() + seconds
    while True:
        if not is_announced(rucio, rse, block, time.time()):
            return True
        if clock() >= deadline:
            return False
        time.sleep(PAUSE)


def _is_swept(rucio: Rucio, site: Site, row: Row) -> bool:
    """True where the rule is over, or the sweep of its block has begun.

    An end that is near is a sweep's, whose clock differs from ours; or a person's, which can be lifted still.
    """
    at = datetime.fromtimestamp(time.time(), UTC)
    is_near = row.get("expires_at") is not None and rules.lasts_until(row, at) is None
    is_sweeps = named_of(parse_meta(row.get("meta"))) is not None
    return (is_near and (is_sweeps or rules.is_over(row, at))) or is_begun(rucio, site.rse, row)


def _cleared(rucio: Rucio, row: Row, order: Order) -> Undone:
    """The keep is taken back. A mark that is older than that begins its time of grace anew."""
    now = rules.read(rucio, row["id"])
    meta, comment = parse_meta(now.get("meta")), now.get("comments")
    if keep_of(meta, comment) is None:
        return Undone.NOT_MARKED
    options: dict[str, object] = {"comment": cleared_text(int(time.time()))}
    if KEEP in meta:  # from before: the keep stood in the meta
        options["meta"] = rules.as_text({key: value for key, value in meta.items() if key != KEEP})
    if not order.dry:
        rules.change(rucio, row["id"], options)
    return Undone.CLEARED
