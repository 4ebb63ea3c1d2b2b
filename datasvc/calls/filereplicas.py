"""Which files are where? The call filereplicas."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any

import re2

from datasvc.calls.call import Call
from datasvc.conditions import is_wild
from datasvc.contents import absent_of, block_with_file, files_of
from datasvc.encode import Rows, flag, number
from datasvc.made import File
from datasvc.options import Option, Query, Spec
from datasvc.selection import BLOCK, REPLICA_OPTIONS, TEXT, Replica, Selected, selected

_OPTIONS = {
    **REPLICA_OPTIONS,
    "block": BLOCK,
    "dataset": Option("dataset"),
    "lfn": Option("lfn", many=True),
    "se": TEXT,
    "group": TEXT,
}


def _filereplicas(connection: sqlite3.Connection, query: Query) -> Mapping[str, Any]:
    return {"block": Rows(_blocks(connection, query))}


def _blocks(connection: sqlite3.Connection, query: Query) -> Iterator[dict[str, Any]]:
    wanted = name_filter(query.all("lfn"))
    for item in selected(connection, _of_files(connection, query)):
        files = _files(connection, item, bool(query.all("node") or query.all("se")))
        kept = [file for file in files if wanted is None or wanted(file["name"])]
        if kept:
            yield _block(item, kept)


def _of_files(connection: sqlite3.Connection, query: Query) -> Query:
    """The query with the blocks of exact LFNs added, so that they are looked up and not searched for."""
    lfns = query.all("lfn")
    if not lfns or query.all("block") or any(is_wild(lfn) for lfn in lfns):
        return query
    blocks = {block.name for lfn in lfns if (block := block_with_file(connection, lfn)) is not None}
    return Query({**query.values, "block": sorted(blocks) or [""]}, query.ops, query.now)


def name_filter(texts: list[str]) -> Any:
    """A test for names that match one of the values, or None if there is none to match."""
    if not texts:
        return None
    escaped = (re2.escape(text).replace(r"\*", ".*").replace(r"\%", ".*").replace(r"\?", ".") for text in texts)
    return re2.compile("|".join(escaped)).fullmatch


def _files(connection: sqlite3.Connection, item: Selected, only_present: bool) -> Iterator[dict[str, Any]]:
    absent = absent_of(connection, item.block.id)
    for file in files_of(connection, item.block):
        replicas = [r for r in item.replicas if file.id not in absent.get(r.node_id, ())]
        if replicas or not only_present:
            yield _file(file, replicas)


def _file(file: File, replicas: list[Replica]) -> dict[str, Any]:
    return {
        "id": str(file.id),
        "name": file.name,
        "bytes": file.bytes,
        "checksum": file.checksum,
        "time_create": number(file.time_create),
        "original_node": None,  # null in the real service's JSON too, by a wrong column name
        "replica": [
            {
                "node": replica.node,
                "node_id": str(replica.node_id),
                "se": replica.se,
                "time_create": number(replica.time_create) if replica.active else None,
                "subscribed": flag(replica.subscribed),
                "custodial": flag(replica.custodial),
                "group": replica.group,
            }
            for replica in replicas
        ],
    }


def _block(item: Selected, files: list[dict[str, Any]]) -> dict[str, Any]:
    block = item.block
    return {
        "id": str(block.id),
        "name": block.name,
        "files": block.files,
        "bytes": block.bytes,
        "is_open": flag(block.is_open),
        "file": files,
    }


FILEREPLICAS = Call(
    Spec("PHEDEX::Web::API::FileReplicas::spool", _OPTIONS, one_of=("block", "lfn", "dataset")),
    _filereplicas,
    300,
    spooled=True,
)
