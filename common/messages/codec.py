"""How is a message written down, and what makes one invalid?"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from common.errors import InvalidMessage, NewerVersion
from common.messages.beats import Beat
from common.messages.commands import KINDS, Command, kind_of
from common.messages.events import Event
from common.messages.fields import SUCH_AS

MAX_BYTES = 128 * 1024
# The newest version of each kind that this program reads. Whoever writes a field that is newer than its kind writes
# the version with it, so that an older worker lets the command wait for its upgrade.
VERSION = {**dict.fromkeys(KINDS, 1), "sync.blocks": 4, "sync.dataset": 2}

T = TypeVar("T")

_encoder = msgspec.json.Encoder()
_command: msgspec.json.Decoder[Command] = msgspec.json.Decoder(Command)
_event: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
_beat: msgspec.json.Decoder[Beat] = msgspec.json.Decoder(Beat)


class _Head(msgspec.Struct):
    kind: str
    v: int = 1


_head = msgspec.json.Decoder(_Head)


def encode(command: Command) -> bytes:
    """The command as JSON; InvalidMessage where it is larger than any worker would take."""
    body = _encoder.encode(command)
    _check_size(body)
    return body


def decode(body: bytes) -> Command:
    """The command in a body.

    Raises InvalidMessage, whose text names the field, for what is not JSON, too large, too deep, of an unknown kind,
    or has an unknown, missing or wrong field; NewerVersion for a version that this program does not know.
    """
    _check_size(body)
    head = _decoded(_head.decode, body)
    _check_kind(head)
    return _decoded(_command.decode, body)


def encode_event(event: Event) -> bytes:
    """The event as JSON."""
    return _encoder.encode(event)


def decode_event(body: bytes) -> Event | None:
    """The event in a body; None for one that this program does not know (a newer one, or somebody else's)."""
    try:
        return _event.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None


def encode_beat(beat: Beat) -> bytes:
    """The beat as JSON."""
    return _encoder.encode(beat)


def decode_beat(body: bytes) -> Beat | None:
    """The beat in a body; None for one that this program does not know."""
    try:
        return _beat.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None


def as_dict(command: Command) -> dict[str, Any]:
    """The command as plain data, as it stands on the wire."""
    plain: dict[str, Any] = msgspec.to_builtins(command)
    return plain


def build(kind: str, fields: dict[str, Any]) -> Command:
    """A command of plain data, checked like one from the wire; raises InvalidMessage."""
    if kind not in KINDS:
        raise InvalidMessage(f"kind: unknown kind {kind!r}; known are {', '.join(KINDS)}")
    return decode(_encoder.encode({"kind": kind, **fields}))


def checked(command: Command) -> Command:
    """The same command, checked like one from the wire (structs made in code are not); raises InvalidMessage."""
    return build(kind_of(command), {k: v for k, v in as_dict(command).items() if k != "kind"})


def _check_size(body: bytes) -> None:
    if len(body) > MAX_BYTES:
        raise InvalidMessage(f"message: {len(body)} bytes, at most {MAX_BYTES} are taken")


def _check_kind(head: _Head) -> None:
    if head.kind not in KINDS:
        raise InvalidMessage(f"kind: unknown kind {head.kind!r}; known are {', '.join(KINDS)}")
    if head.v > VERSION[head.kind]:
        raise NewerVersion(
            f"v: {head.kind} of version {head.v}, this program knows {VERSION[head.kind]}: upgrade this worker"
        )


def _decoded(decode_as: Callable[[bytes], T], body: bytes) -> T:
    """What the decoder makes of the body, its complaints as InvalidMessage that begin with the field's name.

    The typed decoder refuses nesting where a field has none; what it skips may still be deep enough to exhaust the
    interpreter's stack, which it reports as RecursionError.
    """
    try:
        return decode_as(body)
    except RecursionError:
        raise InvalidMessage("message: nested too deep") from None
    except msgspec.ValidationError as error:
        raise InvalidMessage(_field_first(_such_as(str(error), body))) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidMessage(f"message: not JSON ({error})") from None


def _such_as(text: str, body: bytes) -> str:
    """Where a name breaks its pattern: the name, and one that does not, in place of the pattern."""
    words = next((words for pattern, words in SUCH_AS.items() if repr(pattern) in text), None)
    if words is None:
        return text
    _, at, where = text.partition(" - at `$")
    try:
        value = msgspec.json.decode(body)
        for part in re.findall(r"\w+", where):
            value = value[int(part) if isinstance(value, list) else part]
        said = f"{value!r:.80}"
    except (LookupError, TypeError, ValueError, RecursionError, msgspec.MsgspecError):  # a key that is there twice
        said = "this"
    return f"{said} is no {words}{at}{where}"


def _field_first(text: str) -> str:
    """`Expected `str`, got `int` - at `$.meta.id`` → `meta.id: Expected `str`, got `int``."""
    unknown = re.match(r"Object (?:contains unknown|missing required) field `([^`]*)`(?: - at `\$\.?([^`]*)`)?$", text)
    if unknown:
        problem = "unknown field" if "unknown" in text else "missing"
        path = f"{unknown[2]}.{unknown[1]}" if unknown[2] else unknown[1]
        return f"{path}: {problem}"
    what, _, where = text.partition(" - at `$")
    return f"{where.strip('`.') or 'message'}: {what}"
