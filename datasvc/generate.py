"""How is a large snapshot made that looks like CMS's, the same for the same seed?"""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from random import Random
from typing import NamedTuple
from uuid import UUID

import msgspec

from datasvc import invented
from datasvc.build import Snapshot, fresh, kind_of
from datasvc.made import ID_STRIDE, Block
from datasvc.made import files as files_of
from datasvc.recording import RECORDED, add_catalogues, add_invented

REPLICAS = 2.5  # replicas a block: 10 000 for 3710 blocks in the recorded sample of 2016
BATCH = 10_000  # blocks written at once
_EPOCH = 1_500_000_000
_BLOCKS_OF_DATASET = 120  # largest
_PRIMARIES = "Atoz BTag Charm DoubleMuon EGamma Fwd Gluino HLT Interf JetHT Kaon LogMonitor MET NoBPTX Omega"
_MORE = "Parked QCD RelVal SingleMuon TTJets Upsilon VBF WJets XToZH YToHH ZMM"
_ERAS = ("Run2015D", "Run2016H", "Run2017B", "Run2018A", "Summer12", "Fall17", "Autumn18")
_TIERS = ("RAW", "AOD", "AODSIM", "MINIAOD", "MINIAODSIM", "NANOAOD", "GEN-SIM", "RECO", "ALCARECO", "DQMIO")


class Size(msgspec.Struct, frozen=True):
    """How much is generated: nodes, blocks, and the means of files and replicas a block."""

    nodes: int
    blocks: int
    files: int = 10
    replicas: float = REPLICAS


class _Block(NamedTuple):
    id: int
    dataset_id: int
    name: str
    files: int
    bytes: int
    is_open: bool
    time_create: float
    time_update: float


class _Replica(NamedTuple):
    dataset_id: int
    block_id: int
    node_id: int
    files: int
    bytes: int
    subscribed: bool
    custodial: bool
    group_id: int | None
    time_create: float
    time_update: float


class _Batch(msgspec.Struct, frozen=True):
    """Rows to be written together; `absent` as block, node and file id."""

    blocks: list[_Block]
    replicas: list[_Replica]
    absent: list[tuple[int, int, int]]


class _Sites(msgspec.Struct, frozen=True):
    """Where blocks may lie, by node id (disks with weights, tapes as MSS and Buffer), and for which groups."""

    disks: list[int]
    weights: list[float]
    tapes: list[tuple[int, int]]
    groups: list[int]


def generate(output: Path, size: Size, seed: int) -> int:
    """A new snapshot of that size; the number of its block replicas is returned. Raises UsageError.

    Nodes have real names as far as there are any. Files are not stored: they follow from their block. About 2 % of
    the blocks are open, 2 % of the replicas incomplete and 1 % still empty; tapes go with their buffers.
    """
    random = Random(seed)  # noqa: S311 -- repeatable on purpose
    names = node_names(size.nodes)
    with fresh(output, now=float(_EPOCH)) as snapshot:
        snapshot.connection.execute("INSERT INTO meta VALUES ('made_from', ?)", (f"generated, seed {seed}, {size}",))
        for number, name in enumerate(names, 1):
            snapshot.add_node(name, number=number)
        add_catalogues(snapshot, names, RECORDED / "tfc")
        add_invented(snapshot, names)
        groups = [snapshot.add_group(name) for name in ("AnalysisOps", "DataOps", "FacOps", "RelVal", "local")]
        return _fill(snapshot, size, random, _sites(names, groups))


def node_names(count: int) -> list[str]:
    """`count` node names: the recorded ones in use first, then invented ones of at most 20 characters.

    Few nodes are mixed too: a disk, a buffer and its tape, a disk, the next buffer and tape, and so on.
    """
    with (RECORDED / "tables" / "nodes_2016.csv").open() as lines:
        real = [row["name"] for row in csv.DictReader(lines) if not invented.is_retired(row["name"])]
    mixed = _mixed(real)
    return [*mixed[:count], *(f"T3_XX_Site{number:06d}" for number in range(1, count - len(mixed) + 1))]


