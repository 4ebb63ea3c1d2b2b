"""What can happen to blocks while the service runs? One function a kind of change, and `apply` for a random walk."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from random import Random
from uuid import UUID

import msgspec

from common.errors import UsageError
from datasvc.build import Snapshot


class Kind(StrEnum):
    """The kinds of change."""

    NEW = "new"  # an open block is injected, with its first replica
    COME = "come"  # a node gets a block whole
    GO = "go"  # a node has a block no more
    MOVE = "move"  # a block goes from one node to another
    GROW = "grow"  # an open block gets files
    CLOSE = "close"  # an open block is closed, and never opened again
    SHRINK = "shrink"  # a file is taken out of its block everywhere
    INCOMPLETE = "incomplete"  # a node loses a file of a block
    COMPLETE = "complete"  # a node gets the files that it lacked
    UNKNOWN = "unknown"  # PhEDEx does not know the block any more


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was done: to which block, at which node, and the file or other node concerned."""

    kind: Kind
    block: str
    node: str | None = None
    detail: str | None = None


def new(snapshot: Snapshot, block: str, node: str, files: int = 1, group: str = "DataOps") -> Change:
    """The block is there, open, with `files` made files, all at the node."""
    with snapshot.transaction():
        snapshot.add_made_block(block, files, files * 2_500_000_000, is_open=True)
        snapshot.add_replica(block, node, group=group, active=True)
    return Change(Kind.NEW, block, node)


def come(snapshot: Snapshot, block: str, node: str, group: str = "DataOps") -> Change:
    """The node has the whole block, subscribed."""
    snapshot.add_replica(block, node, group=group, custodial=node.endswith("_MSS"))
    return Change(Kind.COME, block, node)


def go(snapshot: Snapshot, block: str, node: str) -> Change:
    """The node has nothing of the block, and its deletion is on record; PhEDEx still knows the block."""
    snapshot.remove_replica(block, node)
    return Change(Kind.GO, block, node)


def move(snapshot: Snapshot, block: str, source: str, sink: str) -> Change:
    """The block is whole at `sink` and deleted at `source`, in one step."""
    with snapshot.transaction():
        snapshot.remove_replica(block, source)
        come(snapshot, block, sink)
    return Change(Kind.MOVE, block, source, sink)


def grow(snapshot: Snapshot, block: str, lfn: str, size: int = 2_500_000_000) -> Change:
    """The block has one more file, at every node that has the block."""
    snapshot.add_file(block, lfn, size, f"{hash_of(lfn):08x}")
    return Change(Kind.GROW, block, None, lfn)


def close(snapshot: Snapshot, block: str) -> Change:
    """The block is closed."""
    snapshot.set_open(block, False)
    return Change(Kind.CLOSE, block)


def shrink(snapshot: Snapshot, block: str, lfn: str) -> Change:
    """The file is in no block and at no node any more."""
    snapshot.remove_file(lfn)
    return Change(Kind.SHRINK, block, None, lfn)


def incomplete(snapshot: Snapshot, block: str, node: str, lfn: str) -> Change:
    """The node lacks that file of the block."""
    with snapshot.transaction():
        present = set(snapshot.files_at(block, node)) - {lfn}
        snapshot.set_replica_files(block, node, present)
    return Change(Kind.INCOMPLETE, block, node, lfn)


def complete(snapshot: Snapshot, block: str, node: str) -> Change:
    """The node has every file of the block."""
    with snapshot.transaction():
        snapshot.set_replica_files(block, node, [file.name for file in snapshot.files(block)])
    return Change(Kind.COMPLETE, block, node)


def unknown(snapshot: Snapshot, block: str) -> Change:
    """PhEDEx does not know the block, its files, replicas and deletions any more."""
    snapshot.remove_block(block)
    return Change(Kind.UNKNOWN, block)


def apply(path: Path, seed: int, steps: int = 1, now: float | None = None) -> list[Change]:
    """`steps` random changes, each visible at once and as a whole; the same for the same snapshot and seed.

    Raises UsageError for a snapshot without nodes or blocks.
    """
    random = Random(seed)  # noqa: S311 -- repeatable on purpose
    done: list[Change] = []
    with Snapshot(path, now=now) as snapshot:
        while len(done) < steps:
            kind = random.choice(list(Kind))
            with snapshot.transaction():
                change = _STEPS[kind](snapshot, random) or _new(snapshot, random)
            done.append(change)
    return done


