"""The day Rucio takes a site over: our rules there become those of the new owners, one by one."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from common.errors import NotFound, NotOurs, UsageError
from common.messages.meta import now
from common.outcome import Exit
from common.rucio import handover, switch
from common.rucio.handover import Given
from common.rucio.rses import Site, Switch, find_site, read_switch
from common.rucio.session import Rucio
from common.rucio.switch import Note
from common.settings.load import Loaded
from common.sync.handover import Held, Shares, Targets, check_owners, in_short, obstacles, parse_targets, share_out
from common.sync.words import count, size
from phedex_rucio import output, wiring
from phedex_rucio.options import as_json, with_settings
from phedex_rucio.roots import sender

PERIOD = 10.0  # seconds between two lines of progress
LOOK = 100  # rules between two looks at the switch
ROUNDS = 3  # a batch that was at work when the site was frozen may have added some meanwhile
SHOWN = 20


@dataclass
class Done:
    """What became of the rules: by new owner the number given, those that could not be, and those not ours any more."""

    given: dict[str, int] = field(default_factory=dict)
    conflicts: dict[str, str] = field(default_factory=dict)
    gone: int = 0


@dataclass(frozen=True)
class Job:
    """One hand-over: the site, where our rules go, who does it and when."""

    rucio: Rucio
    node: str
    site: Site
    targets: Targets
    note: Note


@click.command("handover")
@click.argument("node", metavar="NODE")
@click.option("--to", "targets", required=True, metavar="ACCOUNT|GROUP=ACCOUNT,…", help="New owners; *= for the rest.")
@click.option("--yes", is_flag=True, help="Do it; else it is only shown.")
@as_json
@with_settings
def command(node: str, *, targets: str, yes: bool, as_json: bool, loaded: Loaded) -> int:
    """Give our rules at a frozen NODE to other accounts, all to one or by the PhEDEx group of each rule.

    Nothing is transferred or deleted: a rule keeps its files, locks and meta, and its new owner has the usage. The
    site stays frozen. What is interrupted goes on when it is repeated.

    Exit code 0: nothing of ours is left there, 3: something is (shown: would go, or has to stay), 4: not now (see why).
    """
    rucio = wiring.Doors(loaded.settings).rucio
    job = Job(rucio, node, *_found(rucio, node, targets, loaded), _note(targets))
    rules = list(handover.our_rules(rucio, job.site))
    shares = share_out(rules, job.targets)
    sizes = handover.sizes(rucio, job.site.rse, rules)
    why_not = obstacles(node, job.site.switch, rules) + _without_room(job, shares, sizes)
    done = _carry_out(job, shares) if yes and not why_not else Done()
    if as_json:
        _show_json(job, shares, sizes, why_not, done)
    else:
        _show(job, shares, sizes, done)
        if shares.moves and not (done.given or done.conflicts or why_not or yes):
            output.say("Nothing was written: --yes does it.")
    for text in why_not:
        output.note(f"{output.NAME}: not now: {text}")
    if why_not:
        return Exit.HELD
    return Exit.DONE if _is_over(shares, done, yes) else Exit.DIFFERENCES


def _found(rucio: Rucio, node: str, text: str, loaded: Loaded) -> tuple[Site, Targets]:
    targets = parse_targets(text)
    site = find_site(rucio, node, loaded.settings.site(node))
    if site is None:
        raise NotOurs(f"{node}: no RSE with the attributes cms_type=real and pnn={node}: nothing to hand over")
    check_owners(targets, site.accounts)
    unknown = [account for account in targets.accounts if not handover.exists(rucio, account)]
    if unknown:
        raise UsageError(f"--to: Rucio has no account {', '.join(unknown)}")
    return site, targets


def _note(targets: str) -> Note:
    return Note(f"{now():%Y-%m-%dT%H:%M:%SZ}", sender(), f"handed over to {targets}"[:100])


def _without_room(job: Job, shares: Shares, sizes: dict[str, int]) -> list[str]:
    """The new owners whose limit is too small: Rucio would take that without a word and fail their rules later."""
    found = []
    for account, rules in shares.moves.items():
        needed, free = _bytes(rules, sizes), handover.room(job.rucio, account, job.site.rse)
        if free <= needed and free != math.inf:
            found.append(
                f"{account} may have {size(max(free, 0))} more at {job.site.rse} and would get {size(needed)}: "
                f"raise its limit"
            )
    return found


def _bytes(rules: Iterable[Held], sizes: dict[str, int]) -> int:
    return sum(sizes.get(rule.name, 0) for rule in rules)


# --- doing it ----------------------------------------------------------------------------------------------------


def _carry_out(job: Job, shares: Shares) -> Done:
    """Every rule that has a new owner is theirs. The site's mark comes first: from then on nothing syncs it."""
    done = Done()
    if not shares.moves:
        return done
    before = switch.read_state(job.rucio, job.site.rse).handed_over
    owners = {*job.targets.accounts, *(name for name in before.split(",") if not name.startswith("…"))} - {""}
    switch.hand_over(job.rucio, job.site.rse, in_short(owners, switch.VALUE_LENGTH), job.note)
    for _ in range(ROUNDS):
        _give_all(job, [(owner, rule) for owner, rules in shares.moves.items() for rule in rules], done)
        again = share_out(handover.our_rules(job.rucio, job.site), job.targets)
        shares.moves = {o: [rule for rule in r if rule.id not in done.conflicts] for o, r in again.moves.items()}
        if not any(shares.moves.values()):
            break
    shares.stay, shares.ending = again.stay, again.ending
    return done


