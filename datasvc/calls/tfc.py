"""Where does a node store a file? The calls tfc and lfn2pfn."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any

from common.phedex import tfc
from datasvc.calls.call import Call
from datasvc.conditions import named
from datasvc.encode import Rows
from datasvc.options import Option, Query, Spec
from datasvc.refusal import Refusal
from datasvc.selection import NODE, TEXT, YES

_RULES = (
    "SELECT t.kind, protocol, path_match, result, chain, destination_match, is_custodial, space_token"
    " FROM tfc_rule t JOIN node n ON n.id = node_id WHERE n.name = ? ORDER BY position"
)
# `is_custodial` and `space_token` have an underscore in this call, a hyphen in storage.xml.
_KEYS = ("protocol", "path-match", "result", "chain", "destination-match", "is_custodial", "space_token")


def _tfc(connection: sqlite3.Connection, query: Query) -> Mapping[str, Any]:
    rows = connection.execute(_RULES, (query.one("node"),)).fetchall()
    # First all lfn-to-pfn; within a direction by protocol, in file order within a protocol.
    protocols = list(dict.fromkeys(row[1] for row in rows))
    ordered = sorted(rows, key=lambda row: (row[0], protocols.index(row[1])))
    return {"storage-mapping": {"array": [_record(row) for row in ordered]}}


def _record(row: tuple[str | None, ...]) -> dict[str, str | None]:
    present = {key: text for key, text in zip(_KEYS, row[1:], strict=True) if text is not None}
    return {"element_name": row[0], **present}


def _lfn2pfn(connection: sqlite3.Connection, query: Query) -> Mapping[str, Any]:
    nodes = _nodes(connection, query)
    if not nodes:
        raise Refusal(400, f"no nodes found for '{' '.join(query.all('node'))}'")
    return {"mapping": Rows(_mappings(connection, query, nodes))}


def _nodes(connection: sqlite3.Connection, query: Query) -> list[str]:
    where = named("name", query.all("node"), query.ops.get("node", "or"))
    assert where is not None
    statement = f"SELECT name FROM node WHERE name NOT GLOB 'X*' AND {where.sql} ORDER BY id"  # noqa: S608
    return [row[0] for row in connection.execute(statement, where.values)]


def _mappings(connection: sqlite3.Connection, query: Query, nodes: list[str]) -> Iterator[dict[str, str | None]]:
    protocol, destination, custodial = query.one("protocol") or "", query.one("destination"), query.one("custodial")
    for node in nodes:
        book = _catalogue(connection, node)
        for lfn in query.all("lfn"):
            found = tfc.apply(
                book, tfc.Kind.LFN_TO_PFN, protocol, lfn, destination=destination, custodial=custodial or "n"
            )
            yield {
                "node": node,
                "protocol": protocol,
                "lfn": lfn,
                "pfn": None if found is None else found.name,
                "destination": destination,
                "custodial": custodial,
                "space_token": None if found is None else found.space_token,
            }


def _catalogue(connection: sqlite3.Connection, node: str) -> tfc.Catalogue:
    records = (_record(row) for row in connection.execute(_RULES, (node,)))
    return tfc.from_reply(({key: text or "" for key, text in record.items()} for record in records), node)


TFC = Call(Spec("PHEDEX::Web::API::TFC::tfc", {"node": Option("node")}, required=("node",)), _tfc, 900)
LFN2PFN = Call(
    Spec(
        "PHEDEX::Web::API::LFN2PFN::lfn2pfn",
        {
            "node": NODE,
            "lfn": Option("lfn", many=True),
            "protocol": TEXT,
            "destination": Option("node"),
            "custodial": YES,
        },
        required=("node", "lfn", "protocol"),
    ),
    _lfn2pfn,
    900,
)
