"""Which blocks are where? The calls blockreplicas and blockreplicasummary."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from datasvc.calls.call import DAY, Call
from datasvc.encode import Rows, flag, number
from datasvc.options import Query, Spec
from datasvc.selection import BLOCK, DATASET, REPLICA_OPTIONS, TEXT, TEXTS, YES, Selected, is_complete, selected

BATCH = 1000  # rows that the real service read at a time, whole datasets with show_dataset
_OPTIONS = {**REPLICA_OPTIONS, "block": BLOCK, "dataset": DATASET, "se": TEXTS}


def _blockreplicas(connection: sqlite3.Connection, query: Query) -> Mapping[str, Any]:
    found = selected(connection, _windowed(query))
    if query.one("show_dataset") == "y":
        return {"dataset": Rows(_datasets(connection, found))}
    return {"block": Rows(_block(item) for item in found)}


def _summary(connection: sqlite3.Connection, query: Query) -> Mapping[str, Any]:
    return {"block": Rows(_brief(item) for item in selected(connection, _windowed(query)))}


def _windowed(query: Query) -> Query:
    """Without block, dataset, node or create_since only replicas made in the last day are asked for."""
    if any(query.all(name) for name in ("block", "dataset", "node", "create_since")):
        return query
    return Query({**query.values, "create_since": [str(int(query.now) - DAY)]}, query.ops, query.now)


def _block(item: Selected) -> dict[str, Any]:
    block = item.block
    return {
        "id": str(block.id),
        "name": block.name,
        "files": block.files,
        "bytes": block.bytes,
        "is_open": flag(block.is_open),
        "replica": [
            {
                "node": replica.node,
                "node_id": str(replica.node_id),
                "se": replica.se,
                "files": replica.files,
                "bytes": replica.bytes,
                "time_create": number(replica.time_create),
                "time_update": number(replica.time_update),
                "complete": flag(is_complete(block, replica)),
                "subscribed": flag(replica.subscribed),
                "custodial": flag(replica.custodial),
                "group": replica.group,
            }
            for replica in item.replicas
        ],
    }


def _brief(item: Selected) -> dict[str, Any]:
    replicas = [{"node": r.node, "complete": flag(is_complete(item.block, r))} for r in item.replicas]
    return {"name": item.block.name, "replica": replicas}


def _datasets(connection: sqlite3.Connection, found: Iterable[Selected]) -> Iterator[dict[str, Any]]:
    """Datasets with their blocks; `bytes` and `files` only in batches of two or more, the real service's bug."""
    batch: list[dict[str, Any]] = []
    rows = 0
    for dataset, group in groupby(found, key=lambda item: item.block.dataset_id):
        items = list(group)
        batch.append(_dataset(connection, dataset, items))
        rows += sum(len(item.replicas) for item in items)
        if rows >= BATCH:
            yield from _with_sums(batch)
            batch, rows = [], 0
    yield from _with_sums(batch)


def _dataset(connection: sqlite3.Connection, dataset: int, items: list[Selected]) -> dict[str, Any]:
    name, is_open = connection.execute("SELECT name, is_open FROM dataset WHERE id = ?", (dataset,)).fetchone()
    return {"id": str(dataset), "name": name, "is_open": flag(is_open), "block": [_block(item) for item in items]}


def _with_sums(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if len(batch) < 2:
        return batch
    return [{**d, "bytes": _sum(d, "bytes"), "files": _sum(d, "files")} for d in batch]


def _sum(dataset: dict[str, Any], key: str) -> int:
    return sum(block[key] for block in dataset["block"])


BLOCKREPLICAS = Call(
    Spec("PHEDEX::Web::API::BlockReplicas::spool", {**_OPTIONS, "group": TEXT, "show_dataset": YES}),
    _blockreplicas,
    300,
    spooled=True,
)
SUMMARY = Call(Spec("PHEDEX::Web::API::BlockReplicaSummary::spool", _OPTIONS), _summary, 300, spooled=True)
