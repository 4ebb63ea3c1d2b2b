"""The doors through which a batch sees both sides, and the sites of other nodes that it finds behind them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from common.errors import UnknownNode, UsageError
from common.messages.meta import now
from common.names import MSS, SYNC_ACCOUNT, buffer_of, is_node
from common.phedex.client import Phedex
from common.phedex.trust import NodeMissing
from common.rucio import inventory, one_block
from common.rucio.rses import Site, Switch, find_site
from common.rucio.session import Row, Rucio
from common.settings.model import Settings
from common.settings.run import is_on
from common.sync.selection import selection


@contextmanager
def with_rse(site: Site) -> Iterator[None]:
    """A node that Rucio has an RSE for and PhEDEx does not list is a reason to ask again, not a mistyped name.

    Raises NodeMissing in place of UnknownNode.
    """
    try:
        yield
    except UnknownNode as error:
        raise NodeMissing(f"{error}; Rucio has it as RSE {site.rse}, so PhEDEx' list may be short") from error


@dataclass
class Sites:
    """The sites of other nodes, each looked up once; None for a node without an RSE that is clearly its own."""

    rucio: Rucio
    settings: Settings
    found: dict[str, Site | None] = field(default_factory=dict)
    by_rse: dict[str, Site | None] = field(default_factory=dict)

    def of(self, node: str) -> Site | None:
        """The site of a node, whether or not the sync may write there."""
        if node not in self.found:
            try:
                self.found[node] = find_site(self.rucio, node, self.settings.site(node))
            except UsageError:  # a node whose RSE is not clear is no place to rely on
                self.found[node] = None
        return self.found[node]

    def at(self, rse: str) -> Site | None:
        """The site whose RSE this is; None where the RSE says of no node that it stands for it."""
        if rse not in self.by_rse:
            named = [node for node, policy in self.settings.sites.items() if policy.rse == rse]
            nodes = named or [one_block.node_of(self.rucio, rse)]
            sites = [site for node in nodes if is_node(node) and (site := self.of(node)) is not None]
            self.by_rse[rse] = next((site for site in sites if site.rse == rse), None)
        return self.by_rse[rse]

    def node_at(self, rse: str) -> str:
        """The node whose RSE this is, "" for none."""
        site = self.at(rse)
        return next((node for node, one in self.found.items() if one is site and one is not None), "")

    def holding(self, inventory: str) -> list[tuple[str, Site]]:
        """The nodes, with their sites, whose contents PhEDEx lists at a node: itself, or the tape's buffer.

        Also where nothing is written at present: what is at a frozen site is the safest copy there is.
        """
        named = {node for node, policy in self.settings.sites.items() if policy.inventory_node == inventory}
        candidates = {*named, inventory, *([buffer_of(inventory)] if inventory.endswith(MSS) else [])}
        found = [(node, self.of(node)) for node in sorted(candidates) if is_node(node)]
        return [(node, site) for node, site in found if site is not None and site.listed_at == inventory]

    def serving(self, inventory: str) -> list[tuple[str, Site]]:
        """The same where the sync may write now: they can be asked to have a block in Rucio."""
        return [(node, site) for node, site in self.holding(inventory) if self.is_served(node, site)]

    def is_served(self, node: str, site: Site) -> bool:
        """True where the settings and the switch let the sync write at the node."""
        return is_on(self.settings.site(node).run, now()) and site.switch is not Switch.FROZEN

    def owners(self, site: Site) -> tuple[str, ...]:
        """The accounts whose rules at a site are places to rely on: ours, and those the settings name (`rely_on`)."""
        return (*site.accounts, *self.settings.main.rely_on)

    def is_ours(self, row: Row) -> bool:
        """True for a rule that this sync has made: on a block, at the one RSE of a site, by that site's account."""
        site = self.at(str(row.get("rse_expression", "")).removeprefix("rse="))
        return site is not None and inventory.is_ours(row, site)

    def is_syncs(self, account: str) -> bool:
        """True for an account that may own rules of this sync somewhere: for where it does no harm to think so."""
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