def _give_all(job: Job, rules: Sequence[tuple[str, Held]], done: Done) -> None:
    said = time.monotonic()
    for number, (owner, rule) in enumerate(rules):
        if number % LOOK == 0 and read_switch(job.rucio, job.site.rse) is not Switch.FROZEN:
            raise UsageError(f"{job.node}: was resumed meanwhile; {count(number, 'rule')} handed over, the rest stays")
        _count(done, owner, rule, _give(job, owner, rule))
        if time.monotonic() - said > PERIOD:
            said = time.monotonic()
            output.note(f"{number + 1:,} of {len(rules):,} rules")


def _give(job: Job, owner: str, rule: Held) -> Given:
    comment = f"handed over by phedex-rucio {job.note.at}, was {rule.account}'s"
    try:
        return handover.give(job.rucio, job.site, rule, owner, comment)
    except NotFound:
        raise UsageError(f"--to: Rucio has no account {owner} any more") from None


def _count(done: Done, owner: str, rule: Held, became: Given) -> None:
    if became is Given.GIVEN:
        done.given[owner] = done.given.get(owner, 0) + 1
    elif became is Given.CONFLICT:
        done.conflicts[rule.id] = f"{rule.name}: {owner} has such a rule already: ours ({rule.id}) stays"
    else:
        done.gone += 1


def _is_over(shares: Shares, done: Done, yes: bool) -> bool:
    return not (shares.stay or done.conflicts or (not yes and shares.moves) or any(shares.moves.values()))


# --- telling it --------------------------------------------------------------------------------------------------


def _show(job: Job, shares: Shares, sizes: dict[str, int], done: Done) -> None:
    rows = [(owner, len(rules), size(_bytes(rules, sizes))) for owner, rules in sorted(shares.moves.items()) if rules]
    if done.given:
        for owner, number in sorted(done.given.items()):
            output.say(f"{job.node}: {count(number, 'rule')} handed over to {owner}")
    elif rows:
        output.show_table(("NEW OWNER", "RULES", "BYTES"), rows)
    for group, rules in sorted(shares.stay.items()):
        said = f"group {group}" if group else "no group"
        output.say(f"stay: {count(len(rules), 'rule')} of {said} ({size(_bytes(rules, sizes))}): no owner in --to")
    if shares.ending:
        output.say(f"left: {count(len(shares.ending), 'rule')} that end: Rucio's cleaner takes them")
    for text in list(done.conflicts.values())[:SHOWN]:
        output.say(text)
    if len(done.conflicts) > SHOWN:
        output.say(f"… and {len(done.conflicts) - SHOWN:,} more (--json lists all)")
    if not (rows or done.given or shares.stay or done.conflicts):
        output.say(f"{job.node}: nothing of ours is left to hand over")


def _show_json(job: Job, shares: Shares, sizes: dict[str, int], why_not: Sequence[str], done: Done) -> None:
    def summed(parts: dict[str, list[Held]]) -> dict[str, Any]:
        return {key: {"rules": len(r), "bytes": _bytes(r, sizes)} for key, r in sorted(parts.items()) if r}

    output.show_json(
        {
            "node": job.node,
            "rse": job.site.rse,
            "to_give": summed(shares.moves),
            "stay": summed(shares.stay),
            "ending": len(shares.ending),
            "given": done.given,
            "gone": done.gone,
            "conflicts": list(done.conflicts.values()),
            "not_now": list(why_not),
        }
    )
