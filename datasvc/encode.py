"""How is a reply written, piece by piece, so that a large one is never held whole?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from xml.sax.saxutils import escape

import msgspec

CHUNK = 64 * 1024


class Rows(msgspec.Struct, frozen=True):
    """An array whose items are made while they are written."""

    items: Iterable[Any]


class Later(msgspec.Struct, frozen=True):
    """A value that is known only when it is written."""

    make: Callable[[], Any]


_encoder = msgspec.json.Encoder()


def json_pieces(value: Any) -> Iterator[bytes]:
    """The value as JSON. Objects and arrays that hold no Rows or Later are one piece."""
    if isinstance(value, Rows):
        yield from _json_array(value.items)
    elif isinstance(value, Later):
        yield _encoder.encode(value.make())
    elif isinstance(value, dict) and any(isinstance(item, Rows | Later | dict) for item in value.values()):
        yield from _json_object(value)
    else:
        yield _encoder.encode(value)


def _json_array(items: Iterable[Any]) -> Iterator[bytes]:
    yield b"["
    for number, item in enumerate(items):
        if number:
            yield b","
        yield from json_pieces(item)
    yield b"]"


def _json_object(value: Mapping[str, Any]) -> Iterator[bytes]:
    yield b"{"
    for number, (key, item) in enumerate(value.items()):
        if number:
            yield b","
        yield _encoder.encode(key) + b":"
        yield from json_pieces(item)
    yield b"}"


def xml_pieces(name: str, value: Mapping[str, Any]) -> Iterator[bytes]:
    """The same tree as XML: scalars are attributes in single quotes, null is empty, free text is CDATA."""
    scalars = {key: item for key, item in value.items() if not isinstance(item, Rows | list | dict)}
    yield f"<{name}{''.join(_attribute(key, item) for key, item in scalars.items())}".encode("latin-1", "replace")
    inner = [(key, item) for key, item in value.items() if key not in scalars]
    if not inner:
        yield b"/>"
        return
    yield b">"
    for key, item in inner:
        yield from _xml_children(key, item)
    yield f"</{name}>".encode()


def _xml_children(key: str, item: Any) -> Iterator[bytes]:
    if isinstance(item, dict):
        text = item.get("$t")
        yield from xml_pieces(key, item) if text is None else _cdata(key, text)
        return
    for child in item.items if isinstance(item, Rows) else item:
        # An item of a `tfc` reply names its own element; the array around it has none.
        element = str(child.get("element_name", key))
        yield from xml_pieces(element, {k: v for k, v in child.items() if k != "element_name"})


def _cdata(key: str, text: str) -> Iterator[bytes]:
    safe = text.replace("]]>", "]]]]><![CDATA[>")
    yield f"<{key}><![CDATA[{safe}]]></{key}>".encode("latin-1", "replace")


def _attribute(key: str, value: Any) -> str:
    text = "" if value is None else escape(str(value), {"'": "&apos;"})
    return f" {key}='{text}'"


def chunks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in chunks of about CHUNK bytes."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= CHUNK:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


def number(value: float | None) -> float | int | None:
    """A database number as JSON shows it: an integer without point, else at most 15 significant digits."""
    if value is None or isinstance(value, int):
        return value
    return int(value) if value.is_integer() else float(f"{value:.15g}")


def flag(value: object) -> str:
    """`y` or `n`."""
    return "y" if value else "n"
