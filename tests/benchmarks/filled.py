"""How does a Rucio come to hold a large site? One block is synced; its rows, copied, are those of all the others."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from uuid import UUID, uuid5

import psycopg

from datasvc.made import Block
from datasvc.made import files as files_of
from tests.stack.rucio_server import DATABASE, RucioServer

NAMESPACE = UUID(int=1)
_WHOLE = """SELECT b.id, b.dataset_id, b.name, b.files, b.bytes, b.is_open, b.time_create, b.time_update, d.name, g.name
    FROM replica r JOIN node n ON n.id = r.node_id JOIN block b ON b.id = r.block_id
    JOIN dataset d ON d.id = b.dataset_id LEFT JOIN user_group g ON g.id = r.group_id
    WHERE n.name = ? AND b.is_open = 0 AND b.files > 0 AND r.files = b.files AND NOT r.custodial ORDER BY b.id"""
_LISTS = """
    CREATE TEMP TABLE boxes (name text);
    CREATE TEMP TABLE blocks (name text, box text, id uuid, files int, team text);
    CREATE TEMP TABLE parts (name text, block text, id uuid, bytes bigint, adler text)"""

# Table → (which row of the template is copied, for which list, what is different in the copy).
_FILE = {"name": "n.name", "bytes": "n.bytes", "adler32": "n.adler"}
_RULE = {"id": "n.id", "name": "n.name", "locks_ok_cnt": "n.files", "meta": "replace(t.meta, %(team)s, n.team)"}
_COPIES: list[tuple[str, str, str, Mapping[str, str]]] = [
    ("dids", "t.name = %(box)s", "boxes", {"name": "n.name"}),
    ("dids", "t.name = %(block)s", "blocks", {"name": "n.name"}),
    ("dids", "t.name = %(file)s", "parts", _FILE),
    ("contents", "t.child_name = %(block)s", "blocks", {"name": "n.box", "child_name": "n.name"}),
    ("contents", "t.child_name = %(file)s", "parts", _FILE | {"name": "n.block", "child_name": "n.name"}),
    ("replicas", "t.name = %(file)s", "parts", _FILE),
    ("rules", "t.name = %(block)s", "blocks", _RULE),
    ("locks", "t.name = %(file)s", "parts", {"name": "n.name", "rule_id": "n.id", "bytes": "n.bytes"}),
    ("dataset_locks", "t.name = %(block)s", "blocks", {"name": "n.name", "rule_id": "n.id"}),
    ("collection_replicas", "t.name = %(block)s", "blocks", {"name": "n.name"}),
]


def whole_blocks(snapshot: Path, node: str) -> Iterator[tuple[Block, str, str]]:
    """The closed blocks that a generated snapshot has complete at a node, with dataset and group."""
    connection = sqlite3.connect(snapshot)
    for *block, dataset, group in connection.execute(_WHOLE, (node,)):
        yield Block(*block, made=True), dataset, group or ""
    connection.close()


def fill(rucio: RucioServer, snapshot: Path, node: str, template: str) -> int:
    """Rucio has all these blocks as it has the template, which was synced before and is one of them; how many.

    Every row is the template's with other names, ids, sizes, and the group in the rule's meta. What Rucio keeps for
    its daemons (counters, messages, changed DIDs) is left out, as if they had run.
    """
    connection = psycopg.connect(host=str(rucio.postgres.folder), user="rucio", dbname=DATABASE)
    with connection, connection.cursor() as cursor:
        cursor.execute(_LISTS)
        like, number = _list(cursor, snapshot, node, template)
        for table, which, of, changes in _COPIES:
            _copy(cursor, table, which, of, changes, like)
        cursor.execute("COMMIT; ANALYZE")
    return number


def _list(cursor: psycopg.Cursor, snapshot: Path, node: str, template: str) -> tuple[dict[str, str], int]:
    """The lists have what is to be made; the names in the template, and how many blocks there are with it."""
    boxes: dict[str, None] = {}
    blocks, parts = [], []
    like: dict[str, str] = {}
    for block, box, group in whole_blocks(snapshot, node):
        files = list(files_of(block, box))
        if block.name == template:
            like = {"block": block.name, "box": box, "file": files[0].name, "team": group}
            continue
        ident = uuid5(NAMESPACE, block.name)
        boxes[box] = None
        blocks.append((block.name, box, ident, len(files), group))
        parts += [(f.name, block.name, ident, f.bytes, (f.checksum or "")[8:16]) for f in files]
    del boxes[like["box"]]
    for table, rows in (("boxes", [(box,) for box in boxes]), ("blocks", blocks), ("parts", parts)):
        with cursor.copy(f"COPY {table} FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
    return like, len(blocks) + 1


def _copy(
    cursor: psycopg.Cursor, table: str, which: str, of: str, changes: Mapping[str, str], like: Mapping[str, str]
) -> None:
    cursor.execute(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'public' AND table_name = %s", (table,)
    )
    columns = [name for (name,) in cursor.fetchall()]
    values = ", ".join(changes.get(name, f"t.{name}") for name in columns)
    statement = f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {table} t, {of} n WHERE {which}"
    cursor.execute(statement, like)
