"""What does the guard need to know, and how is its word passed on?"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from itertools import chain, islice

from msgspec.structs import replace as replace_rule

from common.errors import Untrusted
from common.messages.commands import SyncSite
from common.messages.events import GuardReport
from common.phedex.replies import TAPE
from common.phedex.transport import ReplyTooLarge
from common.rucio.rses import Site
from common.settings.model import Site as Policy
from common.sync.catalogue import Reading, RuleAtRse
from common.sync.diff import Difference, set_reasons, unsettled
from common.sync.evidence import EVERYTHING, case_of, without_size
from common.sync.guard import Case, Ruling, options, rule
from common.sync.limits import Limit
from common.sync.plan import Plan
from common.sync.selection import selection
from consumers.apply import beyond
from consumers.apply.beyond import CONTROLS, Own, check_catalogue
from consumers.apply.rules import is_begun
from consumers.apply.sides import Sides, Sites
from consumers.apply.task import budget_of
from consumers.engine.world import World


def ruling_on(
    command: SyncSite,
    world: World,
    site: Site,
    sides: tuple[Reading, Mapping[str, RuleAtRse], Difference],
    began: datetime,
) -> Ruling:
    """What the guard says of the removals found, each of which has its reason after it."""
    reading, rules, found = sides
    policy = world.settings.site(command.node)
    bytes_of, doubt = _evidence(world, Own(command.node, site, rules), reading, found)
    locked = any(rules[name].locked for name in (*found.remove, *found.pending))
    asks = bool(found.remove or found.pending) and policy.hold_custodial  # a site in sync costs no look at its RSE
    tape = is_tape(command.node, world, site) if asks or locked else False
    if tape and locked:  # Rucio locks every rule there by itself
        rules = {name: replace_rule(rule, locked=False) if rule.locked else rule for name, rule in rules.items()}
    case = _case(command, policy, site, (reading, rules, found), bytes_of=bytes_of, began=began)
    asked = found.pending.keys() if tape and policy.hold_custodial else case.custodial
    return rule(
        replace(
            case,
            select=command.select,
            ignore=command.ignore,
            tape=tape,
            begun={name for name in asked if is_begun(world.rucio, site.rse, [rules[name]])},
            doubt=doubt,
            approve=command.approve,
            lifetime=world.settings.main.approval_lifetime,
        )
    )


def is_believed(
    command: SyncSite,
    policy: Policy,
    site: Site,
    sides: tuple[Reading, Mapping[str, RuleAtRse], Difference],
    began: datetime,
) -> bool:
    """True where PhEDEx's list is neither empty nor much shorter than what we have, nor doubted in a part."""
    return not sides[0].doubts and rule(_case(command, policy, site, sides, bytes_of={}, began=began)).sweep


def controls_of(reading: Reading, rules: Mapping[str, RuleAtRse], found: Difference) -> list[str]:
    """Blocks that PhEDEx surely has somewhere: a reply that leaves them out too is not believed.

    Those that it lists complete at the node, else those that our rules hold and that nobody found missing.
    """
    listed = (name for name, block in reading.blocks.items() if block.complete)
    standing = (
        name
        for name, one in rules.items()
        if not (one.marked or one.ending or one.keep or one.held_since or name in found.remove or name in found.kept)
    )
    return list(dict.fromkeys(islice(chain(listed, standing), CONTROLS)))


def _case(
    command: SyncSite,
    policy: Policy,
    site: Site,
    sides: tuple[Reading, Mapping[str, RuleAtRse], Difference],
    *,
    bytes_of: Mapping[str, int],
    began: datetime,
) -> Case:
    return case_of(
        (command.node, site.rse, command.dataset, as_typed(command)),
        *sides,
        at=began,
        policy=selection("*", [policy.select], [policy.ignore]),
        keep_partial=policy.incomplete == "keep",
        bytes_of=bytes_of,
        budget=budget_of(policy),
    )


def _evidence(world: World, own: Own, reading: Reading, found: Difference) -> tuple[dict[str, int], str]:
    """The bytes of the blocks that PhEDEx's catalogue knows, all reasons set; where that is not to be trusted, why."""
    controls = controls_of(reading, own.rules, found)
    names = unsettled(found)
    try:
        bytes_of = world.phedex.sizes_of([*without_size(reading, own.rules, found), *(controls if names else ())])
        check_catalogue(bytes_of, controls if names else ())
        known = beyond.read(
            Sides(world.phedex, world.rucio, Sites(world.rucio, world.settings)),
            own,
            names,
            controls=controls,
            known=lambda asked: [name for name in asked if name in bytes_of],
        )
    except (Untrusted, ReplyTooLarge) as error:
        return {}, f"{type(error).__name__}: {error}"
    keep_partial = world.settings.site(own.node).incomplete == "keep"
    set_reasons(found, own.rules, known.reasons, keep_partial=keep_partial)
    return bytes_of, ""


def is_tape(node: str, world: World, site: Site) -> bool:
    """True for a site on tape, as PhEDEx has the kind of its node or Rucio the type of its RSE."""
    nodes = world.phedex.nodes()
    kinds = {nodes[name].kind for name in (node, site.listed_at) if name in nodes}
    return bool(kinds & set(TAPE)) or world.rucio.row("get_rse", site.rse, about=site.rse).get("rse_type") == "TAPE"


def as_typed(command: SyncSite) -> str:
    """The command as a person would type it to plan the same removals again."""
    words = ["phedex-rucio", "sync", "site", command.node]
    if command.dataset not in EVERYTHING:
        words += ["--dataset", command.dataset]
    return shlex.join([*words, *options(command.select, command.ignore)])


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
        override=ruling.command or ruling.approval,
        everywhere=ruling.everywhere,
        approved_by=(command.meta.by or "unknown") if ruling.approved else "",
        reason=command.reason if ruling.approved else "",
    )
