"""What does the guard need to know, and how is its word passed on?"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace

from common.errors import Untrusted
from common.messages.commands import SyncSite
from common.messages.events import GuardReport
from common.phedex.transport import ReplyTooLarge
from common.rucio.rses import Site
from common.settings.model import Site as Policy
from common.sync.catalogue import Reading, RuleAtRse
from common.sync.diff import Difference, set_unknown
from common.sync.evidence import EVERYTHING, case_of, loose, without_size
from common.sync.guard import Budget, Case, Limit, Ruling, rule
from common.sync.plan import Plan
from common.sync.selection import selection
from consumers.engine.world import World

TAPE = ("MSS", "Buffer")  # the kinds of PhEDEx' nodes before and on tape


def ruling_on(
    command: SyncSite, world: World, site: Site, sides: tuple[Reading, Mapping[str, RuleAtRse], Difference]
) -> Ruling:
    """What the guard says of the removals found; those that PhEDEx does not know at all have that reason after it.

    Where nothing new is to be marked, and marks are none or one, nothing more is asked: the guard says only whether
    the reading may be acted on.
    """
    found = sides[2]
    policy = world.settings.site(command.node)
    asks = bool(found.remove) or len(loose(sides[1])) > 1
    bytes_of, doubt = _catalogue(world, without_size(*sides)) if asks else ({}, "")
    if asks and not doubt:
        set_unknown(found, bytes_of)
    tape = bool(found.remove) and policy.hold_custodial and is_tape(command.node, world, site)
    case = _case(command, policy, site, sides, bytes_of)
    return rule(replace(case, tape=tape, doubt=doubt, approve=command.approve))


def is_believed(
    command: SyncSite, policy: Policy, site: Site, sides: tuple[Reading, Mapping[str, RuleAtRse], Difference]
) -> bool:
    """True where PhEDEx's list is neither empty nor much shorter than what we have, nor doubted in a part."""
    return not sides[0].doubts and rule(_case(command, policy, site, sides, {})).sweep


def _case(
    command: SyncSite,
    policy: Policy,
    site: Site,
    sides: tuple[Reading, Mapping[str, RuleAtRse], Difference],
    bytes_of: Mapping[str, int],
) -> Case:
    return case_of(
        (command.node, site.rse, command.dataset, as_typed(command)),
        *sides,
        policy=selection("*", [policy.select], [policy.ignore]),
        keep_partial=policy.incomplete == "keep",
        bytes_of=bytes_of,
        budget=_budget(policy),
    )


def _catalogue(world: World, names: list[str]) -> tuple[dict[str, int], str]:
    """The bytes of the blocks that PhEDEx knows; where its answer is not to be trusted, why."""
    try:
        return world.phedex.sizes_of(names), ""
    except (Untrusted, ReplyTooLarge) as error:
        return {}, f"{type(error).__name__}: {error}"


def is_tape(node: str, world: World, site: Site) -> bool:
    """True for a site on tape, as PhEDEx has the kind of its node or Rucio the type of its RSE."""
    nodes = world.phedex.nodes()
    kinds = {nodes[name].kind for name in (node, site.listed_at) if name in nodes}
    return bool(kinds & set(TAPE)) or world.rucio.row("get_rse", site.rse, about=site.rse).get("rse_type") == "TAPE"


def _budget(policy: Policy) -> Budget:
    return Budget(
        share=policy.max_removal_share,
        blocks=policy.max_removal_blocks,
        bytes=policy.max_removal_bytes,
        hold_custodial=policy.hold_custodial,
        hold_unknown=policy.hold_unknown,
        allow_clean=policy.allow_clean,
    )


def as_typed(command: SyncSite) -> str:
    """The command as a person would type it to plan the same removals again."""
    words = ["phedex-rucio", "sync", "site", command.node]
    if command.dataset not in EVERYTHING:
        words += ["--dataset", command.dataset]
    for option in ("select", "ignore"):
        words += [f"--{option}", getattr(command, option)] if getattr(command, option) else []
    return shlex.join(words)


def report_of(command: SyncSite, plan: Plan) -> GuardReport | None:
    """What the event says of the guard: None where it met no limit, nobody's approval mattered, nothing is doubted."""
    ruling = plan.ruling
    if ruling is None or not (ruling.stops or ruling.approved):
        return GuardReport(limit=Limit.DOUBT, share=0, number=0, says=plan.doubts[:5]) if plan.doubts else None
    first = ruling.stops[0] if ruling.stops else None
    return GuardReport(
        limit=first.limit if first else "",
        most=first.most if first else 0,
        share=ruling.share,
        number=ruling.number,
        bytes=ruling.bytes,
        held=len(ruling.held) + len(ruling.kept),
        says=[stop.says for stop in ruling.stops],
        checksum=ruling.checksum,
        override=ruling.checksum if ruling.approved else ruling.command,
        approved_by=(command.meta.by or "unknown") if ruling.approved else "",
        reason=command.reason if ruling.approved else "",
    )
