"""A test aid: how should the service misbehave? Chosen calls answer wrongly, as a faults file says.

The file is JSON, a list of entries, read anew at every request; a rewritten file starts its counts anew. The first
entry that fits a request is used.

    [{"call": "blockreplicas", "kind": "stale", "count": 1, "match": "node=T2_IT_Pisa"}]

call: a call's name, or * for all. kind: see Kind. count: how many times (absent: always). match: a substring of the
decoded query. value: a status (status), seconds (delay, stale), bytes kept (truncated, torn; default half of the
first piece), an instance (other_instance), a node name (other_rows; default another node that holds data).
"""

from __future__ import annotations

import sqlite3
from enum import StrEnum
from pathlib import Path

import msgspec

from common.errors import UsageError
from datasvc.options import Query


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
            fits = fault.call in {"*", call} and fault.match in query
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