def _mixed(nodes: list[str]) -> list[str]:
    disks = [node for node in nodes if kind_of(node) == "Disk"]
    tapes = [node for node in nodes if kind_of(node) != "Disk"]  # a buffer and its tape are neighbours
    tapes.sort(key=lambda node: (node[:2] == "T0", invented.site_of(node), kind_of(node)))
    parts = [(disks[n], *tapes[2 * n : 2 * n + 2]) for n in range(len(tapes) // 2)]
    return [*chain.from_iterable(parts), *disks[len(parts) :]]


def _sites(names: list[str], groups: list[int]) -> _Sites:
    numbers = {name: number for number, name in enumerate(names, 1)}
    disks = [number for name, number in numbers.items() if kind_of(name) == "Disk"]
    tapes = [
        (number, numbers[buffer])
        for name, number in numbers.items()
        if kind_of(name) == "MSS"
        for buffer in (name.replace("_MSS", "_Buffer"), name.replace("_MSS", "_Export"))
        if buffer in numbers
    ]
    return _Sites(disks, [1 / (rank + 3) for rank in range(len(disks))], tapes, groups)


def _fill(snapshot: Snapshot, size: Size, random: Random, sites: _Sites) -> int:
    total = 0
    batch = _Batch([], [], [])
    for dataset, block in _blocks(snapshot, size, random):
        batch.blocks.append(block)
        placed = list(_replicas(dataset, block, size, random, sites))
        batch.replicas.extend(placed)
        batch.absent.extend(
            (block.id, r.node_id, block.id * ID_STRIDE + n) for r in placed for n in range(r.files, block.files)
        )
        if len(batch.blocks) >= BATCH:
            total += _write(snapshot.connection, batch)
    return total + _write(snapshot.connection, batch)


def _write(connection: sqlite3.Connection, batch: _Batch) -> int:
    connection.executemany("INSERT INTO block VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1)", batch.blocks)
    connection.executemany("INSERT INTO replica VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?)", batch.replicas)
    connection.executemany("INSERT INTO absent VALUES (?, ?, ?)", batch.absent)
    written = len(batch.replicas)
    for rows in (batch.blocks, batch.replicas, batch.absent):
        rows.clear()
    return written


def _blocks(snapshot: Snapshot, size: Size, random: Random) -> Iterator[tuple[str, _Block]]:
    """Blocks with the names of their datasets, of 1 to 120 blocks each."""
    made = 0
    number = 0
    while made < size.blocks:
        number += 1
        name = _dataset_name(random, number)
        dataset = snapshot.add_dataset(name, is_open=random.random() < 0.3)
        for _ in range(min(random.randint(1, _BLOCKS_OF_DATASET), size.blocks - made)):
            made += 1
            yield name, _block(random, made, dataset, name, size.files)


def _dataset_name(random: Random, number: int) -> str:
    primary = random.choice((_PRIMARIES + " " + _MORE).split())
    era, tier = random.choice(_ERAS), random.choice(_TIERS)
    return f"/{primary}_{number}/{era}-PromptReco-v{random.randint(1, 4)}/{tier}"


def _block(random: Random, number: int, dataset: int, name: str, mean: int) -> _Block:
    files = random.randint(1, 2 * mean - 1)
    created = round(_EPOCH + number + random.random(), 5)
    size = files * random.randint(1_500_000_000, 3_500_000_000)
    suffix = UUID(int=random.getrandbits(128), version=4)
    return _Block(number, dataset, f"{name}#{suffix}", files, size, random.random() < 0.02, created, created + 3600)


def _replicas(dataset: str, block: _Block, size: Size, random: Random, sites: _Sites) -> Iterator[_Replica]:
    """Where a block lies: for two in five on a tape and its buffer, and on some disks."""
    group = random.choice(sites.groups)
    count = max(1, int(size.replicas + random.random() * 2 - 0.5))
    if sites.tapes and count > 1 and random.random() < 0.4:
        tape, buffer = random.choice(sites.tapes)
        count -= 2
        yield _replica(dataset, block, tape, random, subscribed=True, custodial=True, group=group)
        yield _replica(dataset, block, buffer, random, subscribed=False, custodial=False, group=None)
    for node in sorted(set(random.choices(sites.disks, sites.weights, k=count))):
        yield _replica(dataset, block, node, random, subscribed=True, custodial=False, group=group)


def _replica(
    dataset: str, block: _Block, node: int, random: Random, *, subscribed: bool, custodial: bool, group: int | None
) -> _Replica:
    draw = random.random()
    files, there = block.files, block.bytes
    if draw < 0.01 and subscribed:
        files, there = 0, 0
    elif draw < 0.03:
        files = random.randrange(block.files)
        whole = Block(*block, made=True)
        there = sum(file.bytes for file in islice(files_of(whole, dataset), files))
    return _Replica(
        *(block.dataset_id, block.id, node, files, there, subscribed, custodial, group),
        *(block.time_create, block.time_update),
    )
