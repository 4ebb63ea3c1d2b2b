"""Bring Rucio to PhEDEx's state for some blocks at one node: what is there is added, what a plan permits is removed."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import partial

from msgspec.structs import replace

from common.errors import FileConflict, RucioConflict, RucioError, Verdict
from common.messages.commands import Command, SyncBlocks
from common.messages.meta import now
from common.outcome import Outcome
from common.rucio.errors import is_about_all
from common.rucio.rses import Site, Switch, find_site
from common.settings import model
from common.settings.run import is_on
from common.sync.catalogue import BlockAtNode
from common.sync.selection import selection
from consumers.apply import unlisted_files, unruled
from consumers.apply.additions import bring
from consumers.apply.batch import Batch, Fate
from consumers.apply.remove import remove
from consumers.apply.sides import Sides, Sites, with_rse
from consumers.apply.task import Task, is_permitted
from consumers.engine.result import Failed, Result, Stop
from consumers.engine.world import World

CHUNK_FILES = 2_000
ROUNDS = 6  # a race has a winner each time, so two that meet at every step are through in as many rounds as steps
MAX_NOTES = 20
WOULD = (Fate.WOULD_ADD, Fate.WOULD_UPDATE, Fate.WOULD_MARK, Fate.WOULD_SWEEP)


def handle(command: SyncBlocks, world: World) -> Result:
    """What PhEDEx has complete at the node is in Rucio, each block with its rule; what it has not is marked or swept.

    Removed is only what a plan's permission, the policy, the site's switch and this command's own reading all agree on.

    Raises what both sides raise where it is about all of the blocks, and Stop where nothing was done yet.
    """
    asked = world.phedex.requests, world.rucio.requests
    policy = world.settings.site(command.node)
    if not is_on(policy.run, now()):
        return Result(Outcome.SKIPPED, notes=[f"{command.node}: `run` is off in its settings"])
    site = find_site(world.rucio, command.node, policy)
    if site is None:
        return Result(Outcome.SKIPPED, notes=[f"{command.node}: no RSE with cms_type=real and pnn={command.node}"])
    if site.switch is Switch.FROZEN:
        return Result(
            Outcome.SKIPPED, notes=[f"{command.node}: the switch at {site.rse} says frozen (or is unreadable)"]
        )
    with with_rse(site):
        batch = _batch(command, world, site, policy)
        sides = Sides(world.phedex, world.rucio, Sites(world.rucio, world.settings))
        left = _work(batch, world, sides) or _remove(command, batch, world, sides)
        if not left and not batch.dry:
            _rule_late(batch, sides)
    _raise_if_all_failed(batch)
    spent = {
        "phedex_requests": world.phedex.requests - asked[0],
        "rucio_requests": world.rucio.requests - asked[1],
    }
    return _result(command, batch, left, spent)


def _batch(command: SyncBlocks, world: World, site: Site, policy: model.Site) -> Batch:
    node = site.listed_at
    chosen = selection("*", [policy.select], [policy.ignore])
    wanted = sorted(filter(chosen, set(command.blocks)))
    found = world.phedex.blocks_at(node, wanted) if wanted else {}
    batch = Batch(
        node=node,
        site=site,
        blocks={name: found[name] for name in wanted if name in found and found[name].complete},
        partial={name: block for name, block in found.items() if not block.complete},
        deep=command.deep,
        dry=command.dry or policy.dry,
    )
    is_for_blocks = not command.deep and _is_permitted(command, site, policy, command.removable_until)
    may_remove = [name for name in wanted if name not in batch.blocks] if is_for_blocks else []
    for name in set(wanted) - batch.blocks.keys() - set(may_remove):
        batch.end(name, Fate.NOT_AT_NODE)
    for name in set(command.blocks).difference(wanted):
        batch.end(name, Fate.LEFT_OUT)  # by settings that may be newer than the plan
    for name, block in batch.blocks.items():
        if not block.files:
            batch.end(name, Fate.EMPTY, f"{name}: closed and without files: nothing to sync")
    return batch


def _is_permitted(command: SyncBlocks, site: Site, policy: model.Site, until: datetime | None) -> bool:
    """True where a plan permits a removal until then, and no command, policy or switch forbids it."""
    forbidden = command.adds_only or policy.adds_only or site.switch is not Switch.ON
    return is_permitted(until) and not forbidden


def _remove(command: SyncBlocks, batch: Batch, world: World, sides: Sides) -> list[str]:
    """The removals are done, or left over where a stop came before them."""
    names = batch.open(sorted(set(command.blocks)))
    if not names and not batch.strangers:
        return []
    try:
        world.checkpoint()
    except Stop:
        if not batch.fates:
            raise
        return names
    policy = world.settings.site(command.node)
    task = Task(sides, policy, batch, command, who=_who(), checkpoint=world.checkpoint)
    try:
        if names:
            _divided(partial(_removed, task), sides, batch, names)
    except Stop:
        if not batch.fates:
            raise
        return batch.open(names)
    if batch.strangers and not batch.dry and _is_permitted(command, batch.site, policy, command.files_until):
        _again(batch, sides, unlisted_files.leave(task))
    return []


def _who() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _again(batch: Batch, sides: Sides, names: list[str]) -> None:
    """Blocks whose strangers are gone have their rule now: without one nothing would lead to their replicas."""
    freed = [name for name in names if batch.fates[name] is Fate.WITHHELD]
    for name in freed:
        del batch.fates[name]
    _divided(partial(_settled, sides, batch), sides, batch, freed)


def _removed(task: Task, names: list[str]) -> None:
    for rest in reversed(range(ROUNDS)):
        try:
            return remove(task, names)
        except RucioConflict as error:
            if not rest or is_about_all(error):
                raise
    return None


def _rule_late(batch: Batch, sides: Sides) -> None:
    """Blocks that are not at the node, and are there for Rucio without a rule, have one."""
    names = batch.named(Fate.NOT_AT_NODE)
    for name in names:
        del batch.fates[name]
    _divided(partial(unruled.give_rules, sides.rucio, batch), sides, batch, names)
    for name in batch.open(names):
        batch.end(name, Fate.NOT_AT_NODE)


def _work(batch: Batch, world: World, sides: Sides) -> list[str]:
    """All chunks done but for those that a stop left over: these are returned; Stop itself where nothing was done."""
    names = batch.open(list(batch.blocks))
    for number, chunk in enumerate(_chunks(names, batch.blocks)):
        try:
            world.checkpoint()
        except Stop:
            if number == 0:
                raise
            return batch.open(names)
        _divided(partial(_settled, sides, batch), sides, batch, chunk)
    return []


def _chunks(names: list[str], blocks: Mapping[str, BlockAtNode]) -> Iterator[list[str]]:
    """The names in order, so many at a time that their files are a few seconds' work; a larger block comes alone."""
    chunk: list[str] = []
    files = 0
    for name in names:
        if chunk and files + blocks[name].files > CHUNK_FILES:
            yield chunk
            chunk, files = [], 0
        chunk.append(name)
        files += blocks[name].files
    if chunk:
        yield chunk


