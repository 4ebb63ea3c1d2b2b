"""Which nodes are linked, how near, and do their agents run? The call links."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any

from datasvc.calls.call import Call
from datasvc.conditions import joined, named
from datasvc.encode import Rows, number
from datasvc.invented import site_of
from datasvc.options import Option, Query, Spec
from datasvc.selection import NODE

SEEN = 300.0  # how long ago a made agent that runs was seen, seconds
DOWN_AFTER = 6300.0  # an agent that was not seen for so long is down (PhEDEx)
_LONG_AGO = 10 * DOWN_AFTER


def _links(connection: sqlite3.Connection, query: Query) -> Mapping[str, Any]:
    given = (named("f.name", query.all("from")), named("t.name", query.all("to")))
    where = joined([part for part in given if part is not None])
    rows = connection.execute(
        "SELECT f.name, f.kind, t.name, t.kind, distance, status FROM link"  # noqa: S608
        " JOIN node f ON f.id = from_id JOIN node t ON t.id = to_id"
        f" WHERE f.name NOT GLOB 'X*' AND t.name NOT GLOB 'X*' AND {where.sql} ORDER BY from_id, to_id",
        where.values,
    )
    return {"link": Rows(_wanted(rows, query))}


def _wanted(rows: sqlite3.Cursor, query: Query) -> Iterator[dict[str, Any]]:
    statuses, kinds = query.all("status"), query.all("kind")
    for row in rows:
        record = _link(row, query.now)
        if (not statuses or record["status"] in statuses) and (not kinds or record["kind"] in kinds):
            yield record


def _link(row: tuple[str, str, str, str, int, str], now: float) -> dict[str, Any]:
    source, source_kind, sink, sink_kind, distance, status = row
    from_seen, to_seen = _seen("from", status, now), _seen("to", status, now)
    return {
        "from": source,
        "to": sink,
        "from_kind": source_kind,
        "to_kind": sink_kind,
        "distance": distance,
        "kind": kind_of(row),
        "status": status,
        "from_agent_update": number(from_seen),
        "to_agent_update": number(to_seen),
        "from_agent_age": age(now - from_seen) if from_seen else None,
        "to_agent_age": age(now - to_seen) if to_seen else None,
        "from_agent_protocols": "srmv2" if from_seen else None,
        "to_agent_protocols": "srmv2" if to_seen else None,
    }


def kind_of(row: tuple[str, str, str, str, int, str]) -> str:
    """Staging from tape, Migration to tape, Local inside a site, else WAN."""
    source, source_kind, sink, sink_kind, *_ = row
    if (source_kind, sink_kind) == ("MSS", "Buffer"):
        return "Staging"
    if (source_kind, sink_kind) == ("Buffer", "MSS"):
        return "Migration"
    return "Local" if site_of(source) == site_of(sink) else "WAN"


def _seen(end: str, status: str, now: float) -> float:
    """When the agent of that end was seen, so that the status follows from it: 0 is never."""
    if status == f"{end}_excluded":
        return 0.0
    return round(now - (_LONG_AGO if status == f"{end}_down" else SEEN), 1)


def age(seconds: float) -> str:
    """How long ago, as PhEDEx writes it: `3d5h07`, `12h34`."""
    minutes = int(seconds) // 60
    days, hours, rest = minutes // 1440, minutes // 60 % 24, minutes % 60
    return f"{days}d{hours}h{rest:02d}" if days else f"{hours}h{rest:02d}"


LINKS = Call(
    Spec(
        "PHEDEX::Web::API::Links::links",
        {"from": NODE, "to": NODE, "status": Option("status", many=True), "kind": Option("kind", many=True)},
    ),
    _links,
    3600,
)
