"""Which nodes, groups and storage hosts are there? The calls nodes, groups and senames."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any

from datasvc.calls.call import Call
from datasvc.conditions import joined, named
from datasvc.hosts import host_in
from datasvc.options import Option, Query, Spec
from datasvc.selection import NODE, TEXT, TEXTS

_HOLDS_DATA = "EXISTS (SELECT 1 FROM replica r WHERE r.node_id = node.id AND r.files > 0)"


def _nodes(connection: sqlite3.Connection, query: Query) -> Mapping[str, Any]:
    """Retired nodes (X…) are hidden here, and shown in the calls about replicas."""
    where = joined([c for c in [named("name", query.all("node"), query.ops.get("node", "or"))] if c is not None])
    holding = _HOLDS_DATA if query.one("noempty") else "1"
    rows = connection.execute(
        f"SELECT name, id, se, kind, technology FROM node WHERE name NOT GLOB 'X*' AND {holding} AND {where.sql}"  # noqa: S608
        " ORDER BY id",
        where.values,
    )
    found = [
        {"name": name, "id": str(number), "se": se, "kind": kind, "technology": technology}
        for name, number, se, kind, technology in rows
    ]
    return {"node": found}


def _groups(connection: sqlite3.Connection, query: Query) -> Mapping[str, Any]:
    where = joined([c for c in [named("name", query.all("group"), query.ops.get("group", "or"))] if c is not None])
    rows = connection.execute(f"SELECT name, id FROM user_group WHERE {where.sql} ORDER BY name", where.values)  # noqa: S608
    return {"group": [{"name": name, "id": str(number)} for name, number in rows]}


def _senames(connection: sqlite3.Connection, query: Query) -> Mapping[str, Any]:
    """Hosts of the catalogues' results; nothing found is one record with a null, as the real service has it."""
    protocol, sename = query.one("protocol"), query.one("sename")
    found = sorted(
        record
        for record in _hosts(connection, query.one("node") or "T*")
        if protocol in {None, record[1]} and sename in {None, record[2]}
    )
    if found:
        return {"senames": [dict(zip(("node", "protocol", "sename"), record, strict=True)) for record in found]}
    nothing: dict[str, str | None] = {"node": None}
    if protocol is not None:
        nothing["protocol"] = protocol
    if sename is not None:
        nothing["senames"] = sename  # misspelt in the real service
    return {"senames": [nothing]}


def _hosts(connection: sqlite3.Connection, node: str) -> Iterator[tuple[str, str, str]]:
    # Here `_` stands for any one character: the real service does not escape it in this call alone.
    where = named("n.name", [node.replace("_", "?")])
    assert where is not None
    rows = connection.execute(
        "SELECT DISTINCT n.name, protocol, result FROM tfc_rule JOIN node n ON n.id = node_id"  # noqa: S608
        f" WHERE tfc_rule.kind = 'lfn-to-pfn' AND {where.sql}",
        where.values,
    )
    yield from {(name, protocol, host) for name, protocol, result in rows if (host := host_in(result)) is not None}


HOURS = 3600
NODES = Call(Spec("PHEDEX::Web::API::Nodes::nodes", {"node": NODE, "noempty": Option("yesno")}), _nodes, 12 * HOURS)
GROUPS = Call(Spec("PHEDEX::Web::API::Groups::groups", {"group": TEXTS}), _groups, 12 * HOURS)
SENAMES = Call(
    Spec("PHEDEX::Web::API::SENames::senames", {"node": Option("node"), "sename": TEXT, "protocol": TEXT}),
    _senames,
    900,
)
