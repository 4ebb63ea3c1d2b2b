"""Which files has a block whose file list was not recorded? Derived from the block alone, the same every time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import blake2b

import msgspec

ID_STRIDE = 1_000_000  # file ids of one block: block id x stride + position
_NAME = re.compile(r"-([0-9A-F]{5})([0-9A-F]{7})\.root\Z")
_SIMULATED = re.compile(r"SIM|GEN|LHE")


class File(msgspec.Struct, frozen=True):
    """A file of a block: size in bytes, checksum as PhEDEx writes it, time in epoch seconds."""

    id: int
    name: str
    bytes: int
    checksum: str | None
    time_create: float
    node_id: int | None = None
    made: bool = False


class Block(msgspec.Struct, frozen=True):
    """A block as the snapshot has it."""

    id: int
    dataset_id: int
    name: str
    files: int
    bytes: int
    is_open: bool
    time_create: float
    time_update: float | None
    made: bool


def files(block: Block, dataset: str) -> Iterator[File]:
    """The block's `files` files, in order: their sizes add up to its bytes exactly, nothing is random.

    The last 12 digits of a name hold position and block id, so that `block_id` finds the block again.
    """
    digests = [blake2b(f"{block.name}|{n}".encode(), digest_size=20).digest() for n in range(block.files)]
    weights = [800 + int.from_bytes(d[:2], "big") % 400 for d in digests]
    whole, used = sum(weights), 0
    folder = _folder(block, dataset)
    for position, digest in enumerate(digests):
        share = block.bytes * weights[position] // whole
        size = block.bytes - used if position == block.files - 1 else share
        used += size
        name = f"{folder}/{position // 1000:05d}/{_stem(digest, position, block.id)}.root"
        yield File(_id(block, position), name, size, _checksum(digest), block.time_create, None, True)


def block_id(lfn: str) -> int | None:
    """The block that a made name would belong to, or None; whether it does must be looked up."""
    found = _NAME.search(lfn)
    return None if found is None else int(found.group(2), 16)


def _id(block: Block, position: int) -> int:
    return block.id * ID_STRIDE + position


def _stem(digest: bytes, position: int, block: int) -> str:
    random = digest[8:16].hex().upper()
    return f"{random[:8]}-{random[8:12]}-{random[12:16]}-{digest[16:18].hex().upper()}-{position:05X}{block:07X}"


def _checksum(digest: bytes) -> str:
    return f"adler32:{digest[:4].hex()},cksum:{int.from_bytes(digest[4:8], 'big')}"


def _folder(block: Block, dataset: str) -> str:
    """Where CMS would put it: data by run number in threes, simulation by a counter, users below their name."""
    primary, *middle, tier = dataset.strip("/").split("/")
    processed = middle[0] if middle else "Unnamed-v1"
    era, _, version = processed.partition("-")
    if tier == "USER":
        return f"/store/user/{era.lower()}/{primary}/{version or 'v1'}"
    if _SIMULATED.search(tier):
        return f"/store/mc/{era}/{primary}/{tier}/{version or 'v1'}"
    run = f"{block.id:09d}"
    return f"/store/data/{era}/{primary}/{tier}/{version or 'v1'}/{run[:3]}/{run[3:6]}/{run[6:]}"
