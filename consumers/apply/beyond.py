"""The evidence for a removal, read on both sides: where else some blocks are, and so why they should leave a node."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from common.errors import Untrusted
from common.rucio import rules
from common.rucio.inventory import made_at, rule_of
from common.rucio.rses import Site, is_rule_for
from common.rucio.rules import Lock
from common.rucio.session import Row
from common.sync.catalogue import RuleAtRse
from common.sync.reasons import Beyond, Reason, reason_of
from common.sync.whereabouts import Whereabouts
from consumers.apply.sides import Sides, Sites

CONTROLS = 3


class CatalogueShort(Untrusted):
    """PhEDEx' catalogue did not know one of the blocks that it has for sure: what it does not know proves nothing."""


@dataclass(frozen=True)
class Own:
    """This node: the name that was asked for, its site, and our rules there by block."""

    node: str
    site: Site
    rules: Mapping[str, RuleAtRse]

    @property
    def names(self) -> frozenset[str]:
        """What the node is called, and the node whose list says what is there."""
        return frozenset({self.node, self.site.listed_at})


@dataclass(frozen=True)
class Known:
    """What was found out of some blocks: where PhEDEx has each, why it should leave, which nodes could take it.

    `places`: the other RSEs where PhEDEx has it complete and a rule of this sync holds it.
    """

    where: dict[str, Whereabouts] = field(default_factory=dict)
    reasons: dict[str, Reason] = field(default_factory=dict)
    takers: dict[str, list[str]] = field(default_factory=dict)
    places: dict[str, set[str]] = field(default_factory=dict)


def read(
    sides: Sides,
    own: Own,
    names: Collection[str],
    *,
    controls: Collection[str],
    here: Collection[str] = (),
    locks: Iterable[Lock] | None = None,
    known: Callable[[list[str]], Collection[str]] | None = None,
) -> Known:
    """Why each of the names should leave the node: one request for 100 of them to PhEDEx, one for 500 to Rucio.

    For those that PhEDEx lists nowhere five more for 100 to PhEDEx (two where its catalogue does not know them either),
    and one to Rucio for each rule at another site.
    `controls`: blocks that PhEDEx surely has somewhere. `here`: names that it lists at the node, though not whole.
    `known`: tells which names the catalogue knows, where that was read already.

    Raises Untrusted and what both sides raise.
    """
    found = Known()
    if not names:
        return found
    controls = [name for name in controls if name not in names][:CONTROLS]
    found.where.update(sides.phedex.whereabouts(sorted(names), controls))
    held = list(rules.locks(sides.rucio, names) if locks is None else locks)
    absent = [name for name in sorted(names) if not found.where[name].somewhere and name not in here]
    catalogue = set(known(absent) if known else known_blocks(sides, absent, controls)) if absent else set()
    asked = [name for name in absent if name in catalogue]
    deletions = sides.phedex.deletions_of(asked) if asked else {}
    meant = sides.phedex.subscribed(asked) if asked else {}
    filed = sides.phedex.nodes_with_files(absent) if absent else {}
    for name in names:
        where = found.where[name]
        found.places[name], found.takers[name] = _elsewhere(sides, own, name, where.complete, held)
        found.reasons[name] = reason_of(
            Beyond(
                where=where,
                own=own.names,
                here=name in here,
                places=frozenset(found.places[name]),
                takers=tuple(found.takers[name]),
                known=name in catalogue or where.listed,
                ruled=_ruled(sides, own, name, held) if name in catalogue else {},
                deletions=deletions.get(name, {}),
                meant=meant.get(name, frozenset()),
                filed=filed.get(name, frozenset()),
            )
        )
    return found


def known_blocks(sides: Sides, names: list[str], controls: Collection[str]) -> set[str]:
    """Those of the names that PhEDEx' catalogue knows; one that does not know a control is not believed."""
    found = sides.phedex.known_blocks([*names, *controls])
    check_catalogue(found, controls)
    return found


def check_catalogue(found: Collection[str], controls: Collection[str]) -> None:
    """Raises CatalogueShort where none of the controls is among what the catalogue knows."""
    if controls and not any(name in found for name in controls):
        raise CatalogueShort(f"PhEDEx' catalogue does not know {next(iter(controls))}, which it has for sure")


def _elsewhere(
    sides: Sides, own: Own, name: str, complete: Iterable[str], locks: Iterable[Lock]
) -> tuple[set[str], list[str]]:
    """The RSEs of other nodes that have the block complete where a rule of this sync holds it; and nodes to take it."""
    held = {(lock.rse, lock.account) for lock in locks if lock.name == name}
    places: set[str] = set()
    takers: list[str] = []
    for node in sorted(set(complete) - own.names):
        for _, site in sides.sites.holding(node):
            if site.rse != own.site.rse and any((site.rse, a) in held for a in sides.sites.owners(site)):
                places.add(site.rse)
        takers += [n for n, site in sides.sites.serving(node) if site.rse != own.site.rse and _takes(sides, n, name)]
    return places, takers


def _takes(sides: Sides, node: str, name: str) -> bool:
    return not sides.sites.settings.site(node).dry and sides.sites.would_take(node, name)


def _ruled(sides: Sides, own: Own, name: str, locks: Iterable[Lock]) -> dict[str, float]:
    """The nodes where rules of this sync hold the block, each with when its rule was made."""
    rule = own.rules.get(name)
    found = {own.site.listed_at: made_at(rule)} if rule is not None else {}
    for lock in locks:
        if lock.name == name and lock.rse != own.site.rse and sides.sites.is_syncs(lock.account):
            row = rules.find(sides.rucio, lock.rule)
            if row is not None and row.get("expires_at") is None:
                site = sides.sites.at(lock.rse)
                node = site.listed_at if site is not None else lock.rse
                found[node] = max(found.get(node, 0.0), made_at(rule_of(row, own.site)))
    return found


def stands(sites: Sites, rows: Iterable[Row], rse: str, files: int) -> bool:
    """True where a rule of this sync stands at the place, unmarked, with a lock on every file of the block."""
    place = sites.at(rse)
    if place is None:
        return False
    owners = sites.owners(place)
    for row in rows:
        if row["account"] in owners and is_rule_for(rse, row["rse_expression"]) and row.get("expires_at") is None:
            rule = rule_of(row, place)
            if not rule.marked and rule.files >= files:
                return True
    return False
