"""Bring Rucio to PhEDEx's state for some blocks at one node: what is there is added; nothing is taken away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec.structs import replace

from common.errors import FileConflict, PhedexRucioError, RucioConflict, RucioError, Verdict
from common.messages.commands import Command, SyncBlocks
from common.outcome import Outcome
from common.rucio.errors import is_about_all
from common.rucio.rses import Site, Switch, find_site
from common.settings import model
from common.sync.catalogue import BlockAtNode
from consumers.apply.additions import Sides, bring
from consumers.apply.batch import Batch, Fate
from consumers.engine.result import Failed, Result, Stop
from consumers.engine.world import World

CHUNK_FILES = 2_000
ROUNDS = 6  # a race has a winner each time, so two that meet at every step are through in as many rounds as steps
MAX_NOTES = 20


def handle(command: SyncBlocks, world: World) -> Result:
    """What PhEDEx has complete at the node is in Rucio, each block with its rule; the rest is left alone.

    Raises what both sides raise where it is about all of the blocks, and Stop where nothing was done yet.
    """
    asked = world.phedex.requests, world.rucio.requests
    policy = world.settings.site(command.node)
    if not policy.run:
        return Result(Outcome.SKIPPED, notes=[f"{command.node}: `run: False` in its settings"])
    site = find_site(world.rucio, command.node, policy)
    if site is None:
        return Result(Outcome.SKIPPED, notes=[f"{command.node}: no RSE with cms_type=real and pnn={command.node}"])
    if site.switch is Switch.FROZEN:
        return Result(
            Outcome.SKIPPED, notes=[f"{command.node}: the switch at {site.rse} says frozen (or is unreadable)"]
        )
    batch = _batch(command, world, site, policy)
    left = _work(batch, world)
    _raise_if_all_failed(batch)
    spent = {
        "phedex_requests": world.phedex.requests - asked[0],
        "rucio_requests": world.rucio.requests - asked[1],
    }
    return _result(command, batch, left, spent)


def _batch(command: SyncBlocks, world: World, site: Site, policy: model.Site) -> Batch:
    node = policy.inventory_node or command.node
    found = world.phedex.blocks_at(node, command.blocks)
    batch = Batch(
        node=node,
        site=site,
        blocks={name: found[name] for name in sorted(set(command.blocks)) if name in found and found[name].complete},
        deep=command.deep,
        dry=command.dry or policy.dry,
    )
    for name in set(command.blocks) - batch.blocks.keys():
        batch.end(name, Fate.NOT_AT_NODE)
    for name, block in batch.blocks.items():
        if not block.files:
            batch.end(name, Fate.EMPTY, f"{name}: closed and without files: nothing to sync")
    return batch


def _work(batch: Batch, world: World) -> list[str]:
    """All chunks done but for those that a stop left over: these are returned; Stop itself where nothing was done."""
    names = batch.open(list(batch.blocks))
    for number, chunk in enumerate(_chunks(names, batch.blocks)):
        try:
            world.checkpoint()
        except Stop:
            if number == 0:
                raise
            return batch.open(names)
        _divided(Sides(world.phedex, world.rucio), batch, chunk)
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


def _divided(sides: Sides, batch: Batch, names: list[str]) -> None:
    """The blocks are done but for those that fail by themselves, found by halving; each has its error in the batch."""
    try:
        _settled(sides, batch, names)
    except RucioError as error:
        if is_about_all(error) or _is_away(sides, error):
            raise
        left = batch.open(names)
        if len(left) > 1:
            _divided(sides, batch, left[: len(left) // 2])
            _divided(sides, batch, left[len(left) // 2 :])
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
    names = {"added": batch.named(Fate.ADDED), "held": batch.named(Fate.WITHHELD)}
    return Result(
        _outcome(batch),
        counts=batch.counts() | spent,
        names={key: value for key, value in names.items() if value},
        notes=_notes(batch),
        follow=list(_follow(command, batch.failed, left)),
    )


def _outcome(batch: Batch) -> Outcome:
    if batch.named(Fate.WITHHELD):
        return Outcome.HELD
    if batch.written:
        return Outcome.CHANGED
    return Outcome.SKIPPED if batch.named(Fate.WOULD_ADD, Fate.WOULD_UPDATE) else Outcome.IN_SYNC


def _notes(batch: Batch) -> list[str]:
    notes = [note for _, note in sorted(batch.notes.items())]
    more = [f"… and {len(notes) - MAX_NOTES} more"] if len(notes) > MAX_NOTES else []
    dry = ["dry: nothing was written"] if batch.dry else []
    return dry + notes[:MAX_NOTES] + more


def _follow(command: SyncBlocks, failed: Mapping[str, PhedexRucioError], left: list[str]) -> Iterator[Command | Failed]:
    if left:
        yield replace(command, blocks=left)
    for name, error in sorted(failed.items()):
        yield Failed(replace(command, blocks=[name]), error)
