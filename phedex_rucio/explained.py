"""Which facts are there about a block at a node? Asks every side, a few requests each; writes nothing anywhere.

A side that does not answer is a fact too. The site's whole plan, which is dear, is read where a removal is at stake.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from msgspec.structs import replace

from common.errors import (
    NotAuthenticated,
    NotOurs,
    PhedexRucioError,
    RucioRefused,
    Untrusted,
    UsageError,
)
from common.messages.commands import SyncSite
from common.messages.meta import now
from common.outcome import Exit
from common.rucio import one_block
from common.rucio.rses import Site, find_site
from common.rucio.switch import read_state
from common.settings import model
from common.settings.run import is_on
from common.sync import explain_absent
from common.sync.one_block import Facts, InPhedex, InRucio, Listed, Place, Policy, Trouble
from common.sync.selection import compiled
from consumers.engine.world import World
from consumers.planning.last_look import foresee, not_at
from consumers.planning.observe import Observed, observe
from phedex_rucio import explained_messages as messages
from phedex_rucio import wiring

PATIENCE = 30  # seconds for one reply about one block
TO_CONNECT = 5  # seconds to the broker

REASON = 400  # characters
# `ConnectionError(MaxRetryError('… (Caused by NewConnectionError("…: [Errno 111] Connection refused"))'))`
_SYSTEM = re.compile(r"\b\w+\((?:MaxRetryError|\w*Pool).*?\[Errno -?\d+\] ([\w ,.-]+).*$")

T = TypeVar("T")


@dataclass
class Look:
    """One look at one block: the settings, the clients, and what went wrong so far."""

    block: str
    settings: model.Settings
    quick: bool = False
    at: datetime = field(default_factory=now)
    troubles: dict[str, Trouble] = field(default_factory=dict)

    def __post_init__(self) -> None:
        main = self.settings.main
        self.hasty = replace(
            main,
            phedex_timeout=min(main.phedex_timeout, PATIENCE),
            phedex_tries=min(main.phedex_tries, 2),
            rucio_timeout=min(main.rucio_timeout, PATIENCE),
            connect_timeout=min(main.connect_timeout, TO_CONNECT),
        )
        self.doors = wiring.Doors(replace(self.settings, main=self.hasty))

    def tried(self, ask: Callable[[], T], otherwise: T) -> T:
        """What is answered; the trouble where the side does not, and then it is asked no more."""
        try:
            return ask()
        except PhedexRucioError as error:
            if error.system is None:
                raise
            self.troubles.setdefault(error.system.value, trouble_of(error))
            return otherwise

    def is_away(self, system: str) -> bool:
        """True after a trouble with it."""
        return system in self.troubles


def trouble_of(error: PhedexRucioError) -> Trouble:
    """How a side failed us, as a fact."""
    if isinstance(error, NotAuthenticated | RucioRefused):
        how, code = "refused", Exit.AUTHENTICATION
    else:
        how, code = ("untrusted" if isinstance(error, Untrusted) else "away"), Exit.AWAY
    reason = f"{type(error).__name__}: {error}" if how == "untrusted" else str(error)
    return Trouble(system=error.system.value if error.system else "", how=how, reason=_in_short(reason), code=code)


def _in_short(reason: str) -> str:
    """Without what the libraries between have wrapped around the operating system's word, and cut."""
    reason = " ".join(reason.split())
    if found := _SYSTEM.search(reason):
        reason = f"{reason[: found.start()].rstrip(' :')}: {found[1].strip()}"
    return reason if len(reason) <= REASON else f"{reason[: REASON - 1]}…"


# --- one node


def facts_about(look: Look, node: str) -> Facts:
    """All that can be found out about the block at the node. Raises UsageError where no side knows the node."""
    policy = look.settings.site(node)
    phedex = look.tried(lambda: look.doors.phedex.everywhere(look.block), None)
    listed = _listed(look, phedex)
    unknown = "" if look.is_away("phedex") else look.tried(lambda: _unknown(look, node, policy), "")
    site, place = site_of(look, node)
    if place is not None and not place.rse and not place.unclear and unknown == node:
        raise UsageError(f"{node}: neither PhEDEx nor Rucio knows a node of this name: look at its spelling")
    rucio = None if look.is_away("rucio") else look.tried(lambda: _rucio(look, listed, site), None)
    facts = Facts(
        block=look.block,
        node=node,
        at=look.at,
        policy=policy_of(look, node, policy, site),
        place=place,
        unknown_node=unknown,
        phedex=phedex,
        listed=listed,
        rucio=rucio,
    )
    facts = _removal(look, _late(look, facts, site), site)
    return messages.told(look, replace(facts, troubles=tuple(look.troubles.values())))


