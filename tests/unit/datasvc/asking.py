"""Asks a call of the data service in this process: the query is checked, the reply written and read as JSON."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from datasvc import envelope, store
from datasvc.calls.table import CALLS
from datasvc.options import checked, pairs


def ask(snapshot: Path, call: str, options: str = "", now: float | None = None) -> dict[str, Any]:
    """The reply's `phedex` object."""
    moment = time.time() if now is None else now
    connection = store.reader(snapshot)
    try:
        query = checked(CALLS[call].spec, pairs(options), moment)
        clock = envelope.Clock(moment, time.monotonic())
        asked = envelope.Asked("json", "prod", call, f"http://here/{call}", "2.4.0pre1", clock)
        body = b"".join(envelope.written(asked, CALLS[call].answer(connection, query), spooled=CALLS[call].spooled))
    finally:
        connection.close()
    reply: dict[str, Any] = json.loads(body)["phedex"]
    return reply


def names(reply: dict[str, Any], key: str = "block") -> list[str]:
    """The names of the reply's rows."""
    return [row["name"] for row in reply[key]]
