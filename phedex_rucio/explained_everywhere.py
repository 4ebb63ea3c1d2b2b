"""Where does either side have a block, and what would become of it there? An outline, a few requests a node."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from common.names import MSS, buffer_of
from common.outcome import Exit
from common.rucio import one_block
from common.rucio.one_block import Outline
from common.rucio.rses import Site
from common.sync.one_block import Facts, InPhedex, Place, Trouble
from phedex_rucio.explained import Look, policy_of, site_of

Sites = dict[str, tuple[Site | None, Place | None]]


@dataclass(frozen=True)
class Overview:
    """The block at every node that has it on one of the sides, and the RSEs that have it and are no node's."""

    nodes: list[Facts]
    others: dict[str, str]
    troubles: list[Trouble]


def overview(look: Look) -> Overview:
    """The block wherever it is, without its files and without the guard: two requests for each node, a dozen more."""
    phedex = look.tried(lambda: look.doors.phedex.everywhere(look.block), None)
    whole = look.tried(lambda: one_block.outline(look.doors.rucio, look.block), None)
    sites: Sites = {node: site_of(look, node) for node in _nodes(look, phedex)}
    others: dict[str, str] = {}
    if whole is not None:
        look.tried(lambda: others.update(_of_rses(look, whole, sites)), None)
    troubles = list(look.troubles.values())
    found = [_brief(look, node, found, (phedex, whole), troubles) for node, found in sorted(sites.items())]
    return Overview(found, others, troubles)


def _nodes(look: Look, phedex: InPhedex | None) -> list[str]:
    """The nodes that stand for what PhEDEx lists: for tape its buffer, or whose settings name it."""
    places = phedex.places.keys() if phedex else set[str]()
    tapes = {buffer_of(place): place for place in places if place.endswith(MSS)}
    sources = tapes | {
        node: policy.inventory_node for node, policy in look.settings.sites.items() if policy.inventory_node
    }
    serving = {node for node, source in sources.items() if source in places}
    served = {source for node, source in sources.items() if source in places and source != node}
    return sorted((places - served) | serving)


def _of_rses(look: Look, whole: Outline, sites: Sites) -> dict[str, str]:
    """The nodes of the other RSEs where Rucio has something of the block join; those that are no node's are returned.

    A rule whose expression is no RSE's name is told as it is.
    """
    known = {place.rse for _, place in sites.values() if place}
    rses = {holder.rse for holder in whole.found.holders} | {rse for rse, n in whole.found.available.items() if n}
    others: dict[str, str] = {}
    for rse in sorted(rses - known):
        node = one_block.node_of(look.doors.rucio, rse)
        if node and node not in sites:
            sites[node] = site_of(look, node)
        elif not node:
            others[rse] = f"{whole.found.available.get(rse, 0):,} files, {_owners(whole, rse)}"
    held = {holder.rule for holder in whole.found.holders}
    for _, row in whole.rows:
        if row["id"] not in held and row["rse_expression"].removeprefix("rse=") not in known:
            others[row["rse_expression"]] = f"a rule of {row['account']}, state {row['state']}, without locks"
    return others


def _owners(whole: Outline, rse: str) -> str:
    accounts = sorted({holder.account for holder in whole.found.holders if holder.rse == rse})
    return f"rules of {', '.join(accounts)}" if accounts else "no rule"


def _brief(
    look: Look,
    node: str,
    found: tuple[Site | None, Place | None],
    sides: tuple[InPhedex | None, Outline | None],
    troubles: list[Trouble],
) -> Facts:
    site, place = found
    phedex, whole = sides
    return Facts(
        block=look.block,
        node=node,
        at=look.at,
        policy=policy_of(look, node, look.settings.site(node), site),
        place=place,
        phedex=phedex,
        rucio=one_block.seen_from(whole, site) if whole else None,
        troubles=tuple(troubles),
        plan_trouble="ask with the node",
    )


def code_of(found: Overview, codes: Iterable[int]) -> int:
    """The exit code of many nodes: the weightiest."""
    return max([*codes, *(trouble.code for trouble in found.troubles)], default=Exit.DONE)
