"""Which blocks were to be deleted where, and were they? The call deletions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from datasvc import store
from datasvc.calls.call import Call
from datasvc.conditions import Condition, joined, listed, named
from datasvc.encode import Rows, flag, number
from datasvc.options import Option, Query, Spec
from datasvc.selection import BLOCK, DATASET, NODE, TEXTS, TIME, YES

Row = tuple[Any, ...]

_SELECT = (
    "SELECT d.id, d.name, d.is_open, b.id, b.name, b.files, b.bytes, x.request, n.name, n.se, n.id, x.time_request,"
    " x.time_complete FROM deletion x JOIN block b ON b.id = x.block_id JOIN dataset d ON d.id = b.dataset_id"
    " JOIN node n ON n.id = x.node_id WHERE n.name NOT GLOB 'X*' AND {where} ORDER BY d.id DESC, b.id, n.id, x.request"
)
_NAMED = {"node": "n.name", "se": "n.se", "block": "b.name", "dataset": "d.name"}
_NUMBERED = {"id": "b.id", "request": "x.request"}
_SINCE = {"request_since": "x.time_request", "complete_since": "x.time_complete"}
# As the real service had it: `n` is not the opposite of `y`. What was done and then asked for again is neither.
_COMPLETE = {"y": "x.time_complete >= x.time_request", "n": "x.time_complete IS NULL"}


def _deletions(connection: sqlite3.Connection, query: Query) -> Mapping[str, Any]:
    if not store.has_deletions(connection):
        return {"dataset": []}
    where = joined([condition for condition in _conditions(query) if condition is not None])
    return payload(connection.execute(_SELECT.format(where=where.sql), where.values))


def _conditions(query: Query) -> Iterator[Condition | None]:
    for name, column in _NAMED.items():
        yield named(column, query.all(name), query.ops.get(name, "or"))
    for name, column in _NUMBERED.items():
        if texts := query.all(name):
            yield listed(column, [int(text) for text in texts])
    for name, column in _SINCE.items():
        if (since := query.since(name)) is not None:
            yield Condition(f"{column} >= ?", (since,))
    if (wanted := query.one("complete")) is not None:
        yield Condition(_COMPLETE[wanted])


def payload(rows: Iterable[Row]) -> dict[str, Any]:
    """The reply's rows, of rows in the order of datasets and blocks: the dataset, the block, and one deletion of it."""
    return {"dataset": Rows(_dataset(list(group)) for _, group in groupby(rows, key=lambda row: row[0]))}


def _dataset(rows: list[Row]) -> dict[str, Any]:
    """With the sums of the blocks that are listed, not of all of it."""
    blocks = [_block(list(group)) for _, group in groupby(rows, key=lambda row: row[3])]
    return {
        "id": str(rows[0][0]),
        "name": rows[0][1],
        "is_open": flag(rows[0][2]),
        "files": sum(block["files"] for block in blocks),
        "bytes": sum(block["bytes"] for block in blocks),
        "block": blocks,
    }


def _block(rows: list[Row]) -> dict[str, Any]:
    about, name, files, size = rows[0][3:7]
    return {
        "id": str(about),
        "name": name,
        "files": files,
        "bytes": size,
        "deletion": [_deletion(row[7:]) for row in rows],
    }


def _deletion(row: Row) -> dict[str, Any]:
    request, node, se, node_id, asked, done = row
    return {
        "request": request,
        "node": node,
        "se": se,
        "id": node_id,
        "time_request": f"{asked:.15g}",  # a string, unlike every other time of this call
        "time_complete": number(done),
        "complete": flag(done is not None and done >= asked),
    }


DELETIONS = Call(
    Spec(
        "PHEDEX::Web::API::Deletions::spool",
        {
            "node": NODE,
            "se": TEXTS,
            "block": BLOCK,
            "dataset": DATASET,
            "id": Option("number", many=True),
            "request": Option("number", many=True),
            "request_since": TIME,
            "complete": YES,
            "complete_since": TIME,
        },
    ),
    _deletions,
    3600,
    spooled=True,
)
