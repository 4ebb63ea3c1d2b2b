"""Which block replicas does a query ask for? In order of dataset and block, read as they are written out."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import msgspec

from datasvc.conditions import Condition, is_wild, joined, listed, named
from datasvc.contents import block_of
from datasvc.made import Block
from datasvc.options import Option, Query

FEW = 4  # up to so many nodes the index by node is read; with more, all replicas of a dataset

NODE = Option("node", many=True)
BLOCK = Option("block", many=True)
DATASET = Option("dataset", many=True)
YES = Option("yesno")
TIME = Option("time")
TEXT = Option("text")
TEXTS = Option("text", many=True)

# Options of blockreplicas, blockreplicasummary and filereplicas that choose among block replicas.
REPLICA_OPTIONS = {
    "node": NODE,
    "create_since": TIME,
    "update_since": TIME,
    "complete": YES,
    "dist_complete": Option("any"),
    "subscribed": YES,
    "custodial": YES,
}

_SELECT = (
    "SELECT b.id, b.dataset_id, b.name, b.files, b.bytes, b.is_open, b.time_create, b.time_update, b.made,"
    " n.id, n.name, n.se, r.files, r.bytes, r.subscribed, r.custodial, r.active, g.name, r.time_create, r.time_update"
    " FROM replica r {index} CROSS JOIN block b ON b.id = r.block_id JOIN node n ON n.id = r.node_id"
    " LEFT JOIN user_group g ON g.id = r.group_id WHERE r.dataset_id = ? AND {where} ORDER BY r.block_id, r.node_id"
)
_FULL = (
    "b.is_open = 0 AND EXISTS (SELECT 1 FROM replica x"
    " WHERE x.dataset_id = b.dataset_id AND x.block_id = b.id AND x.files = b.files)"
)


class Replica(msgspec.Struct, frozen=True):
    """What a node has of a block, in files and bytes; times in epoch seconds."""

    node_id: int
    node: str
    se: str | None
    files: int
    bytes: int
    subscribed: bool
    custodial: bool
    active: bool
    group: str | None
    time_create: float
    time_update: float


class Selected(msgspec.Struct, frozen=True):
    """A block and those of its replicas that the query asks for."""

    block: Block
    replicas: list[Replica]


def is_complete(block: Block, replica: Replica) -> bool:
    """A full replica of an open block is not complete (PhEDEx)."""
    return not block.is_open and replica.files == block.files


def selected(connection: sqlite3.Connection, query: Query) -> Iterator[Selected]:
    """The blocks that have a replica the query asks for, by dataset id and block id."""
    nodes = _node_ids(connection, query)
    if nodes == []:
        return
    few = nodes is not None and len(nodes) <= FEW
    condition = joined([c for c in (_nodes(nodes, few), *_of_replica(query), _of_block(query)) if c is not None])
    index = "INDEXED BY replica_at_node" if few else ""
    for dataset, blocks in _candidates(connection, query, nodes if few else None):
        only = [] if blocks is None else [listed("r.block_id", blocks)]
        where = joined([condition, *only])
        rows = connection.execute(_SELECT.format(index=index, where=where.sql), (dataset, *where.values))
        for _, group in groupby(rows, key=lambda row: row[0]):
            found = list(group)
            yield Selected(block_of(found[0]), [_replica(row) for row in found])


def _replica(row: tuple[Any, ...]) -> Replica:
    number, node, se, files, size, subscribed, custodial, active, group, created, updated = row[9:]
    flags = (bool(subscribed), bool(custodial), bool(active))
    return Replica(number, node, se, files, size, *flags, group, created, updated)


def _node_ids(connection: sqlite3.Connection, query: Query) -> list[int] | None:
    """The nodes asked for by `node` and `se`; None if the query names none."""
    op = query.ops
    given = (named("name", query.all("node"), op.get("node", "or")), named("se", query.all("se"), op.get("se", "or")))
    parts = [part for part in given if part is not None]
    if not parts:
        return None
    where = joined(parts)
    rows = connection.execute(f"SELECT id FROM node WHERE {where.sql} ORDER BY id", where.values)  # noqa: S608
    return [row[0] for row in rows]


def _nodes(nodes: list[int] | None, few: bool) -> Condition | None:
    # A plus keeps SQLite from the index by node, which for many nodes would have to sort.
    return None if nodes is None else listed("r.node_id" if few else "+r.node_id", nodes)


def _of_replica(query: Query) -> Iterator[Condition | None]:
    yield named("g.name", query.all("group"))
    for name, column in (("create_since", "r.time_create"), ("update_since", "r.time_update")):
        if (since := query.since(name)) is not None:
            yield Condition(f"{column} >= ?", (since,))
    for name, column in (("subscribed", "r.subscribed"), ("custodial", "r.custodial")):
        if (wanted := query.one(name)) is not None:
            yield Condition(f"{column} = ?", (wanted == "y",))
    yield _yes_or_no(query.one("complete"), "b.is_open = 0 AND r.files = b.files")
    yield _yes_or_no(query.one("dist_complete"), _FULL)


def _yes_or_no(wanted: str | None, sql: str) -> Condition | None:
    """Only y and n choose: other values of `dist_complete` are ignored, as in the real service."""
    return {"y": Condition(f"({sql})"), "n": Condition(f"NOT ({sql})")}.get(wanted or "")


def _of_block(query: Query) -> Condition | None:
    """Names with wildcards are matched row by row; exact ones were looked up before."""
    texts = query.all("block")
    return named("b.name", texts, query.ops.get("block", "or")) if _needs_matching(texts) else None


def _needs_matching(texts: list[str]) -> bool:
    return any(is_wild(text) or text.startswith("!") for text in texts)


def _candidates(
    connection: sqlite3.Connection, query: Query, nodes: list[int] | None
) -> Iterator[tuple[int, list[int] | None]]:
    """Dataset ids in order, each with the ids of the exact blocks asked for, or None for all."""
    texts = query.all("block")
    if texts and not _needs_matching(texts) and query.ops.get("block") != "and":
        yield from _exact_blocks(connection, texts, datasets_asked(connection, query))
        return
    wanted = datasets_asked(connection, query)
    for ids in (_with_block(connection, query), _at_nodes(connection, nodes)):
        wanted = ids if wanted is None else (wanted if ids is None else wanted & ids)
    if wanted is None:
        wanted = _ids(connection, "SELECT id FROM dataset", ())
    yield from ((dataset, None) for dataset in sorted(wanted))


def datasets_asked(connection: sqlite3.Connection, query: Query) -> set[int] | None:
    """The ids of the datasets that `dataset` names; None if it was not given."""
    where = named("name", query.all("dataset"), query.ops.get("dataset", "or"))
    return None if where is None else _ids(connection, f"SELECT id FROM dataset WHERE {where.sql}", where.values)  # noqa: S608


def _exact_blocks(
    connection: sqlite3.Connection, names: list[str], datasets: set[int] | None
) -> Iterator[tuple[int, list[int]]]:
    where = listed("name", names)
    rows = connection.execute(f"SELECT dataset_id, id FROM block WHERE {where.sql} ORDER BY 1, 2", where.values)  # noqa: S608
    for dataset, group in groupby(rows.fetchall(), key=lambda row: row[0]):
        if datasets is None or dataset in datasets:
            yield dataset, [row[1] for row in group]


def _with_block(connection: sqlite3.Connection, query: Query) -> set[int] | None:
    where = named("name", query.all("block"), query.ops.get("block", "or"))
    if where is None or set(query.all("block")) & {"*", "%"}:
        return None
    return _ids(connection, f"SELECT DISTINCT dataset_id FROM block WHERE {where.sql}", where.values)  # noqa: S608


def _at_nodes(connection: sqlite3.Connection, nodes: list[int] | None) -> set[int] | None:
    if nodes is None:
        return None
    where = listed("node_id", nodes)
    return _ids(connection, f"SELECT DISTINCT dataset_id FROM replica WHERE {where.sql}", where.values)  # noqa: S608


def _ids(connection: sqlite3.Connection, statement: str, values: tuple[object, ...]) -> set[int]:
    return {row[0] for row in connection.execute(statement, values)}
