"""Locks of others: the files that somebody else's rule, or another rule of ours, holds at an RSE.

Rucio deletes a locked replica without a word (41.5.1), so we look first. A rule may hold a file by the block, by
anything that the block or the file is in, or by the file itself, and under an expression of several RSEs the lock on
a dataset and the locks on its files may be at different ones: only the locks of the files tell then.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from common.messages.meta import now
from common.names import SCOPE
from common.rucio import rules
from common.rucio.inventory import is_ours
from common.rucio.replicas import Standing
from common.rucio.rses import Site, attributes_of, is_rule_for
from common.rucio.rules import Lock
from common.rucio.session import Row, Rucio
from common.sync.marks import named_of, parse_meta

Standings = Mapping[str, Mapping[str, Standing]]
Rows = Mapping[str, list[Row]]

MANY_LOCKS = 5_000  # more of them are asked for file by file: a rule on a large container has a hundred thousand
_ONE_RSE = re.compile(r"(?:rse=)?T[0-9]_[A-Za-z0-9_]+\Z")


def held(rucio: Rucio, site: Site, files: Standings, rows: Rows, locks: Iterable[Lock]) -> dict[str, set[str]]:
    """The files of each block that anything but our own rule on this block holds at the site's RSE.

    `rows`: the rules on the blocks; `locks`: what holds the blocks. One request for all rules on single files, one for
    each container and other thing that a file is in, and one for each rule that may hold files at several RSEs.
    """
    found: dict[str, set[str]] = {block: set() for block in files}
    ours = _ours(site, rows)
    for lock in locks:
        if lock.rse == site.rse and lock.rule not in ours and lock.name in found:
            found[lock.name] |= files[lock.name].keys()
    for block, row, some in holders(rucio, site, files, rows):
        found[block] |= locked(rucio, site.rse, row, some - found[block])
    return found


def holders(rucio: Rucio, site: Site, files: Standings, rows: Rows) -> Iterator[tuple[str, Row, set[str]]]:
    """Each block with every rule that may hold files of it at the RSE, but for ours on itself; and with these files."""
    ours = _ours(site, rows)
    for name, row in _others(rucio, site, files, rows):
        for block, inside in files.items():
            under = {file for file, one in inside.items() if name in (block, file) or name in one.parents}
            if under and not (name == block and row["id"] in ours):
                yield block, row, under


def _ours(site: Site, rows: Rows) -> set[str]:
    return {row["id"] for listed in rows.values() for row in listed if is_ours(row, site)}


def _others(rucio: Rucio, site: Site, files: Standings, rows: Rows) -> Iterator[tuple[str, Row]]:
    """Every rule that may hold one of the files at the RSE, with the name that it is on.

    Our own rules on other blocks count too, for a file may be in several; but for one that a sweep of its block ended.
    """
    known: dict[str, bool] = {}
    for name, row in _every(rucio, files, rows):
        if not (is_ours(row, site) and _is_swept(row)) and _may_be_at(
            rucio, site.rse, row.get("rse_expression", ""), known
        ):
            yield name, row


def _is_swept(row: Row) -> bool:
    """True for a rule of ours that a sweep has ended. One that somebody gave an end holds its files until then."""
    is_over = row.get("expires_at") is not None and rules.lasts_until(row, now()) is None
    return is_over and named_of(parse_meta(row.get("meta"))) is not None


def _every(rucio: Rucio, files: Standings, rows: Rows) -> list[tuple[str, Row]]:
    """Every rule on the blocks, on what is above them or has one of the files too, and on a file by itself."""
    every = [(name, row) for name, listed in rows.items() for row in listed]
    every += [(name, row) for name in _above(files, rows) for row in _rules(rucio, name)]
    names = {name for inside in files.values() for name in inside}
    return every + [(row["name"], row) for row in rules.on_files(rucio) if row["name"] in names]


def wishes(
    rucio: Rucio, files: Standings, rows: Rows, is_ours: Callable[[Row], bool]
) -> Iterator[tuple[str, str, Row]]:
    """Each block and file with every rule of somebody else's on it, at whichever RSE that holds it or waits for it."""
    for name, row in _every(rucio, files, rows):
        for block, inside in files.items() if not is_ours(row) else ():
            for file, one in inside.items():
                if name in (block, file) or name in one.parents:
                    yield block, file, row


def _above(files: Standings, rows: Rows) -> list[str]:
    parents = {parent for inside in files.values() for one in inside.values() for parent in one.parents}
    return sorted(parents - rows.keys())


def _rules(rucio: Rucio, parent: str) -> list[Row]:
    scope, colon, name = ("", "", parent) if parent.startswith("/") else parent.partition(":")
    return list(rules.of_dataset(rucio, name, scope=scope if colon else SCOPE))


def may_be_at(rse: str, expression: str) -> bool:
    """False for a rule whose expression is plainly one other RSE."""
    return is_rule_for(rse, expression) or _ONE_RSE.match(expression) is None


def _may_be_at(rucio: Rucio, rse: str, expression: str, known: dict[str, bool]) -> bool:
    """The same; but an RSE that Rucio does not know now may be the former name of this one."""
    if may_be_at(rse, expression):
        return True
    if expression not in known:
        known[expression] = attributes_of(rucio, expression.removeprefix("rse=")) is not None
    return not known[expression]


def locked(rucio: Rucio, rse: str, row: Row, files: Collection[str]) -> set[str]:
    """Those of the files, which a rule is about, that it holds at the RSE; in doubt all of them."""
    if not files or is_rule_for(rse, row.get("rse_expression", "")):
        return set(files)
    locks = sum(row.get(key) or 0 for key in ("locks_ok_cnt", "locks_replicating_cnt", "locks_stuck_cnt"))
    if locks <= MANY_LOCKS:
        return rules.locked_by(rucio, row["id"], rse).intersection(files)
    return {file for file in files if any(one["id"] == row["id"] for one in rules.holding_file(rucio, file))}
