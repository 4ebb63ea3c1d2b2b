"""What is derived where nothing was recorded: catalogues, links and agents of nodes. Deterministic, and marked made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from xml.sax.saxutils import quoteattr

import msgspec

from datasvc.build import kind_of

FTS = "https://fts3.cern.ch:8446"


class Link(msgspec.Struct, frozen=True):
    """A directed link between two nodes."""

    source: str
    sink: str
    distance: int
    status: str


def site_of(node: str) -> str:
    """The CMS site: the node's name without its suffix."""
    head, _, tail = node.rpartition("_")
    return head if tail in {"MSS", "Buffer", "Export", "Disk"} and head.count("_") >= 2 else node


def is_retired(node: str) -> bool:
    """PhEDEx put an X before the names of nodes that are no more."""
    return node.startswith("X")


def storage_xml(node: str) -> str:
    """A catalogue of the commonest shape: `direct` to a path, `srmv2` and `xrootd` chained to it."""
    host = host_of(node)
    rules = (
        ("lfn-to-pfn", "direct", None, "/+store/(.*)", "/cms/store/$1"),
        ("lfn-to-pfn", "srmv2", "direct", "(.*)", f"srm://{host}:8446/srm/managerv2?SFN=$1"),
        ("lfn-to-pfn", "xrootd", "direct", "(.*)", f"root://{host}:1095/$1"),
        ("pfn-to-lfn", "direct", None, "/cms/store/(.*)", "/store/$1"),
        ("pfn-to-lfn", "srmv2", "direct", r".*\?SFN=(.*)", "$1"),
        ("pfn-to-lfn", "xrootd", "direct", rf"root://{host}:1095/(.*)", "$1"),
    )
    return "<storage-mapping>" + "".join(_element(*rule) for rule in rules) + "</storage-mapping>"


def host_of(node: str) -> str:
    """The storage host of a made catalogue, one a site. No hyphen: `agentlogs?host=` refuses one."""
    return f"se.{site_of(node).lower().replace('_', '.')}.example.org"


def fts_message(node: str) -> str:
    """What the FileDownload agent logs when it starts: where the original scripts found a node's FTS server."""
    return f"FileDownload -state /home/phedex/{node} -backend FTS3 -service {FTS} -protocols srmv2 -node {node}"


def links(nodes: Iterable[str]) -> Iterator[Link]:
    """Links between all nodes in use, both ways; tape only with the buffer of its own site.

    Distance: 0 inside a site, 1 inside a country, 2 where one end is T0 or T1, else 3. By a hash of the two names one
    link in 25 is deactivated, one in 50 has an end that is down.
    """
    live = [node for node in nodes if not is_retired(node)]
    for source in live:
        for sink in live:
            if source != sink and _are_linked(source, sink):
                yield Link(source, sink, distance(source, sink), _status(source, sink))


def distance(source: str, sink: str) -> int:
    """How far two nodes are from each other; see `links`."""
    if site_of(source) == site_of(sink):
        return 0
    if source[3:5] == sink[3:5]:
        return 1
    return 2 if {source[1], sink[1]} & {"0", "1"} else 3


def _are_linked(source: str, sink: str) -> bool:
    if "MSS" not in {kind_of(source), kind_of(sink)}:
        return True
    return site_of(source) == site_of(sink) and "Buffer" in {kind_of(source), kind_of(sink)}


def _status(source: str, sink: str) -> str:
    draw = int.from_bytes(blake2b(f"{source} {sink}".encode(), digest_size=2).digest(), "big") % 100
    if "MSS" in {kind_of(source), kind_of(sink)} or draw >= 6:
        return "ok"
    return "deactivated" if draw < 4 else ("from_down", "to_down")[draw - 4]


def _element(kind: str, protocol: str, chain: str | None, match: str, result: str) -> str:
    chained = "" if chain is None else f" chain={quoteattr(chain)}"
    return f'<{kind} protocol="{protocol}"{chained} path-match={quoteattr(match)} result={quoteattr(result)}/>'