def hash_of(text: str) -> int:
    """32 bits that follow from the text alone."""
    return Random(text).getrandbits(32)  # noqa: S311 -- repeatable on purpose


def _new(snapshot: Snapshot, random: Random) -> Change:
    row = _near(snapshot, random, "dataset", "name GLOB '/*/*/*'")
    dataset = row[1] if row else f"/New{random.randrange(1000)}/Run2018A-v1/RAW"
    return new(snapshot, f"{dataset}#{_uuid(random)}", _node(snapshot, random), random.randint(1, 5))


def _come(snapshot: Snapshot, random: Random) -> Change | None:
    block, node = _block(snapshot, random), _node(snapshot, random)
    return None if block is None or node in snapshot.nodes_of(block) else come(snapshot, block, node)


def _go(snapshot: Snapshot, random: Random) -> Change | None:
    held = _held(snapshot, random)
    return go(snapshot, *held) if held else None


def _move(snapshot: Snapshot, random: Random) -> Change | None:
    held, sink = _held(snapshot, random), _node(snapshot, random)
    return None if held is None or sink in snapshot.nodes_of(held[0]) else move(snapshot, *held, sink)


def _grow(snapshot: Snapshot, random: Random) -> Change | None:
    block = _block(snapshot, random, "is_open = 1")
    return grow(snapshot, block, f"/store/data/Grown/{_uuid(random).upper()}.root") if block else None


def _close(snapshot: Snapshot, random: Random) -> Change | None:
    block = _block(snapshot, random, "is_open = 1")
    return close(snapshot, block) if block else None


def _shrink(snapshot: Snapshot, random: Random) -> Change | None:
    block = _block(snapshot, random, "files > 1")
    return shrink(snapshot, block, random.choice(snapshot.files(block)).name) if block else None


def _incomplete(snapshot: Snapshot, random: Random) -> Change | None:
    held = _held(snapshot, random)
    there = sorted(snapshot.files_at(*held)) if held else []
    return incomplete(snapshot, *held, random.choice(there)) if held and there else None


def _complete(snapshot: Snapshot, _: Random) -> Change | None:
    row = snapshot.connection.execute(
        "SELECT b.name, n.name FROM absent a JOIN block b ON b.id = a.block_id JOIN node n ON n.id = a.node_id LIMIT 1"
    ).fetchone()
    return complete(snapshot, row[0], row[1]) if row else None


def _unknown(snapshot: Snapshot, random: Random) -> Change | None:
    block = _block(snapshot, random)
    return unknown(snapshot, block) if block else None


_STEPS: dict[Kind, Callable[[Snapshot, Random], Change | None]] = {
    Kind.NEW: _new,
    Kind.COME: _come,
    Kind.GO: _go,
    Kind.MOVE: _move,
    Kind.GROW: _grow,
    Kind.CLOSE: _close,
    Kind.SHRINK: _shrink,
    Kind.INCOMPLETE: _incomplete,
    Kind.COMPLETE: _complete,
    Kind.UNKNOWN: _unknown,
}


def _near(snapshot: Snapshot, random: Random, table: str, condition: str = "1") -> tuple[int, str] | None:
    """A row of the table, by a random id: the first that fits from there on, else the first of all."""
    last = snapshot.connection.execute(f"SELECT coalesce(max(id), 0) FROM {table}").fetchone()[0]  # noqa: S608
    for start in (random.randint(0, last), 0):
        row: tuple[int, str] | None = snapshot.connection.execute(
            f"SELECT id, name FROM {table} WHERE id >= ? AND {condition} ORDER BY id LIMIT 1",  # noqa: S608
            (start,),
        ).fetchone()
        if row is not None:
            return row
    return None


def _block(snapshot: Snapshot, random: Random, condition: str = "1") -> str | None:
    row = _near(snapshot, random, "block", condition)
    return row and row[1]


def _node(snapshot: Snapshot, random: Random) -> str:
    row = _near(snapshot, random, "node", "name NOT GLOB 'X*'")
    if row is None:
        raise UsageError(f"snapshot {snapshot.path} has no node in use: add one first")
    return row[1]


def _held(snapshot: Snapshot, random: Random) -> tuple[str, str] | None:
    """A block and a node that has it."""
    block = _block(snapshot, random)
    nodes = snapshot.nodes_of(block) if block else []
    return (block, random.choice(nodes)) if block and nodes else None


def _uuid(random: Random) -> str:
    return str(UUID(int=random.getrandbits(128), version=4))
