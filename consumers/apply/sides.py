"""Through which doors does a batch see both sides, and which sites of other nodes does it find behind them?"""

from __future__ import annotations

from dataclasses import dataclass, field

from common.errors import UsageError
from common.messages.meta import now
from common.names import MSS, SYNC_ACCOUNT, buffer_of, is_node
from common.phedex.client import Phedex
from common.rucio.rses import Site, Switch, find_site
from common.rucio.session import Rucio
from common.settings.model import Settings
from common.settings.run import is_on
from common.sync.selection import selection


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
            site = find_site(self.rucio, node, policy) if is_on(policy.run, now()) else None
        except UsageError:
            return None
        return None if site is None or site.switch is Switch.FROZEN else site

    def serving(self, inventory: str) -> list[tuple[str, Site]]:
        """The nodes, with their sites, whose contents PhEDEx lists at a node: itself, or the tape's buffer."""
        named = {node for node, policy in self.settings.sites.items() if policy.inventory_node == inventory}
        candidates = {*named, inventory, *([buffer_of(inventory)] if inventory.endswith(MSS) else [])}
        found = [(node, self.of(node)) for node in sorted(candidates) if is_node(node)]
        return [(node, site) for node, site in found if site is not None and site.listed_at == inventory]

    def is_syncs(self, account: str) -> bool:
        """True for an account that owns rules of this sync, at whichever site."""
        named = (policy.account for policy in self.settings.sites.values())
        return account.startswith(SYNC_ACCOUNT) or account in named

    def would_take(self, node: str, block: str) -> bool:
        """False for a block that the node's own settings leave out: asked for there, it would never come."""
        policy = self.settings.site(node)
        return selection("*", [policy.select], [policy.ignore])(block)


@dataclass(frozen=True)
class Sides:
    """The two doors of this thread, and the sites that are found through them."""

    phedex: Phedex
    rucio: Rucio
    sites: Sites