def _listed(look: Look, phedex: InPhedex | None) -> Listed:
    """No answer about the files, where one about the block came, is a doubt of the list alone."""
    if phedex is None or not phedex.places:
        return Listed()
    try:
        return look.doors.phedex.files_everywhere(look.block, (phedex.files, phedex.bytes))
    except PhedexRucioError as error:
        return Listed(doubt=f"{type(error).__name__}: {error}")


def _unknown(look: Look, node: str, policy: model.Site) -> str:
    """The node that PhEDEx does not know, of those that the sync would ask for; "" if it knows them."""
    known = look.doors.phedex.nodes()
    asked = policy.inventory_node or node
    return "" if asked in known else asked


def site_of(look: Look, node: str) -> tuple[Site | None, Place | None]:
    """The node's RSE, and what is known of it; neither where Rucio does not answer."""
    nothing: tuple[Site | None, Place | None] = (None, None)
    return nothing if look.is_away("rucio") else look.tried(lambda: _place(look, node), nothing)


def _place(look: Look, node: str) -> tuple[Site | None, Place | None]:
    rucio, policy = look.doors.rucio, look.settings.site(node)
    try:
        site = find_site(rucio, node, policy)
    except UsageError as error:
        return None, Place(why_none=str(error), unclear=True)
    if site is None:
        named = f"the RSE {policy.rse} that the settings name does not exist"
        none = named if policy.rse else f"no RSE has the attributes cms_type=real and pnn={node}"
        return None, Place(why_none=f"{node}: {none}")
    state = read_state(rucio, site.rse)
    return site, Place(
        rse=site.rse,
        account=site.account,
        account_exists=one_block.has_account(rucio, site.account),
        switch=str(site.switch),
        turned=(state.note.by, state.note.at, state.note.why),
        handed_over=state.handed_over,
        unreadable=state.unreadable,
        sweeping=one_block.sweeping(site.announced, look.settings.main.announcement_lifetime, look.block),
    )


def _rucio(look: Look, listed: Listed, site: Site | None) -> InRucio:
    rucio = look.doors.rucio
    found = one_block.seen_from(one_block.outline(rucio, look.block), site)
    return one_block.with_files(rucio, found, look.block, listed.files)


def policy_of(look: Look, node: str, policy: model.Site, site: Site | None) -> Policy:
    """The settings of a site as far as they concern this block; and where PhEDEx lists what is there, if elsewhere."""
    listed_at = site.listed_at if site else policy.inventory_node
    return Policy(
        run=is_on(policy.run, look.at),
        dry=policy.dry,
        adds_only=policy.adds_only,
        keep_incomplete=policy.incomplete == "keep",
        grace=policy.removal_grace,
        unselected=_unselected(look.block, policy),
        listed_at=listed_at if listed_at != node else "",
    )


def _unselected(block: str, policy: model.Site) -> str:
    if policy.select and not compiled(policy.select, "select")(block):
        return f"`select: {policy.select}`"
    if policy.ignore and compiled(policy.ignore, "ignore")(block):
        return f"`ignore: {policy.ignore}`"
    return ""


# --- where files are to join it


def _late(look: Look, facts: Facts, site: Site | None) -> Facts:
    """With the sites that these have to wait for, where rules of the sync at other sites hold the block."""
    there, rucio, files = facts.there, facts.rucio, facts.listed.files
    if there is None or not there.complete or rucio is None or site is None or look.is_away("phedex"):
        return facts
    to_join = {name: file for name, file in files.items() if name not in rucio.inside}
    if not to_join or not rucio.holders:
        return facts
    world, nowhere = look.doors.world(lambda: None), tuple[str, ...]()
    return replace(facts, not_at=look.tried(lambda: not_at(world, site, look.block, to_join), nowhere))


# --- where a removal is at stake


def _removal(look: Look, facts: Facts, site: Site | None) -> Facts:
    """With the site's plan and the last-copy rule's word, where they decide what becomes of the block."""
    stopped = facts.unknown_node or facts.policy.unselected or not facts.policy.run or facts.place is None
    if site is None or stopped or site.switch.value == "frozen" or facts.rucio is None or look.is_away("phedex"):
        return facts
    if not explain_absent.at_stake(facts):
        return facts
    if look.quick:
        return replace(facts, plan_trouble="--quick leaves the guard out")
    observed, failed = _observed(look, facts.node)
    plan, controls = (observed.plan, observed.controls) if observed else (None, [])
    here = facts.there is not None
    last = look.tried(lambda: foresee(_world(look), site, facts.node, look.block, here=here, controls=controls), None)
    return replace(facts, plan=plan, plan_failed=failed, last_copy=last)


def _world(look: Look) -> World:
    """The patient clients: a whole site takes its time."""
    return wiring.Doors(look.settings).world(lambda: None)


def _observed(look: Look, node: str) -> tuple[Observed | None, str]:
    try:
        return observe(SyncSite(node=node), _world(look)), ""
    except (NotOurs, PhedexRucioError) as error:
        return None, _in_short(f"{type(error).__name__}: {error}")