def _divided(work: Callable[[list[str]], None], sides: Sides, batch: Batch, names: list[str]) -> None:
    """The blocks are done but for those that fail by themselves, found by halving; each has its error in the batch."""
    try:
        work(names)
    except RucioError as error:
        if is_about_all(error) or _is_away(sides, error):
            raise
        left = batch.open(names)
        if len(left) > 1:
            _divided(work, sides, batch, left[: len(left) // 2])
            _divided(work, sides, batch, left[len(left) // 2 :])
        elif isinstance(error, FileConflict):
            batch.end(left[0], Fate.CONFLICT, f"{left[0]}: conflict, left as it is: {error}")
        else:
            batch.failed[left[0]] = error


def _is_away(sides: Sides, error: RucioError) -> bool:
    """True where Rucio cannot even say who we are: without its database it answers every call with a 500."""
    if error.verdict is not Verdict.ASK:
        return False
    try:
        sides.rucio.probe()
    except RucioError:
        return True
    return False


def _settled(sides: Sides, batch: Batch, names: list[str]) -> None:
    """After a lost race all is read again and what still lacks is done, at once and not for ever."""
    for rest in reversed(range(ROUNDS)):
        try:
            return bring(sides, batch, names, thorough=rest < ROUNDS - 1 and len(batch.open(names)) == 1)
        except FileConflict:
            raise
        except RucioConflict as error:
            if not rest or is_about_all(error):
                raise
    return None


def _raise_if_all_failed(batch: Batch) -> None:
    """Where every block failed in the same way, the command failed, not its blocks."""
    errors = list(batch.failed.values())
    if errors and not batch.fates and len({type(error) for error in errors}) == 1:
        raise errors[0]


def _result(command: SyncBlocks, batch: Batch, left: list[str], spent: dict[str, int]) -> Result:
    return Result(
        _outcome(batch),
        counts=batch.counts() | spent,
        names=batch.told(),
        notes=_notes(batch),
        follow=list(_follow(command, batch, left)),
    )


def _outcome(batch: Batch) -> Outcome:
    if batch.named(Fate.WITHHELD, Fate.LOCKED) or batch.found_held or batch.hit:
        return Outcome.HELD
    if batch.written:
        return Outcome.CHANGED
    return Outcome.SKIPPED if batch.named(*WOULD) else Outcome.IN_SYNC


def _notes(batch: Batch) -> list[str]:
    notes = [note for _, note in sorted(batch.notes.items())]
    more = [f"… and {len(notes) - MAX_NOTES} more"] if len(notes) > MAX_NOTES else []
    dry = ["dry: nothing was written"] if batch.dry else []
    return dry + notes[:MAX_NOTES] + more


def _follow(command: SyncBlocks, batch: Batch, left: list[str]) -> Iterator[Command | Failed]:
    """What a stop left, what failed by itself, and what another node should have in Rucio before it goes from here."""
    if left:
        yield replace(command, blocks=left)
    for name, error in sorted(batch.failed.items()):
        yield Failed(replace(command, blocks=[name]), error)
    for node, names in sorted(batch.wanted_at.items()):
        yield SyncBlocks(node=node, blocks=sorted(names), adds_only=True)
