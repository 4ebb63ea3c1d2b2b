"""What does PhEDEx know of a site besides its blocks? Its catalogue, storage hosts, links and transfer service."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import re2
from msgspec import Struct

from common.phedex import tfc
from common.phedex.client import Phedex
from common.phedex.seinfo import Seinfo, seinfo
from common.phedex.tfc import Catalogue, CatalogueError, Kind
from common.sync.selection import whole

DEACTIVATED = "deactivated"
# What agents of PhEDEx log when they start with FTS3: `… -backend FTS3 … -service https://host:port …`
_BACKEND = re2.compile(r"-backend[ =]FTS3\b")
_SERVICE = re2.compile(r"-service[ =](\S+)")
# A file that every real catalogue can place, of each part of the name space that matters to the sync.
PROBES = ("/store/data/probe/probe.root", "/store/mc/probe/probe.root")


class Link(Struct, frozen=True):
    """Files may go from one node to another: how far PhEDEx calls that (smaller is nearer), and whether it works."""

    source: str
    sink: str
    distance: int
    status: str


class Placed(Struct, frozen=True):
    """Where PhEDEx puts a file at a node; no PFN where no rule applies."""

    node: str
    lfn: str
    pfn: str | None
    space_token: str | None = None


def catalogue_of(phedex: Phedex, node: str) -> Catalogue:
    """The node's catalogue. Raises UnknownNode, and CatalogueError where it has none or a bad one."""
    phedex.check_node(node)
    rows = phedex.raw("tfc", node=node)["storage-mapping"]["array"]
    if not rows:
        raise CatalogueError(f"{node}: PhEDEx has no storage.xml of it")
    return tfc.from_reply(rows, f"tfc of {node}")


def links(
    phedex: Phedex, source: Sequence[str] = (), sink: Sequence[str] = (), *, deactivated: bool = False
) -> list[Link]:
    """The links between nodes (all without names), those that are deactivated only if asked for."""
    rows = phedex.raw("links", **{"from": source, "to": sink})["link"]
    found = (Link(row["from"], row["to"], int(row["distance"]), str(row["status"])) for row in rows)
    return [link for link in found if deactivated or link.status != DEACTIVATED]


def fts_servers(phedex: Phedex, node: str) -> list[str]:
    """The FTS3 servers that the node's FileDownload agents said they use, each once; none if they said nothing."""
    phedex.check_node(node)
    agents = phedex.raw("agentlogs", node=node, agent="FileDownload", update_since="0")["agent"]
    return sorted({url for agent in agents for log in agent["log"] for url in _services(log)})


def _services(log: dict[str, Any]) -> Iterator[str]:
    text = str(log["message"]["$t"])
    if _BACKEND.search(text) and (found := _SERVICE.search(text)):
        yield found.group(1)


def storage_names(phedex: Phedex, node: str | None = None, protocol: str | None = None) -> list[tuple[str, str, str]]:
    """Node, protocol and host, as the catalogues have them. (Here PhEDEx reads `_` in a node as any character.)"""
    rows = phedex.raw("senames", node=node or (), protocol=protocol or ())["senames"]
    found = ((row["node"], row["protocol"], row["sename"]) for row in rows if row.get("sename"))
    return sorted(row for row in found if node in (None, row[0]) or "*" in str(node))


def placed(
    phedex: Phedex,
    node: str,
    protocol: str,
    lfns: Sequence[str],
    *,
    destination: str | None = None,
    custodial: str | None = None,
) -> list[Placed]:
    """Where PhEDEx puts files at a node, one a file; asked by PhEDEx' own `lfn2pfn`."""
    options = {"destination": destination or (), "custodial": custodial or ()}
    rows = phedex.raw("lfn2pfn", node=node, protocol=protocol, lfn=lfns, **options)["mapping"]
    return [Placed(row["node"], row["lfn"], row["pfn"], row["space_token"]) for row in rows]


def placed_by(book: Catalogue, node: str, protocol: str, lfns: Iterable[str], **options: str) -> list[Placed]:
    """The same by a catalogue at hand; options: `destination`, `custodial`."""
    found = ((lfn, tfc.apply(book, Kind.LFN_TO_PFN, protocol, lfn, **options)) for lfn in lfns)
    return [
        Placed(node, lfn, where.name, where.space_token) if where else Placed(node, lfn, None) for lfn, where in found
    ]


def storage_of(placements: Iterable[Placed]) -> Seinfo:
    """The one storage that all probes lead to. Raises CatalogueError where one has no place, or they disagree."""
    pairs: list[tuple[str, str]] = []
    for each in placements:
        if each.pfn is None:
            raise CatalogueError(f"{each.node}: {each.lfn} has no place there; probe another LFN")
        pairs.append((each.lfn, each.pfn))
    return seinfo(pairs)


def nodes_like(phedex: Phedex, select: Sequence[str], exclude: Sequence[str]) -> list[str]:
    """The nodes whose whole name matches one of `select` (all without one) and none of `exclude`, in order of name.

    Raises UsageError for an expression that RE2 refuses.
    """
    wanted = [whole(text, "--select") for text in select]
    unwanted = [whole(text, "--exclude") for text in exclude]
    return [
        name
        for name in sorted(phedex.nodes())
        if (not wanted or any(one(name) for one in wanted)) and not any(one(name) for one in unwanted)
    ]
