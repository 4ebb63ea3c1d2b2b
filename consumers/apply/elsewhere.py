"""What do both sides have of some blocks beyond this site?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from common.phedex.client import Phedex
from common.rucio.rses import Site
from common.rucio.rules import Lock
from consumers.apply.contents import Files
from consumers.apply.last_copy import Elsewhere
from consumers.apply.sides import Sites


@dataclass(frozen=True)
class Beyond:
    """What is elsewhere of each block, the node to ask for its files, and the nodes that could have it in Rucio."""

    elsewhere: dict[str, Elsewhere]
    listed_at: dict[str, str]
    takers: dict[str, list[str]]


def read(sites: Sites, own: Site, where: Mapping[str, Mapping[str, bool]], locks: Iterable[Lock]) -> Beyond:
    """Beyond the own site, of where PhEDEx has the blocks (node → complete) and what holds them in Rucio.

    A place to rely on has the block complete in PhEDEx now, and a rule of this sync in Rucio: what no rule holds may
    have a tombstone.
    """
    beyond = Beyond({}, {}, {})
    held = {(lock.name, lock.rse, lock.account) for lock in locks}
    for name, nodes in where.items():
        complete = sorted(node for node, is_complete in nodes.items() if is_complete)
        serving = [(node, site) for one in complete for node, site in sites.serving(one) if site.rse != own.rse]
        places = {s.rse for _, s in serving if any((name, s.rse, account) in held for account in s.accounts)}
        beyond.elsewhere[name] = Elsewhere(frozenset(places), anywhere=bool(nodes))
        beyond.takers[name] = [node for node, _ in serving if sites.would_take(node, name)]
        if complete:
            beyond.listed_at[name] = complete[0]
    return beyond


def with_files(phedex: Phedex, beyond: Beyond, names: Iterable[str]) -> dict[str, Elsewhere]:
    """The same for some blocks, with the files that PhEDEx lists in them; not known where it is complete nowhere."""
    known = {name: (beyond.elsewhere[name], files) for name, files in files_of(phedex, beyond, names).items()}
    return {name: Elsewhere(one.places, one.anywhere, frozenset(files)) for name, (one, files) in known.items()}


def files_of(phedex: Phedex, beyond: Beyond, names: Iterable[str]) -> dict[str, Files]:
    """The files that PhEDEx lists in those of the blocks that it has complete anywhere: a request a node."""
    asked: dict[str, list[str]] = {}
    for name in names:
        if name in beyond.listed_at:
            asked.setdefault(beyond.listed_at[name], []).append(name)
    found: dict[str, Files] = {}
    for node, blocks in asked.items():
        for name, files in phedex.files_at(node, blocks)[0].items():
            found[name] = {file.name: file for file in files}
    return found
