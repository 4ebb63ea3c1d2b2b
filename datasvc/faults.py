"""A test aid: how should the service misbehave? Chosen calls answer wrongly, as a faults file says.

The file is JSON, a list of entries, read anew at every request; a rewritten file starts its counts anew. The first
entry that fits a request is used.

    [{"call": "blockreplicas", "kind": "stale", "count": 1, "match": "node=T2_IT_Pisa"}]

call: a call's name, or * for all. kind: see Kind. count: how many times (absent: always). match: a substring of the
decoded query. value: a status (status), seconds (delay, stale), bytes kept (truncated, torn; default half of the
first piece), an instance (other_instance), a node name (other_rows; default another node that holds data), a part of
a block's name (missing_block; default: of all blocks).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from common.errors import UsageError
from datasvc.calls import deletions
from datasvc.conditions import listed
from datasvc.encode import Rows
from datasvc.envelope import without_rows
from datasvc.options import Query

Row = dict[str, Any]


class Kind(StrEnum):
    """The ways in which a call can misbehave."""

    STATUS = "status"  # an error status, 503 if not said otherwise
    LOGIN = "login"  # a login page as HTML under status 200
    TRUNCATED = "truncated"  # the body ends early, the transfer looks whole
    TORN = "torn"  # the connection breaks in the middle of the body
    NO_CALL_TIME = "no_call_time"  # whole JSON, but the footer is missing
    ERROR_DOCUMENT = "error_document"  # {"error": …} under status 200
    OTHER_ROWS = "other_rows"  # a whole reply with the rows of another node
    OTHER_INSTANCE = "other_instance"  # the envelope names another instance
    OTHER_CALL = "other_call"  # the envelope names another call
    STALE = "stale"  # the reply was made long ago, a day if not said otherwise
    EMPTY = "empty"  # a whole reply without rows
    FREEZE = "freeze"  # never an answer
    DELAY = "delay"  # the right answer, late
    # Whole and fresh replies that are not true; the last four lie in one call alone.
    MISSING_BLOCK = "missing_block"  # the rows of some blocks are left out
    HALF_FILES = "half_files"  # filereplicas lists half the files of each block, and says that these are all
    OTHER_FIGURES = "other_figures"  # blockreplicas says of each block, and of its replicas, one file less
    FALSE_DELETIONS = "false_deletions"  # deletions: each block that was asked for was just deleted at each node
    NO_DELETIONS = "no_deletions"  # deletions: there are none


# In all other calls these are as if they were not in the file.
_ONLY_IN = {
    Kind.HALF_FILES: "filereplicas",
    Kind.OTHER_FIGURES: "blockreplicas",
    Kind.FALSE_DELETIONS: "deletions",
    Kind.NO_DELETIONS: "deletions",
}


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of a faults file."""

    call: str
    kind: Kind
    count: int | None = None
    match: str = ""
    value: int | float | str | None = None

    def amount(self, default: float) -> float:
        """The value as a number. Raises UsageError."""
        if isinstance(self.value, str):
            raise UsageError(f"faults: value {self.value!r} of {self.kind} for {self.call} should be a number")
        return default if self.value is None else float(self.value)


class Book:
    """The faults file and how often each entry was used."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._written: bytes | None = None
        self._entries: list[Fault] = []
        self._used: dict[int, int] = {}

    def take(self, call: str, query: str) -> Fault | None:
        """The fault for this request, counted as used; None if the call is to behave. Raises UsageError."""
        if self._path is None:
            return None
        self._read(self._path)
        for number, fault in enumerate(self._entries):
            fits = fault.call in {"*", call} and _ONLY_IN.get(fault.kind, call) == call and fault.match in query
            if fits and (fault.count is None or self._used.get(number, 0) < fault.count):
                self._used[number] = self._used.get(number, 0) + 1
                return fault
        return None

    def _read(self, path: Path) -> None:
        written = path.read_bytes() if path.exists() else b"[]"
        stamp = written + str(path.stat().st_mtime_ns if path.exists() else 0).encode()
        if stamp == self._written:
            return
        try:
            self._entries = msgspec.json.decode(written, type=list[Fault])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"faults file {path}: {error}: correct it, its form is in datasvc/faults.py") from error
        self._written, self._used = stamp, {}


def other_rows(connection: sqlite3.Connection, query: Query, fault: Fault) -> Query:
    """The query of somebody else: that of another node, as after a cursor left over in the real service."""
    asked = query.all("node")
    row = connection.execute(
        "SELECT name FROM node n WHERE name NOT IN (SELECT value FROM json_each(?))"
        " AND EXISTS (SELECT 1 FROM replica r WHERE r.node_id = n.id) ORDER BY name LIMIT 1",
        (msgspec.json.encode(asked).decode(),),
    ).fetchone()
    node = str(fault.value or (row[0] if row else "T2_XX_Nowhere"))
    values = {name: texts for name, texts in query.values.items() if name not in {"node", "block", "se"}}
    return Query({**values, "node": [node]}, query.ops, query.now)


def spoiled(
    connection: sqlite3.Connection, query: Query, payload: Mapping[str, Any], fault: Fault
) -> Mapping[str, Any]:
    """The payload, with what this fault does to its rows."""
    match fault.kind:
        case Kind.EMPTY | Kind.NO_DELETIONS:
            return without_rows(payload)
        case Kind.MISSING_BLOCK:
            part = str(fault.value or "")
            return _with_blocks(payload, lambda row: None if part in row["name"] else row)
        case Kind.HALF_FILES:
            return _with_blocks(payload, _half)
        case Kind.OTHER_FIGURES:
            return _with_blocks(payload, _fewer)
        case Kind.FALSE_DELETIONS:
            return _deleted_everywhere(connection, query)
    return payload


def _with_blocks(value: Mapping[str, Any], change: Callable[[Row], Row | None]) -> dict[str, Any]:
    """The same with every block's row changed, wherever it stands; one that becomes None is left out."""
    return {name: _changed(name, inner, change) for name, inner in value.items()}


def _changed(name: str, value: Any, change: Callable[[Row], Row | None]) -> Any:
    if not isinstance(value, Rows | list):
        return value
    items = value.items if isinstance(value, Rows) else value
    if name == "block":
        return Rows(row for row in map(change, items) if row is not None)
    return Rows(_with_blocks(item, change) for item in items)


def _half(row: Row) -> Row:
    files = row["file"][: max(1, len(row["file"]) // 2)]
    return {**row, "files": len(files), "bytes": sum(file["bytes"] for file in files), "file": files}


def _fewer(row: Row) -> Row:
    """What is complete stays so, and what is not."""
    size = row["bytes"] // max(1, row["files"])

    def less(part: Row) -> Row:
        return {**part, "files": max(0, part["files"] - 1), "bytes": max(0, part["bytes"] - size)}

    return {**less(row), "replica": [less(replica) for replica in row["replica"]]}


def _deleted_everywhere(connection: sqlite3.Connection, query: Query) -> dict[str, Any]:
    blocks = listed("b.name", query.all("block"))
    rows = connection.execute(
        "SELECT d.id, d.name, d.is_open, b.id, b.name, b.files, b.bytes, 1, n.name, n.se, n.id, ?, ?"  # noqa: S608
        " FROM block b JOIN dataset d ON d.id = b.dataset_id CROSS JOIN node n"
        f" WHERE n.name NOT GLOB 'X*' AND {blocks.sql} ORDER BY d.id DESC, b.id, n.id",
        (query.now, query.now, *blocks.values),
    )
    return deletions.payload(rows)
