"""What did the agents of a node log? The call agentlogs, where the FTS server of a node was found."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from datasvc.calls.call import DAY, Call
from datasvc.conditions import Condition, joined, named
from datasvc.encode import Rows
from datasvc.options import Option, Query, Spec
from datasvc.selection import NODE, TEXT, TIME

_MADE_AGE = 3600  # seconds: a made entry has no time of its own, it is always an hour old
_COLUMNS = {"user": "user", "host": "host", "pid": "pid", "agent": "agent"}


def _agentlogs(connection: sqlite3.Connection, query: Query) -> Mapping[str, Any]:
    since = query.since("update_since")
    parts = [Condition("coalesce(time, ?) >= ?", (query.now - _MADE_AGE, query.now - DAY if since is None else since))]
    parts += [Condition(f"{column} = ?", (query.one(name),)) for name, column in _COLUMNS.items() if query.all(name)]
    nodes = named("n.name", query.all("node"), query.ops.get("node", "or"))
    where = joined(parts if nodes is None else [*parts, nodes])
    rows = connection.execute(
        "SELECT host, user, pid, agent, n.name, n.id, n.se, coalesce(time, ?), reason, working_dir, state_dir, message"  # noqa: S608
        f" FROM agent_log JOIN node n ON n.id = node_id WHERE {where.sql} ORDER BY host, user, pid, agent, time",
        (query.now - _MADE_AGE, *where.values),
    )
    return {"agent": Rows(_agents(rows))}


def _agents(rows: sqlite3.Cursor) -> Iterator[dict[str, Any]]:
    for (host, user, pid, agent), group in groupby(rows, key=lambda row: row[:4]):
        found = list(group)
        nodes = {row[5]: {"name": row[4], "id": row[5], "se": row[6]} for row in found}
        yield {
            "host": host,
            "user": user,
            "pid": str(pid),
            "name": agent,
            "log": [_log(row) for row in found],
            "node": list(nodes.values()),
        }


def _log(row: tuple[Any, ...]) -> dict[str, Any]:
    time, reason, working_dir, state_dir, message = row[7:]
    return {
        "time": f"{time:.15g}",
        "reason": reason,
        "working_dir": working_dir,
        "state_dir": state_dir,
        "message": {"$t": message},
    }


AGENTLOGS = Call(
    Spec(
        "PHEDEX::Web::API::AgentLogs::spool",
        {
            "node": NODE,
            "user": TEXT,
            "host": Option("hostname"),
            "pid": Option("number"),
            "agent": TEXT,
            "update_since": TIME,
        },
        one_of=("node", "user", "host", "pid", "agent", "update_since"),
    ),
    _agentlogs,
    3600,
    spooled=True,
)
