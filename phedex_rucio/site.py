"""How does a person stop the sync at a site, let it go on, see every site's switch, and hand a site over?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click
import msgspec
from msgspec import Struct

from common.errors import NotOurs, UsageError
from common.messages.meta import now
from common.outcome import Exit
from common.rucio import switch as switches
from common.rucio.rses import Switch, attributes_of, find_site, real_rses
from common.rucio.session import Rucio
from common.rucio.switch import Note, State
from common.settings.load import Loaded
from common.settings.model import Settings, Site
from phedex_rucio import output, site_handover, wiring
from phedex_rucio.options import as_json, with_settings
from phedex_rucio.roots import sender

CHANGED = {
    Switch.FROZEN: "batches that wait are skipped; one at work ends what it began (at most `deadline`)",
    Switch.ADDS_ONLY: "nothing is removed any more; a batch at work ends what it began (at most `deadline`)",
    Switch.ON: "the next cycle adds and removes again",
}


class Turned(Struct, frozen=True):
    """One node, what its switch said before, and whether anything was (dry: would be) written."""

    node: str
    before: State
    now: Switch
    changed: bool


class Order(Struct, frozen=True):
    """What a person wants of the switches: the new position, the note, and how."""

    switch: Switch
    note: Note
    dry: bool = False
    force: bool = False


def _turning(wrapped: Callable[..., int]) -> Callable[..., int]:
    """The options of every command that turns the switch."""

    @click.argument("nodes", nargs=-1, required=True, metavar="NODE...")
    @click.option("--reason", required=True, help="Why: kept in Rucio beside the switch.")
    @click.option("--dry-run", "dry", is_flag=True, help="Show what would be turned; write nothing.")
    @as_json
    @with_settings
    def command(nodes: Sequence[str], **others: Any) -> int:
        return wrapped(nodes=list(dict.fromkeys(nodes)), **others)

    command.__name__, command.__doc__ = wrapped.__name__, wrapped.__doc__
    return command


_force = click.option("--force", is_flag=True, help="Also a site that was handed over: it is synced again.")


@click.group("site")
def command() -> None:
    """A site's switch (on, adds-only or frozen; it lies in Rucio and outlives every restart), and its hand-over."""


@command.command("freeze")
@_turning
def freeze(nodes: Sequence[str], reason: str, **how: Any) -> int:
    """Stop the sync at NODEs: nothing is added or removed. Commands that wait are skipped; nothing is deleted."""
    return _turn(nodes, Switch.FROZEN, reason, **how)


@command.command("adds-only")
@_force
@_turning
def adds_only(nodes: Sequence[str], reason: str, **how: Any) -> int:
    """Let the sync add and correct at NODEs, and remove nothing."""
    return _turn(nodes, Switch.ADDS_ONLY, reason, **how)


@command.command("resume")
@_force
@_turning
def resume(nodes: Sequence[str], reason: str, **how: Any) -> int:
    """Let the sync work at NODEs again, removals too."""
    return _turn(nodes, Switch.ON, reason, **how)


command.add_command(site_handover.command)


def _turn(
    nodes: Sequence[str], switch: Switch, reason: str, *, dry: bool, as_json: bool, loaded: Loaded, force: bool = False
) -> int:
    """Every node in turn; one that cannot be turned is told and does not stop the others."""
    if not reason.strip():
        raise UsageError("--reason: say why: it is kept beside the switch")
    order = Order(switch, Note(f"{now():%Y-%m-%dT%H:%M:%SZ}", sender(), reason.strip()), dry, force)
    switches.note_text(order.note)
    rucio = wiring.Doors(loaded.settings).rucio
    done: list[Turned] = []
    failed: dict[str, str] = {}
    for node in nodes:
        try:
            done.append(_one(rucio, node, loaded.settings.site(node), order))
        except (NotOurs, UsageError) as error:
            failed[node] = str(error)
    _report(done, failed, order, as_json)
    return Exit.FAILED if failed else Exit.DONE


def _one(rucio: Rucio, node: str, policy: Site, order: Order) -> Turned:
    before = switches.read_state(rucio, rse_of(rucio, node, policy))
    if before.handed_over and order.switch is not Switch.FROZEN and not order.force:
        raise NotOurs(
            f"{node}: handed over to {before.handed_over}: --force would sync it again, and add a rule of ours for "
            f"every block there, beside those that were handed over"
        )
    same = before.switch is order.switch and not (before.unreadable or before.handed_over)
    if before.handed_over and order.switch is Switch.FROZEN:
        same = True
    if not (same or order.dry):
        switches.turn(rucio, before.rse, order.switch, order.note)
        if before.handed_over:
            switches.take_back(rucio, before.rse)
    return Turned(node, before, order.switch, not same)


