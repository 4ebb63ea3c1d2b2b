"""Which files are in a block, and which of them are at a node?"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

from datasvc import made
from datasvc.made import Block, File

_BY_NAME = (
    "SELECT id, dataset_id, name, files, bytes, is_open, time_create, time_update, made FROM block WHERE name = ?"
)
_BY_ID = "SELECT id, dataset_id, name, files, bytes, is_open, time_create, time_update, made FROM block WHERE id = ?"


def block_of(row: tuple[Any, ...]) -> Block:
    """A row that begins with the columns of table `block` in their order, as a block."""
    number, dataset, name, files, size, is_open, created, updated, is_made = row[:9]
    return Block(number, dataset, name, files, size, bool(is_open), created, updated, bool(is_made))


def block_named(connection: sqlite3.Connection, name: str) -> Block | None:
    """The block of that exact name, or None."""
    row = connection.execute(_BY_NAME, (name,)).fetchone()
    return None if row is None else block_of(row)


def block_numbered(connection: sqlite3.Connection, number: int) -> Block | None:
    """The block of that id, or None."""
    row = connection.execute(_BY_ID, (number,)).fetchone()
    return None if row is None else block_of(row)


def dataset_name(connection: sqlite3.Connection, number: int) -> str:
    """The name of a dataset that is known to exist."""
    return str(connection.execute("SELECT name FROM dataset WHERE id = ?", (number,)).fetchone()[0])


def files_of(connection: sqlite3.Connection, block: Block) -> Iterator[File]:
    """The files of a block in order of their ids, stored or made."""
    if block.made:
        yield from made.files(block, dataset_name(connection, block.dataset_id))
        return
    for row in connection.execute(
        "SELECT id, name, bytes, checksum, time_create, node_id, made FROM file WHERE block_id = ? ORDER BY id",
        (block.id,),
    ):
        number, name, size, checksum, created, node, is_made = row
        yield File(number, name, size, checksum, created, node, bool(is_made))


def absent_of(connection: sqlite3.Connection, block: int) -> dict[int, set[int]]:
    """By node id: the ids of the block's files that the node's replica lacks. Complete replicas are left out."""
    absent: dict[int, set[int]] = {}
    for node, file in connection.execute("SELECT node_id, file_id FROM absent WHERE block_id = ?", (block,)):
        absent.setdefault(node, set()).add(file)
    return absent


def block_with_file(connection: sqlite3.Connection, lfn: str) -> Block | None:
    """The block that a file belongs to, or None: the name is not known."""
    row = connection.execute("SELECT block_id FROM file WHERE name = ?", (lfn,)).fetchone()
    if row is not None:
        return block_numbered(connection, row[0])
    number = made.block_id(lfn)
    block = None if number is None else block_numbered(connection, number)
    if block is None or not block.made:
        return None
    return block if any(file.name == lfn for file in files_of(connection, block)) else None


def store_files(connection: sqlite3.Connection, block: Block) -> Block:
    """The block with its made files written down, so that they can change one by one; they stay marked as made."""
    if not block.made:
        return block
    connection.executemany(
        "INSERT INTO file VALUES (?, ?, ?, ?, ?, ?, ?, 1)",
        [(f.id, block.id, f.name, f.bytes, f.checksum, f.time_create, f.node_id) for f in files_of(connection, block)],
    )
    connection.execute("UPDATE block SET made = 0 WHERE id = ?", (block.id,))
    stored = block_numbered(connection, block.id)
    assert stored is not None
    return stored


def recount(connection: sqlite3.Connection, block: int, now: float) -> None:
    """The block's and its replicas' counts and bytes are those of the files that are stored and not absent."""
    connection.execute(
        "UPDATE block SET time_update = ?2, (files, bytes) ="
        " (SELECT count(*), coalesce(sum(bytes), 0) FROM file WHERE block_id = ?1) WHERE id = ?1",
        (block, now),
    )
    dataset = connection.execute("SELECT dataset_id FROM block WHERE id = ?", (block,)).fetchone()[0]
    connection.execute(
        "UPDATE replica SET time_update = ?2, (files, bytes) ="
        " (SELECT count(*), coalesce(sum(f.bytes), 0) FROM file f WHERE f.block_id = ?1 AND NOT EXISTS"
        "  (SELECT 1 FROM absent a WHERE a.block_id = ?1 AND a.node_id = replica.node_id AND a.file_id = f.id))"
        " WHERE dataset_id = ?3 AND block_id = ?1",
        (block, now, dataset),
    )
