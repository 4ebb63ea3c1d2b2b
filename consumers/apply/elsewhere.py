"""What do both sides have of some blocks beyond this site?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from common.errors import UsageError
from common.names import is_node
from common.phedex.client import Phedex
from common.rucio.rses import Site, Switch, find_site
from common.rucio.rules import Lock
from common.rucio.session import Rucio
from common.settings.model import Settings
from consumers.apply.last_copy import Elsewhere


@dataclass
class Sites:
    """The sites of other nodes, each looked up once; None for a node without an RSE that the sync may use."""

    rucio: Rucio
    settings: Settings
    found: dict[str, Site | None] = field(default_factory=dict)

    def of(self, node: str) -> Site | None:
        """The site of a node that the sync serves."""
        if node not in self.found:
            self.found[node] = self._find(node)
        return self.found[node]

    def _find(self, node: str) -> Site | None:
        """A node whose RSE is not clear is no place to rely on."""
        policy = self.settings.site(node)
        try:
            site = find_site(self.rucio, node, policy) if policy.run else None
        except UsageError:
            return None
        return None if site is None or site.switch is Switch.FROZEN else site

    def serving(self, inventory: str) -> list[tuple[str, Site]]:
        """The nodes, with their sites, whose contents PhEDEx lists at a node: itself, or the tape's buffer."""
        named = [node for node, policy in self.settings.sites.items() if policy.inventory_node == inventory]
        own = [inventory] if self.settings.site(inventory).inventory_node in ("", inventory) else []
        return [(node, site) for node in sorted({*named, *own}) if is_node(node) and (site := self.of(node))]


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
        beyond.takers[name] = [node for node, _ in serving]
        if complete:
            beyond.listed_at[name] = complete[0]
    return beyond


def with_files(phedex: Phedex, beyond: Beyond, names: Iterable[str]) -> dict[str, Elsewhere]:
    """The same for some blocks, with the files that PhEDEx lists in them; not known where it is complete nowhere."""
    asked: dict[str, list[str]] = {}
    for name in names:
        if name in beyond.listed_at:
            asked.setdefault(beyond.listed_at[name], []).append(name)
    found: dict[str, Elsewhere] = {}
    for node, blocks in asked.items():
        for name, files in phedex.files_at(node, blocks)[0].items():
            before = beyond.elsewhere[name]
            listed = frozenset(file.name for file in files)
            found[name] = Elsewhere(before.places, before.anywhere, listed)
    return found