def rse_of(rucio: Rucio, node: str, policy: Site) -> str:
    """The RSE whose attributes are the node's switch. Raises NotOurs where there is none."""
    site = find_site(rucio, node, policy)
    if site is None:
        raise NotOurs(f"{node}: no RSE with the attributes cms_type=real and pnn={node}: nothing to switch")
    return site.rse


def _report(done: Sequence[Turned], failed: dict[str, str], order: Order, as_json: bool) -> None:
    if as_json:
        nodes = {one.node: {"changed": one.changed, "was": one.before.switch, "now": one.now} for one in done}
        output.show_json({"dry": order.dry, "nodes": nodes, "failed": failed})
    else:
        for one in done:
            output.say(_line(one, order))
        if order.dry:
            output.say("dry: nothing was written")
        elif any(one.changed for one in done):
            output.note(f"From now on {CHANGED[order.switch]}.")
    for text in failed.values():
        output.note(f"{output.NAME}: {text}")


def _line(one: Turned, order: Order) -> str:
    before = one.before
    if not one.changed:
        return f"{one.node}: is {before.switch} already{_since(before)}"
    was = f"{before.switch} ({before.unreadable!r}, unreadable)" if before.unreadable else str(before.switch)
    again = f"; was handed over to {before.handed_over}: rules of ours are added beside those" * bool(
        before.handed_over
    )
    return f"{one.node}: was {was}, {'would be' if order.dry else 'is'} {one.now}{again}"


def _since(state: State) -> str:
    note = state.note
    words = f" since {note.at}" * bool(note.at) + f" by {note.by}" * bool(note.by) + f": {note.why}" * bool(note.why)
    return words + f" (handed over to {state.handed_over})" * bool(state.handed_over)


# --- list --------------------------------------------------------------------------------------------------------


@command.command("list")
@click.argument("nodes", nargs=-1, metavar="[NODE]...")
@as_json
@with_settings
def show(nodes: Sequence[str], *, as_json: bool, loaded: Loaded) -> int:
    """Every node with an RSE (or the NODEs): its switch, since when, by whom and why, and to whom it was handed over.

    Exit code 1 where a named node has none.
    """
    rucio = wiring.Doors(loaded.settings).rucio
    failed: list[str] = []
    found = list(_named(rucio, nodes, loaded.settings, failed) if nodes else _all(rucio, loaded.settings))
    if as_json:
        output.show_json([_as_data(node, state, loaded.settings) for node, state in found])
    else:
        header = ("NODE", "RSE", "SWITCH", "SINCE", "BY", "WHY", "SETTINGS", "HANDED OVER TO")
        output.show_table(header, [_row(node, state, loaded.settings) for node, state in found])
    for text in failed:
        output.note(f"{output.NAME}: {text}")
    return Exit.FAILED if failed else Exit.DONE


def _named(rucio: Rucio, nodes: Sequence[str], settings: Settings, failed: list[str]) -> Iterator[tuple[str, State]]:
    for node in dict.fromkeys(nodes):
        try:
            yield node, switches.read_state(rucio, rse_of(rucio, node, settings.site(node)))
        except (NotOurs, UsageError) as error:
            failed.append(str(error))


def _all(rucio: Rucio, settings: Settings) -> Iterator[tuple[str, State]]:
    """By the attribute `pnn` of each RSE, and by the settings where these name one. One request an RSE."""
    named = {policy.rse: node for node, policy in settings.sites.items() if policy.rse}
    found = []
    for rse in sorted({*real_rses(rucio), *named}):
        attributes = attributes_of(rucio, rse)
        if attributes is not None:
            found.append((named.get(rse) or str(attributes.get("pnn", "-")), switches.state_of(rse, attributes)))
    yield from sorted(found, key=lambda pair: (pair[0], pair[1].rse))


def _row(node: str, state: State, settings: Settings) -> tuple[str, ...]:
    note = state.note
    switch = f"{state.switch} ({state.unreadable!r})" if state.unreadable else str(state.switch)
    said = (switch, note.at, note.by, note.why, _policy(settings.site(node)), state.handed_over)
    return (node, state.rse, *said)


def _policy(policy: Site) -> str:
    """What of a site's settings limits the sync there, whatever the switch says."""
    limits = {"run: False": not policy.run, "dry": policy.dry, "adds_only": policy.adds_only}
    return ", ".join(word for word, holds in limits.items() if holds)


def _as_data(node: str, state: State, settings: Settings) -> dict[str, Any]:
    policy = settings.site(node)
    limits = {"run": policy.run, "dry": policy.dry, "adds_only": policy.adds_only}
    return {"node": node, **msgspec.to_builtins(state), "settings": limits}
