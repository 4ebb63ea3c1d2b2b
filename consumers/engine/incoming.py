"""What is in a delivery? A command with an identity, or the reason why there is none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec.structs import fields, replace

from common.errors import NewerVersion
from common.messages import codec
from common.messages.commands import Command, with_meta
from common.messages.meta import Meta

ROOM = 4096  # bytes that ids, attempts and times may add to what somebody wrote by hand


def read(body: bytes, queue: str, message_id: str) -> Command:
    """The command in a delivery, with its identity.

    Raises what `codec.decode` raises; also InvalidMessage for what fits, but not with what settling adds to it.
    """
    command = identified(codec.decode(body), queue, message_id, body)
    if len(body) > codec.MAX_BYTES - ROOM:
        codec.encode(with_meta(command, replace(command.meta, errors=[], by=command.meta.by + " " * ROOM)))
    return command


def identified(command: Command, queue: str, message_id: str, body: bytes) -> Command:
    """The command with id, cycle and lane, whoever wrote it.

    Without an id it gets the message's or one of its content, so that a redelivery has the same. A queue of people
    makes the lane theirs.
    """
    ident = command.meta.id or fallback_id(message_id, body)
    lane = "now" if queue.endswith(".now") else command.meta.lane
    return with_meta(command, replace(command.meta, id=ident, cycle=command.meta.cycle or ident, lane=lane))


def fallback_id(message_id: str, body: bytes) -> str:
    """An id for a message whose body has none."""
    return message_id or f"body-{hashlib.sha256(body).hexdigest()[:20]}"


@dataclass(frozen=True)
class Unreadable:
    """A message that is no command of ours: its plain content as far as there is any, and what is known of its meta."""

    plain: dict[str, Any] | None
    meta: Meta
    error: Exception


def unreadable(body: bytes, message_id: str, error: Exception) -> Unreadable:
    """What can be said of a body that `codec.decode` refused; its id and cycle if they can be read."""
    plain = _plain(body) if len(body) <= codec.MAX_BYTES else None
    found = _known((plain or {}).get("meta"))
    ident = found.id or fallback_id(message_id, body)
    return Unreadable(plain, replace(found, id=ident, cycle=found.cycle or ident), error)


def rewritten(message: Unreadable, meta: Meta) -> bytes | None:
    """The body of a newer version with another meta, all else as it was; None if it cannot be written.

    Only for NewerVersion: what is invalid keeps its bytes.
    """
    if message.plain is None or not isinstance(message.error, NewerVersion):
        return None
    old = message.plain.get("meta")
    merged = {**(old if isinstance(old, Mapping) else {}), **msgspec.to_builtins(meta)}
    return json.dumps({**message.plain, "meta": merged}).encode()


def _plain(body: bytes) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _known(meta: object) -> Meta:
    """The fields of a meta that are ours and valid, each judged by itself."""
    if not isinstance(meta, Mapping):
        return Meta()
    result = Meta()
    for name in (field.encode_name for field in fields(Meta)):
        if name in meta:
            result = _with(result, name, meta[name])
    return result


def _with(meta: Meta, name: str, value: object) -> Meta:
    try:
        return replace(meta, **{name: getattr(msgspec.convert({name: value}, Meta), name)})
    except (msgspec.ValidationError, RecursionError):
        return meta
