"""What stands around the rows of a reply?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any

import msgspec

from datasvc.encode import Later, Rows, json_pieces, xml_pieces

FORMATS = {"json": "text/javascript", "xml": "text/xml"}


class Clock(msgspec.Struct, frozen=True):
    """When a request came: epoch seconds, and a monotonic clock to measure from."""

    now: float
    started: float


class Asked(msgspec.Struct, frozen=True):
    """What was asked, when, and of which version of the service."""

    form: str
    instance: str
    call: str
    url: str
    version: str
    clock: Clock


def head(asked: Asked) -> dict[str, Any]:
    """The envelope's keys but for `call_time`."""
    return {
        "instance": asked.instance,
        "request_call": asked.call,
        "request_version": asked.version,
        "request_url": asked.url,
        "request_timestamp": round(asked.clock.now, 5),
        "request_date": datetime.fromtimestamp(asked.clock.now, UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
    }


def written(asked: Asked, payload: Mapping[str, Any], *, spooled: bool, footer: bool = True) -> Iterator[bytes]:
    """The reply in pieces. In JSON `call_time` comes last: a string if spooled, else a number."""
    if asked.form == "xml":
        yield b"<?xml version='1.0' encoding='ISO-8859-1'?>"
        timed = {} if spooled or not footer else {"call_time": _elapsed(asked)}
        yield from xml_pieces("phedex", {**head(asked), **timed, **payload})
        return
    text = Later(lambda: f"{_elapsed(asked):.5f}" if spooled else _elapsed(asked))
    yield from json_pieces({"phedex": {**head(asked), **payload, **({"call_time": text} if footer else {})}})


def without_rows(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The payload of a reply that found nothing."""
    return {key: [] if isinstance(value, Rows | list) else value for key, value in payload.items()}


def cache_headers(max_age: int, now: float, *, nocache: bool) -> dict[str, str]:
    """The headers by which the front end and clients may keep a reply."""
    if nocache:
        return {}
    return {
        "Cache-Control": f"public, must-revalidate, max-age={max_age}",
        "Expires": formatdate(now + max_age, usegmt=True),
        "Last-Modified": formatdate(now, usegmt=True),
    }


def _elapsed(asked: Asked) -> float:
    return round(time.monotonic() - asked.clock.started, 5)
