"""What is meant to be where? The call subscriptions.

A block's subscriptions are its replicas with `subscribed`; whole datasets have rows of their own, which are listed also
where nothing of the dataset has come yet. Requests are not in a snapshot (null), priority is `normal`, and nothing
moves or is suspended.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from itertools import chain, groupby
from typing import Any

import msgspec

from datasvc.calls.call import DAY, Call
from datasvc.conditions import Condition, joined, named
from datasvc.encode import Rows, flag, number
from datasvc.options import Option, Query, Spec
from datasvc.selection import BLOCK, DATASET, NODE, TEXTS, TIME, YES, Replica, Selected, selected

_CONSTANT = {"priority": "normal", "move": "n", "suspended": "n"}
_EXPECTED = (
    "SELECT d.id, n.id, n.name, n.se, d.time_create FROM dataset_subscription s JOIN dataset d ON d.id = s.dataset_id"
    " JOIN node n ON n.id = s.node_id WHERE {where} AND NOT EXISTS (SELECT 1 FROM replica r"
    " WHERE r.node_id = s.node_id AND r.dataset_id = s.dataset_id AND r.subscribed)"
)
_EXPECTED_NAMED = {"node": "n.name", "se": "n.se", "dataset": "d.name"}


class _Whole(msgspec.Struct, frozen=True):
    """A dataset: what it is, and what is there of it at the nodes that it is subscribed to as a whole."""

    id: int
    name: str
    is_open: bool
    files: int
    bytes: int
    at: dict[int, tuple[Replica, ...]]


def _subscriptions(connection: sqlite3.Connection, query: Query) -> Mapping[str, Any]:
    if any(set(query.all(name)) - {value} for name, value in _CONSTANT.items()) or query.all("request"):
        return {"dataset": []}
    return {"dataset": Rows(_datasets(connection, _narrowed(connection, query)))}


def _narrowed(connection: sqlite3.Connection, query: Query) -> Query:
    """Subscribed replicas only; of the last day unless dataset, block or create_since is given; ids become names."""
    values = {**query.values, "subscribed": ["y"]}
    if not any(query.all(name) for name in ("dataset", "block", "create_since")):
        values["create_since"] = [str(int(query.now) - DAY)]
    if query.all("node"):
        names = dict(connection.execute("SELECT CAST(id AS TEXT), name FROM node").fetchall())
        values["node"] = [names.get(text, text) for text in query.all("node")]
    return Query(values, query.ops, query.now)


def _datasets(connection: sqlite3.Connection, query: Query) -> Iterator[dict[str, Any]]:
    expected = _expected(connection, query)
    for dataset, group in groupby(selected(connection, query), key=lambda item: item.block.dataset_id):
        yield from _listed(connection, query, dataset, list(group), expected.pop(dataset, []))
    for dataset, replicas in sorted(expected.items()):
        yield from _listed(connection, query, dataset, [], replicas)


def _listed(
    connection: sqlite3.Connection, query: Query, dataset: int, items: list[Selected], expected: list[Replica]
) -> Iterator[dict[str, Any]]:
    whole = _whole(connection, dataset, [*chain.from_iterable(item.replicas for item in items), *expected])
    levels = {**_dataset_level(whole, query), **_block_level(items, whole, query)}
    if levels:
        yield {**_about(whole, levels), **levels}


def _expected(connection: sqlite3.Connection, query: Query) -> dict[int, list[Replica]]:
    """Of each dataset an empty replica at each node that it is subscribed to and has no block of it yet.

    None where the question is about blocks, or about what such a subscription has not: a group, custodial.
    """
    if query.all("block") or query.all("group") or query.one("custodial") == "y":
        return {}
    found: dict[int, list[Replica]] = {}
    parts = [named(column, query.all(name), query.ops.get(name, "or")) for name, column in _EXPECTED_NAMED.items()]
    where = joined([*(part for part in parts if part is not None), *_since(query)])
    for dataset, node_id, node, se, created in connection.execute(_EXPECTED.format(where=where.sql), where.values):
        empty = Replica(node_id, node, se, 0, 0, True, False, False, None, created, created)
        found.setdefault(dataset, []).append(empty)
    return found


def _since(query: Query) -> list[Condition]:
    since = query.since("create_since")
    return [] if since is None else [Condition("d.time_create >= ?", (since,))]


def _about(whole: _Whole, levels: Mapping[str, Any]) -> dict[str, Any]:
    is_open = flag(whole.is_open) if "subscription" in levels else levels["block"][0]["is_open"]
    about = {"id": str(whole.id), "name": whole.name, "files": whole.files, "bytes": whole.bytes}
    return {**about, "is_open": is_open}


def _whole(connection: sqlite3.Connection, dataset: int, replicas: list[Replica]) -> _Whole:
    name, is_open = connection.execute("SELECT name, is_open FROM dataset WHERE id = ?", (dataset,)).fetchone()
    files, size = connection.execute(
        "SELECT coalesce(sum(files), 0), coalesce(sum(bytes), 0) FROM block WHERE dataset_id = ?", (dataset,)
    ).fetchone()
    nodes = {row[0] for row in connection.execute(
        "SELECT node_id FROM dataset_subscription WHERE dataset_id = ?", (dataset,))}  # fmt: skip
    at = {node: tuple(r for r in replicas if r.node_id == node) for node in sorted(nodes)}
    return _Whole(dataset, name, bool(is_open), files, size, {node: there for node, there in at.items() if there})


def _dataset_level(whole: _Whole, query: Query) -> dict[str, Any]:
    """The subscriptions of the whole dataset; with collapse=n their blocks are listed as well."""
    if query.one("collapse") == "n" and query.all("block"):
        return {}
    found = [_subscription("DATASET", _summed(there), whole.files, whole.bytes) for there in whole.at.values()]
    kept = [record for record in found if _in_band(record, query)]
    return {"subscription": kept} if kept else {}


def _summed(replicas: tuple[Replica, ...]) -> Replica:
    return msgspec.structs.replace(
        replicas[0],
        files=sum(replica.files for replica in replicas),
        bytes=sum(replica.bytes for replica in replicas),
        time_create=min(replica.time_create for replica in replicas),
        time_update=max(replica.time_update for replica in replicas),
    )


def _block_level(items: list[Selected], whole: _Whole, query: Query) -> dict[str, Any]:
    found = [record for item in items if (record := _block(item, whole, query)) is not None]
    return {"block": found} if found else {}


def _block(item: Selected, whole: _Whole, query: Query) -> dict[str, Any] | None:
    """A block's record; `dataset` alone asks for subscriptions of datasets, and their blocks with collapse=n."""
    alone = bool(query.all("dataset")) and not query.all("block")
    levels = [(r, "DATASET" if r.node_id in whole.at else "BLOCK") for r in item.replicas]
    kept = [
        record
        for replica, level in levels
        if (query.one("collapse") == "n" if level == "DATASET" else not alone)
        and _in_band(record := _subscription(level, replica, item.block.files, item.block.bytes), query)
    ]
    if not kept:
        return None
    block = item.block
    about = {"id": str(block.id), "name": block.name, "files": block.files, "bytes": block.bytes}
    return {**about, "is_open": flag(block.is_open), "subscription": kept}


