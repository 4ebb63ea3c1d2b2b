"""How does a file join a block that rules of this sync hold already, here or at other sites?

Rucio gives it to every rule of the block, and orders a transfer where it is missing. So it joins in one request that
makes its replicas at all of these sites too, and only when PhEDEx has the block whole at each of them. Until then
nothing of the file is written: to the replica of a file that is in no block nothing would lead, if it left.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Set

from msgspec import Struct

from common.messages.meta import now
from common.rucio import dids, replicas
from common.rucio import rules as rucio_rules
from common.rucio.dids import Attachment
from common.rucio.replicas import Standing
from common.rucio.rses import Site, is_announced, is_rule_for
from common.rucio.rules import Lock
from common.rucio.session import Rucio, sliced
from consumers.apply.contents import Files, Seen, as_known
from consumers.apply.sides import Sides, Sites


class Late(Struct, frozen=True):
    """Files that are to join a block. `needs`: the RSEs whose rules would want them. `able`: where they may be made."""

    files: Files
    needs: list[str]
    able: Set[str]

    @property
    def unable(self) -> list[str]:
        return [rse for rse in self.needs if rse not in self.able]

    def lacking(self, standing: Standing) -> list[str] | None:
        """The RSEs where a file has to be made to join; None if it cannot yet."""
        lacking = [rse for rse in self.needs if not standing.available_at(rse)]
        return None if any(rse in standing.states or rse not in self.able for rse in lacking) else lacking


def find(sides: Sides, own: Site, files: Mapping[str, Files], held_at: Mapping[str, Set[str]]) -> dict[str, Late]:
    """For blocks with files that are to join them and the RSEs where rules hold them: who needs these, who can.

    One request to PhEDEx for all blocks that other sites hold, and one to Rucio for each of these.
    """
    others = {name: held_at[name] - {own.rse} for name, some in files.items() if some}
    shared = [name for name, rses in others.items() if rses]
    where = sides.phedex.replicas_of(shared) if shared else {}
    found = {}
    for name, rses in others.items():
        able = _able(sides, name, rses, where[name]) if rses else set()
        found[name] = Late(files[name], sorted({own.rse, *rses}), able | {own.rse})
    return found


def held_at(sites: Sites, own: Site, locks: Iterable[Lock]) -> dict[str, set[str]]:
    """The RSEs where rules of this sync hold each block, this site's or another's."""
    found: dict[str, set[str]] = defaultdict(set)
    for lock in locks:
        if lock.account in own.accounts or sites.is_syncs(lock.account):
            found[lock.name].add(lock.rse)
    return dict(found)


def _able(sides: Sides, name: str, rses: Set[str], where: Mapping[str, bool]) -> set[str]:
    """Those of the RSEs where PhEDEx has the block whole, where the sync may write it, and where its rule will stay.

    What comes under a rule while it is cleaned away has its locks miscounted for good (41.5.1).
    """
    able = set()
    for node in sorted(node for node, is_complete in where.items() if is_complete):
        for served, site in sides.sites.serving(node):
            if site.rse in rses and not sides.sites.settings.site(served).dry and sides.sites.would_take(served, name):
                able.add(site.rse)
    able -= _ending(sides, name, able) if able else set()
    return {rse for rse in able if not is_announced(sides.rucio, rse, name, now().timestamp())}


def _ending(sides: Sides, name: str, rses: Iterable[str]) -> set[str]:
    rows = [row for row in rucio_rules.of_dataset(sides.rucio, name) if sides.sites.is_syncs(row["account"])]
    ends = [row["rse_expression"] for row in rows if row["expires_at"] is not None]
    return {rse for rse in rses if any(is_rule_for(rse, expression) for expression in ends)}


def join(rucio: Rucio, name: str, late: Late, seen: Seen) -> Files:
    """The files that can are in the block, with replicas wherever its rules want them; returns these.

    Each request is done whole or not at all, so that no replica is left for itself.
    """
    standing = replicas.standing(rucio, [file for file in late.files if file in seen.known])
    lacking = {file: late.lacking(standing.get(file, Standing())) for file in sorted(late.files)}
    ready = [file for file, rses in lacking.items() if rses is not None]
    for part in sliced(ready, max(1, rucio.main.rucio_files // len(late.needs))):
        request = []
        for rse in late.needs:
            some = [file for file in part if rse in (lacking[file] or ())]
            rows = tuple(as_known(late.files[file], seen.file(name, file)) for file in some)
            request += [Attachment(parent=name, files=rows, rse=rse)] if rows else []
        there = tuple(file for file in part if not lacking[file])
        request += [Attachment(parent=name, names=there)] if there else []
        dids.attach(rucio, request)
    return {file: late.files[file] for file in ready}
