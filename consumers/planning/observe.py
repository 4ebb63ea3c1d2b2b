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
from common.rucio.inventory import rules_at
from common.rucio.rses import Site, Switch, find_site
from common.settings.model import Site as Policy
from common.settings.run import is_on
from common.sync.catalogue import Reading, RuleAtRse
from common.sync.deep import deep_names
from common.sync.diff import Difference, diff, keep_incomplete
from common.sync.plan import Limits, Plan, Removals, make_plan
from common.sync.selection import selection
from common.telemetry import spent
from consumers.engine.world import World
from consumers.planning.guarding import is_believed, ruling_on


@dataclass(frozen=True)
class Observed:
    """Both sides of a node as read for one command from the time `at` on, what differs, and the plan made of them.

    `may_drop`: a deep look, on this page or a later one, may take away files that PhEDEx lists no more.
    """

    at: datetime
    plan: Plan
    reading: Reading
    found: Difference
    may_drop: bool


def observe(command: SyncSite, world: World) -> Observed:
    """Read PhEDEx and Rucio for one node and compare them. Raises NotOurs, UnknownNode, or a system's error."""
    began = now()
    policy = world.settings.site(command.node)
    site = site_of(command.node, world, policy)
    reading, rules = _read(command, world, site)
    world.checkpoint()
    chosen = selection(command.dataset, *_narrowing(command, policy))
    found = diff(reading, rules, chosen)
    if policy.incomplete == "keep":
        keep_incomplete(found)
    removals = _removals(command, world, site, (reading, rules, found), began)
    deep = deep_names(reading, chosen) if command.deep else []
    plan = _plan(command, policy, site, (reading, rules, found), removals, deep=deep)
    may_drop = _may_drop(command, policy, site, (reading, rules, found), removals)
    return Observed(began, plan, reading, found, may_drop)


def _read(command: SyncSite, world: World, site: Site) -> tuple[Reading, dict[str, RuleAtRse]]:
    """Both readings at once: Rucio writes an account's rules in one stream, for minutes if they are many.

    Rucio's client belongs to the other thread until that has ended, also where PhEDEx fails. It is not asked before
    PhEDEx has answered once, so that nothing is read in vain while that is away.
    """
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
    ruling = None if none or not (found.remove or found.pending) else ruling_on(command, world, site, sides)
    return Removals(
        at=began,
        none=none,
        ruling=ruling,
        grace=policy.removal_grace,
        keep_partial=policy.incomplete == "keep",
    )


def _may_drop(
    command: SyncSite,
    policy: Policy,
    site: Site,
    sides: tuple[Reading, Mapping[str, RuleAtRse], Difference],
    removals: Removals,
) -> bool:
    """A later page may what the root may: it has no guard's word of its own, so its reading must be believed."""
    if not command.deep or why_no_removals(replace(command, after=""), policy, site):
        return False
    believed = removals.ruling.sweep if removals.ruling else is_believed(command, policy, site, sides)
    return believed and not sides[0].doubts


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