def _subscription(level: str, replica: Replica, files: int, size: int) -> dict[str, Any]:
    there = replica.files > 0
    return {
        "level": level,
        "node": replica.node,
        "node_id": str(replica.node_id),
        "node_files": replica.files if there else None,
        "node_bytes": replica.bytes if there else None,
        "request": None,
        **_CONSTANT,
        "custodial": flag(replica.custodial),
        "group": replica.group,
        "suspend_until": None,
        "time_create": number(replica.time_create),
        "time_update": number(replica.time_update),
        "time_start": None,
        "percent_files": _percent(replica.files, files) if there else None,
        "percent_bytes": _percent(replica.bytes, size) if there else None,
    }


def _percent(part: int, whole: int) -> float | int | None:
    return number(100.0 * part / whole) if whole else number(100.0)


def _in_band(record: Mapping[str, Any], query: Query) -> bool:
    """percent_min to percent_max; a minimum above the maximum selects what is outside of the two."""
    low, high = (query.one(name) for name in ("percent_min", "percent_max"))
    percent = record["percent_files"] or 0
    above, below = low is None or percent >= float(low), high is None or percent <= float(high)
    if low is not None and high is not None and float(low) > float(high):
        return above or below
    return above and below


SUBSCRIPTIONS = Call(
    Spec(
        "PHEDEX::Web::API::Subscriptions::subscriptions",
        {
            "dataset": DATASET,
            "block": BLOCK,
            "node": NODE,
            "se": TEXTS,
            "group": TEXTS,
            "request": Option("number", many=True),
            "priority": Option("priority", many=True),
            "custodial": YES,
            "move": YES,
            "suspended": YES,
            "create_since": TIME,
            "percent_min": Option("float"),
            "percent_max": Option("float"),
            "collapse": YES,
        },
    ),
    _subscriptions,
    300,
)
