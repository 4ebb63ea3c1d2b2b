"""Which data does PhEDEx know at all, wherever it is? The call data."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

import msgspec

from datasvc import store
from datasvc.calls.call import DAY, Call
from datasvc.calls.filereplicas import name_filter
from datasvc.conditions import Condition, is_wild, joined, listed, named
from datasvc.contents import block_of, block_with_file, files_of
from datasvc.encode import Rows, flag, number
from datasvc.made import Block, File
from datasvc.options import Option, Query, Spec
from datasvc.selection import BLOCK, DATASET, datasets_asked

_BLOCKS = (
    "SELECT id, dataset_id, name, files, bytes, is_open, time_create, time_update, made FROM block"
    " WHERE dataset_id = ? AND {where} ORDER BY id"
)


class _Wanted(msgspec.Struct, frozen=True):
    """What is looked for: blocks by condition, files by a test; `files` is false for level=block."""

    blocks: Condition
    file: Callable[[str], Any] | None
    since: float
    files: bool


def _data(connection: sqlite3.Connection, query: Query) -> Mapping[str, Any]:
    datasets = _datasets(connection, query)
    first = next(datasets, None)
    if first is None:
        return {"dbs": []}
    created = connection.execute("SELECT min(time_create) FROM dataset").fetchone()[0]
    dbs = {"name": store.meta(connection)["dbs"], "time_create": number(created)}
    return {"dbs": Rows([{**dbs, "dataset": Rows(chain([first], datasets))}])}


def _datasets(connection: sqlite3.Connection, query: Query) -> Iterator[dict[str, Any]]:
    """Datasets that have what is wanted; each is whole in the iterator, its blocks are read while written."""
    wanted = _wanted(connection, query)
    nodes = dict(connection.execute("SELECT id, name FROM node").fetchall())
    for dataset in sorted(_candidates(connection, query, wanted)):
        blocks = _blocks(connection, dataset, wanted, nodes)
        first = next(blocks, None)
        if first is not None:
            yield {**_dataset(connection, dataset), "block": Rows(chain([first], blocks))}


def _wanted(connection: sqlite3.Connection, query: Query) -> _Wanted:
    level_file = query.one("level") != "block"
    since = _since(query)
    parts = [named("name", query.all("block"), query.ops.get("block", "or"))]
    lfns = query.all("file")
    if lfns and not any(is_wild(lfn) for lfn in lfns):
        blocks = {block.id for lfn in lfns if (block := block_with_file(connection, lfn)) is not None}
        parts.append(listed("id", sorted(blocks)))
    if not level_file:
        parts.append(Condition("time_create >= ?", (since,)))
    return _Wanted(joined([part for part in parts if part is not None]), name_filter(lfns), since, level_file)


def _since(query: Query) -> float:
    """The last day, unless something is named without wildcards or `create_since` is given (its form unchecked)."""
    given = query.since("create_since")
    if given is not None:
        return given
    names = [*query.all("dataset"), *query.all("block"), *query.all("file")]
    exact = any(not is_wild(name) and not name.startswith("!") for name in names)
    return 0.0 if exact or query.one("create_since") else query.now - DAY


def _candidates(connection: sqlite3.Connection, query: Query, wanted: _Wanted) -> set[int]:
    where = wanted.blocks
    with_block = {
        row[0]
        for row in connection.execute(f"SELECT DISTINCT dataset_id FROM block WHERE {where.sql}", where.values)  # noqa: S608
    }
    datasets = datasets_asked(connection, query)
    return with_block if datasets is None else with_block & datasets


def _dataset(connection: sqlite3.Connection, dataset: int) -> dict[str, Any]:
    name, is_open, transient, created, updated = connection.execute(
        "SELECT name, is_open, is_transient, time_create, time_update FROM dataset WHERE id = ?", (dataset,)
    ).fetchone()
    return {
        "name": name,
        "is_open": flag(is_open),
        "is_transient": flag(transient),
        "time_create": number(created),
        "time_update": number(updated),
    }


def _blocks(
    connection: sqlite3.Connection, dataset: int, wanted: _Wanted, nodes: dict[int, str]
) -> Iterator[dict[str, Any]]:
    where = wanted.blocks
    for row in connection.execute(_BLOCKS.format(where=where.sql), (dataset, *where.values)):
        block = block_of(row)
        files = (f for f in files_of(connection, block) if _is_wanted(f, wanted))
        if not wanted.files:
            if wanted.file is None or next(files, None) is not None:
                yield _block(block)
        elif found := [_file(file, nodes) for file in files]:
            yield {**_block(block), "file": found}


def _is_wanted(file: File, wanted: _Wanted) -> bool:
    old = wanted.files and file.time_create < wanted.since
    return not old and (wanted.file is None or bool(wanted.file(file.name)))


def _block(block: Block) -> dict[str, Any]:
    return {
        "name": block.name,
        "files": block.files,
        "bytes": block.bytes,
        "is_open": flag(block.is_open),
        "time_create": number(block.time_create),
        "time_update": number(block.time_update),
    }


def _file(file: File, nodes: dict[int, str]) -> dict[str, Any]:
    return {
        "lfn": file.name,
        "size": file.bytes,
        "checksum": file.checksum,
        "time_create": number(file.time_create),
        "node": None if file.node_id is None else nodes.get(file.node_id),
    }


DATA = Call(
    Spec(
        "PHEDEX::Web::API::Data::data",
        {
            "dataset": DATASET,
            "block": BLOCK,
            "file": Option("lfn", many=True),
            "level": Option("level"),
            "create_since": Option("any"),
        },
    ),
    _data,
    300,
)
