"""Good replies, as plain data that a test breaks, and what it takes to read them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from common.phedex import rows, trust
from common.phedex.replies import CALLS, BlockReplicas, Envelope, FileReplicas
from common.phedex.trust import Answer, Freshness, Question
from common.sync.selection import like
from common.sync.whereabouts import Whereabouts

NOW = 1_560_000_000.0
NODE = "T2_IT_Pisa"
PATTERN = "/A*/*/*"
FRESH = Freshness(300, 300)
FULL = "/Alpha/Run2018A-v1/RAW#11111111-aaaa"
PART = "/Alpha/Run2018A-v1/RAW#22222222-bbbb"
OPEN = "/Alpha/Run2018B-v1/AOD#33333333-cccc"


def envelope(call: str, **payload: Any) -> dict[str, Any]:
    return {
        "phedex": {
            "request_version": "2.4.0pre1",
            "request_timestamp": NOW + 0.57439,
            "instance": "prod",
            "request_call": call,
            "request_url": f"http://cmsweb.cern.ch:7001/phedex/datasvc/json/prod/{call}",
            "request_date": "2019-06-08 13:20:00 UTC",
            **payload,
            "call_time": "0.05906",
        }
    }


def block(name: str, files: int, here: int, is_open: str = "n", node: str = NODE, **rest: Any) -> dict[str, Any]:
    complete = "y" if is_open == "n" and here == files else "n"
    return {
        "id": "7702606",
        "name": name,
        "files": files,
        "bytes": files * 1000,
        "is_open": is_open,
        "replica": [
            {
                "node": node,
                "node_id": "46",
                "se": None,
                "files": here,
                "bytes": here * 1000,
                "time_create": 1311331011,
                "time_update": 1311610457.398,
                "complete": complete,
                "subscribed": "y",
                "custodial": "n",
                "group": "DataOps",
                **rest,
            }
        ],
    }


def blockreplicas() -> dict[str, Any]:
    return envelope("blockreplicas", block=[block(FULL, 3, 3), block(PART, 4, 1), block(OPEN, 2, 2, "y")])


def file(name: str, size: Any = 10, checksum: str | None = "adler32:a952185,cksum:3710306270") -> dict[str, Any]:
    replica = {"node": NODE, "node_id": "46", "se": None, "time_create": None, "group": "DataOps"}
    return {"id": "1", "name": name, "bytes": size, "checksum": checksum, "original_node": None, "replica": [replica]}


def filereplicas() -> dict[str, Any]:
    rows = [
        {"id": "1", "name": FULL, "files": 3, "bytes": 30, "is_open": "n", "file": [file(lfn(n)) for n in range(3)]},
        {"id": "2", "name": PART, "files": 4, "bytes": 40, "is_open": "n", "file": [file(lfn(8)), file(lfn(9))]},
    ]
    return envelope("filereplicas", block=rows)


def lfn(number: int) -> str:
    return f"/store/data/Run2018A/Alpha/RAW/v1/{number}.root"


def body(document: Any) -> bytes:
    return json.dumps(document).encode()


def question(kind: type[Envelope]) -> Question:
    return Question(CALLS[kind], "prod", (("node", NODE), ("dataset", PATTERN)))


def answer(content: bytes, status: int = 200, asked_at: float = NOW, location: str = "") -> Answer:
    return Answer(status, content, asked_at, asked_at + 1, location)


def listing(content: bytes, **changes: Any) -> rows.Listing:
    """The blocks at NODE that match PATTERN, of a body."""
    asked = question(BlockReplicas)
    reply = trust.read(BlockReplicas, asked, answer(content, **changes), FRESH)
    return rows.at_node(asked, reply, NODE, like(PATTERN))


def file_lists(content: bytes, figures: Mapping[str, rows.Figures] | None = None) -> Any:
    """The file lists, and doubts, of FULL and PART at NODE, of a body."""
    asked = question(FileReplicas)
    reply = trust.read(FileReplicas, asked, answer(content), FRESH)
    return rows.files(asked, reply, NODE, {FULL, PART}, figures or {})


def places(content: bytes) -> dict[str, Whereabouts]:
    """Where FULL, PART and OPEN are, of a body."""
    asked = question(BlockReplicas)
    reply = trust.read(BlockReplicas, asked, answer(content), FRESH)
    return rows.whereabouts(asked, reply, [FULL, PART, OPEN], [])
