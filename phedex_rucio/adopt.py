"""What did older tools leave at a site, and how does it become ours? Run it before the first sync."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import click

from common.errors import NotOurs, UsageError
from common.messages.commands import Command, SyncBlocks
from common.outcome import Exit, Outcome
from common.rucio import handover
from common.rucio.handover import Given
from common.rucio.rses import Site, Switch, find_site
from common.settings.load import Loaded
from common.settings.model import Settings
from common.sync.legacy import MEANING, REMARKS, Legacy, carry_over
from common.sync.marks import COMMENT
from common.sync.plan import batches
from common.sync.words import count
from consumers.engine.world import World
from consumers.planning.legacy import look
from consumers.planning.observe import limits_of
from phedex_rucio import local, output, wiring
from phedex_rucio.options import as_json, with_settings
from phedex_rucio.roots import rooted

PERIOD = 10.0
FIRST = 3  # examples shown of each kind


@dataclass
class Adopted:
    """One node: what was found, what was done about it, and what was found afterwards."""

    found: Legacy
    given: int = 0
    failed: int = 0
    after: Legacy | None = None

    @property
    def is_clean(self) -> bool:
        return (self.after or self.found).is_clean and not self.failed


@click.command("adopt")
@click.argument("nodes", nargs=-1, required=True, metavar="NODE...")
@click.option("--repair", is_flag=True, help="Make it ours: one rule a block, with our owner and meta.")
@click.option("--rules-only", is_flag=True, help="Look at the rules alone: seconds, and without PhEDEx.")
@click.option("--orphans", is_flag=True, help="Also ask for every dataset without a rule here, one request each.")
@as_json
@with_settings
def command(
    nodes: Sequence[str], *, repair: bool, rules_only: bool, orphans: bool, as_json: bool, loaded: Loaded
) -> int:
    """Show what older tools left at NODEs: rules of former accounts, doubled, expiring and without meta, replicas under
    no rule or not available, datasets out of their container, other sizes and checksums.

    --repair gives the rules our owner and lets deep batches do the rest. It deletes no replica, and of doubled rules
    ends all but one only when that one holds everything.

    Exit code 0: nothing was left, 3: something is, 4: the site is not open for a repair.
    """
    if rules_only and (repair or orphans):
        raise UsageError("--rules-only: neither --repair nor --orphans goes by the rules alone")
    done: dict[str, Adopted] = {}
    failed: dict[str, NotOurs | UsageError] = {}
    for node in dict.fromkeys(nodes):
        try:
            done[node] = _adopt(node, loaded.settings, files=not rules_only, orphans=orphans, repair=repair)
        except (NotOurs, UsageError) as error:
            failed[node] = error
    _show_json(done, failed) if as_json else _show(done)
    for reason in failed.values():
        output.note(f"{output.NAME}: {reason}")
    if failed:
        return Exit.HELD if any(isinstance(reason, Closed) for reason in failed.values()) else Exit.FAILED
    return Exit.DONE if all(one.is_clean for one in done.values()) else Exit.DIFFERENCES


class Closed(NotOurs):
    """The site may be read, but nothing may be written there now."""


def _adopt(node: str, settings: Settings, *, files: bool, orphans: bool, repair: bool) -> Adopted:
    engine = wiring.engine(settings)
    world = engine.world(lambda: None)
    site = find_site(world.rucio, node, settings.site(node))
    if site is None:
        raise NotOurs(f"{node}: no RSE with the attributes cms_type=real and pnn={node}: nothing was left there")
    if repair:
        _check_open(node, site, world)
    adopted = Adopted(look(node, site, world, files=files, orphans=orphans, tell=_teller(node)))
    if repair and (adopted.found.former or adopted.found.to_mend):
        adopted.given = _give_all(world, site, adopted.found)
        adopted.failed = _mend(engine, world, site, adopted.found)
        adopted.after = look(node, site, world, orphans=orphans, only=adopted.found.to_mend, tell=_teller(node))
        carry_over(adopted.found, adopted.after)
    return adopted


def _check_open(node: str, site: Site, world: World) -> None:
    policy = world.settings.site(node)
    if site.switch is Switch.FROZEN:
        raise Closed(f"{node}: frozen: phedex-rucio site adds-only {node} --reason … opens it for a repair")
    if not policy.run or policy.dry:
        raise Closed(f"{node}: its settings say {'dry' if policy.run else '`run: False`'}: nothing may be written")
    if not handover.exists(world.rucio, site.account):
        raise UsageError(f"{node}: Rucio has no account {site.account}, which is to own the rules there")


def _give_all(world: World, site: Site, found: Legacy) -> int:
    """The rules of former accounts are the site's account's; where that has one already the batches end the other."""
    became = [handover.give(world.rucio, site, rule, site.account, COMMENT) for rule in found.former]
    return became.count(Given.GIVEN)


def _mend(engine: wiring.Engine, world: World, site: Site, found: Legacy) -> int:
    """Deep batches have looked at every block that needs it; how many of them failed."""
    policy = world.settings.site(found.node)
    blocks = world.phedex.blocks_at(site.listed_at, sorted(found.to_mend))
    names = [name for name in sorted(found.to_mend) if name in blocks and blocks[name].complete]
    roots: list[Command] = [
        rooted(SyncBlocks(node=found.node, blocks=part, deep=True, adds_only=True))
        for part in batches(names, blocks, limits_of(policy))
    ]
    state = local.run(local.Local(engine), roots)
    return sum(state.by_name[root.meta.cycle].outcome in (Outcome.DEAD, Outcome.DROPPED) for root in roots)


def _teller(node: str) -> Callable[[int, int], None]:
    said = time.monotonic()

    def tell(done: int, all_: int) -> None:
        nonlocal said
        if time.monotonic() - said > PERIOD:
            said = time.monotonic()
            output.note(f"{node}: {done:,} of {all_:,} blocks")

    return tell


# --- telling it --------------------------------------------------------------------------------------------------


def _show(done: dict[str, Adopted]) -> None:
    for node, one in done.items():
        _tell(node, one.found)
        if one.after is not None:
            failed = f", {count(one.failed, 'batch')} failed" if one.failed else ""
            output.say(f"{node}: repaired: {count(one.given, 'rule')} with our owner{failed}; what is left now:")
            _tell(node, one.after)


def _tell(node: str, found: Legacy) -> None:
    looked = f"{count(found.rules, 'rule')}, {count(found.blocks, 'block')}, {count(found.files, 'file')}"
    output.say(f"{node}: {looked}: {'nothing was left' if found.is_clean else 'found'}")
    for kind, meaning in MEANING.items():
        number = found.counts.get(str(kind), 0)
        if number:
            note = "note: " if kind in REMARKS else ""
            output.say(f"  {number:,} {kind}: {note}{meaning}")
            for example in found.examples[str(kind)][:FIRST]:
                output.say(f"      {example}")
    for doubt in found.doubts:
        output.say(f"  not read: {doubt}")
    if found.files_counted > found.files_held:
        output.say(
            f"  note: Rucio last counted {count(found.files_counted, 'file')} at {found.rse}, rules of ours hold "
            f"{found.files_held:,}; the rest is others', new, or orphaned (--orphans looks)"
        )


def _show_json(done: dict[str, Adopted], failed: dict[str, NotOurs | UsageError]) -> None:
    nodes = {node: _as_data(one) for node, one in done.items()}
    output.show_json({"nodes": nodes, "failed": {node: str(error) for node, error in failed.items()}})


def _as_data(one: Adopted) -> dict[str, Any]:
    data = _found_data(one.found)
    if one.after is not None:
        data["repair"] = {"given": one.given, "failed": one.failed, "after": _found_data(one.after)}
    return data


def _found_data(found: Legacy) -> dict[str, Any]:
    looked = {"rse": found.rse, "rules": found.rules, "blocks": found.blocks, "files": found.files}
    counted = {"files_counted": found.files_counted, "files_held": found.files_held}
    return {**looked, **counted, "doubts": found.doubts, "counts": dict(found.counts), "examples": found.examples}
