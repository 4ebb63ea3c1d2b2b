"""What is at a node on both sides, and what would a sync do about it? Reads; writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from msgspec.structs import replace

from common.errors import NotOurs
from common.messages.commands import SyncSite
from common.messages.meta import now
from common.phedex.inventory import read_node
from common.rucio import announcements
from common.rucio.announcements import Announcement
from common.rucio.inventory import rules_at
from common.rucio.rses import Site, Switch, closed, find_site
from common.settings.model import Site as Policy
from common.settings.run import is_on
from common.sync.catalogue import Reading, RuleAtRse, is_custodial
from common.sync.deep import deep_names
from common.sync.diff import Difference, diff, keep_incomplete
from common.sync.evidence import over_files
from common.sync.marks import Removal, is_held_as
from common.sync.plan import Limits, Plan, Removals, make_plan
from common.sync.selection import selection
from common.telemetry import spent
from consumers.apply.sides import with_rse
from consumers.apply.task import budget_of
from consumers.engine.world import World
from consumers.planning.guarding import controls_of, is_believed, ruling_on


@dataclass(frozen=True)
class Observed:
    """Both sides of a node as read for one command from the time `at` on, what differs, and the plan made of them.

    `may_drop`: files that PhEDEx lists no more may leave their blocks, on this page or a later one. `controls`: blocks
    that PhEDEx surely has somewhere.
    """

    at: datetime
    plan: Plan
    reading: Reading
    found: Difference
    may_drop: bool
    controls: list[str]
    rules: Mapping[str, RuleAtRse]
    page: int
    expired: list[Announcement]  # sweeps that were announced at the RSE and that nobody carries out any more
    doubtful: list[str]  # the complete blocks that those were about

    def holds(self, name: str, why: Removal) -> bool:
        """True where the block is on record as held for this reason, in each rule of ours."""
        rule = self.rules[name]
        return is_held_as(rule.hold, why, custodial=is_custodial(rule, self.reading.blocks.get(name)))


def observe(command: SyncSite, world: World) -> Observed:
    """Read PhEDEx and Rucio for one node and compare them.

    Raises NotOurs, UnknownNode, NodeMissing, or a system's error.
    """
    began = now()
    policy = world.settings.site(command.node)
    site = site_of(command.node, world, policy)
    reading, rules = _read(command, world, site)
    world.checkpoint()
    chosen = selection(command.dataset, *_narrowing(command, policy))
    found = diff(reading, rules, chosen)
    if policy.incomplete == "keep":
        keep_incomplete(found, rules)
    removals = _removals(command, world, site, (reading, rules, found), began)
    deep = deep_names(reading, chosen) if command.deep else []
    too_many = over_files(reading, rules, found, budget_of(policy))
    why_not = _why_no_files(command, policy, site, (reading, rules, found), removals) or too_many
    removals = replace(removals, files=why_not, files_held=bool(too_many))
    plan = _plan(command, policy, site, (reading, rules, found), removals, deep=deep)
    return Observed(
        began,
        plan,
        reading,
        found,
        not why_not,
        controls_of(reading, rules, found),
        rules,
        policy.chunck,
        *_expired(world, site, reading),
    )


def _expired(world: World, site: Site, reading: Reading) -> tuple[list[Announcement], list[str]]:
    """The announced sweeps at the RSE that are over, and the blocks at the node that they were about."""
    at, lifetime = now().timestamp(), world.settings.main.announcement_lifetime
    _, over = announcements.parted(site.announced, at, lifetime)
    whole = (name for name, block in reading.blocks.items() if block.complete and block.files)
    return over, sorted(announcements.about(over, list(whole))) if over else []


def _read(command: SyncSite, world: World, site: Site) -> tuple[Reading, dict[str, RuleAtRse]]:
    """Both readings at once: Rucio writes an account's rules in one stream, for minutes if they are many.

    Rucio's client belongs to the other thread until that has ended, also where PhEDEx fails. It is not asked before
    PhEDEx has answered once, so that nothing is read in vain while that is away.
    """
    with with_rse(site):
        world.phedex.check_node(site.listed_at)
    with ThreadPoolExecutor(1, "reads rules") as other:
        rules = other.submit(spent.as_ours(rules_at), world.rucio, site)
        split = world.settings.site(command.node).multi_das_calls
        reading = read_node(world.phedex, site.listed_at, command.dataset, split=split, checkpoint=world.checkpoint)
        return reading, rules.result()


def site_of(node: str, world: World, policy: Policy) -> Site:
    """The RSE that stands for a node, open for the sync.

    Raises NotOurs with the reason where there is none, UnknownNode where PhEDEx does not know the node either.
    """
    if not is_on(policy.run, now()):
        raise NotOurs(f"{node}: `run` is off in its settings")
    site = find_site(world.rucio, node, policy)
    if site is None:
        world.phedex.check_node(node)  # a mistyped node is a mistake, not a site that Rucio does not have yet
        raise NotOurs(f"{node}: no RSE with the attributes cms_type=real and pnn={node}")
    if site.switch is Switch.FROZEN:
        raise NotOurs(f"{node}: frozen (attribute phedex_sync of RSE {site.rse})")
    return site


def _narrowing(command: SyncSite, policy: Policy) -> tuple[list[str], list[str]]:
    return [policy.select, command.select], [policy.ignore, command.ignore]


def why_no_removals(command: SyncSite, policy: Policy, site: Site) -> str:
    """Why a plan removes nothing, "" where it may: only a root's plan does, and no one may have forbidden it."""
    reasons = {
        "a further page of a plan only adds": bool(command.after),
        "a canary (limit) only adds": command.limit is not None,
        "asked for additions only": command.adds_only,
        "the site's settings say adds_only": policy.adds_only,
        f"the switch of RSE {site.rse} says {site.switch}": site.switch is not Switch.ON,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _removals(
    command: SyncSite,
    world: World,
    site: Site,
    sides: tuple[Reading, Mapping[str, RuleAtRse], Difference],
    began: datetime,
) -> Removals:
    policy = world.settings.site(command.node)
    none = why_no_removals(command, policy, site)
    found = sides[2]
    asks = bool(found.remove or found.pending)
    if asks and not none and closed(world.rucio, site.rse).for_deletion:
        none = f"RSE {site.rse} is closed for deletion (availability_delete)"
    ruling = ruling_on(command, world, site, sides, began) if asks and not none else None
    return Removals(
        at=began,
        none=none,
        ruling=ruling,
        grace=policy.removal_grace,
        apart=world.settings.main.nowhere_apart,
        keep_partial=policy.incomplete == "keep",
    )


def _why_no_files(
    command: SyncSite,
    policy: Policy,
    site: Site,
    sides: tuple[Reading, Mapping[str, RuleAtRse], Difference],
    removals: Removals,
) -> str:
    """Why no files that PhEDEx lists no more may leave their blocks; "" where they may.

    A later page may what the root may: it has no guard's word of its own, so its reading must be believed.
    """
    if none := why_no_removals(replace(command, after=""), policy, site):
        return none
    believed = removals.ruling.sweep if removals.ruling else is_believed(command, policy, site, sides, removals.at)
    if sides[0].doubts or not believed:
        return "PhEDEx's list of the site is not believed"
    return ""


def _plan(
    command: SyncSite,
    policy: Policy,
    site: Site,
    sides: tuple[Reading, Mapping[str, RuleAtRse], Difference],
    removals: Removals,
    *,
    deep: list[str],
) -> Plan:
    return make_plan(
        (command.node, site.rse, site.account, command.dataset),
        *sides,
        limits=limits_of(policy),
        removals=removals,
        deep=deep,
        after=command.after,
        limit=command.limit,
    )


def limits_of(policy: Policy) -> Limits:
    """How large a page and a batch may be at a site."""
    return Limits(page=policy.chunck, blocks=policy.batch_blocks, files=policy.batch_files)
